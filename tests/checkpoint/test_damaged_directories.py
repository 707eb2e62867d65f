"""A model directory that cannot be used is refused with the file and the key in the message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ttsfleet_runtime.checkpoint.convert import convert
from ttsfleet_runtime.errors import CheckpointError


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(model_dir: Path) -> None:
        content = torch.load(model_dir / name, weights_only=True)
        change(content)
        torch.save(content, model_dir / name)

    return damage


def replace_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(model_dir: Path) -> None:
        text = (model_dir / name).read_text()
        assert old in text
        (model_dir / name).write_text(text.replace(old, new))

    return damage


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda model_dir: (model_dir / name).write_bytes(content) and None


def truncate(name: str) -> Callable[[Path], None]:
    def damage(model_dir: Path) -> None:
        content = (model_dir / name).read_bytes()
        (model_dir / name).write_bytes(content[: len(content) // 2])

    return damage


def styles(*entries: dict[str, str]) -> Callable[[Path], None]:
    return write("style_config.json", json.dumps({"lora_info": entries}).encode())


Q_PROJ = "llm.model.model.layers.1.self_attn.q_proj.weight"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing llm key": (
        edit("llm.pt", lambda state: state.pop(Q_PROJ)),
        rf"llm\.pt: key {Q_PROJ} is missing \(expected shape \[128, 128\]\)",
    ),
    "unknown llm key": (
        edit("llm.pt", lambda state: state.update({"step": torch.ones(1)})),
        r"llm\.pt: key step is unknown",
    ),
    "training counter": (
        edit("llm.pt", lambda state: state.update({"epoch": 3})),
        r"llm\.pt: key epoch holds a int, expected a tensor",
    ),
    "misshapen llm key": (
        edit("llm.pt", lambda state: state.update({Q_PROJ: state[Q_PROJ][:64]})),
        rf"llm\.pt: key {Q_PROJ} has shape \[64, 128\], expected \[128, 128\]",
    ),
    "integer weight": (
        edit("flow.pt", lambda state: state.update({"encoder_proj.bias": torch.ones(80, dtype=torch.int64)})),
        r"flow\.pt: key encoder_proj\.bias is a torch\.int64",
    ),
    "infinite weight": (
        edit("flow.pt", lambda state: state["encoder_proj.bias"].fill_(float("nan"))),
        r"flow\.pt: encoder_proj\.bias holds NaN",
    ),
    "missing flow key": (
        edit("flow.pt", lambda state: state.pop("encoder.after_norm.weight")),
        r"flow\.pt: key encoder\.after_norm\.weight is missing",
    ),
    "weight norm folded already": (
        edit("hift.pt", lambda state: state.update({"conv_pre.weight": torch.ones(32, 80, 7)})),
        r"hift\.pt: key conv_pre\.weight is unknown",
    ),
    "same tensor in both spellings": (
        edit("hift.pt", lambda state: state.update({"conv_pre.weight_g": torch.ones(32, 1, 1)})),
        r"hift\.pt: keys conv_pre\.parametrizations\.weight\.original0 and conv_pre\.weight_g mean the same",
    ),
    "truncated llm": (truncate("llm.pt"), r"llm\.pt: not a readable torch file"),
    "truncated hift": (truncate("hift.pt"), r"hift\.pt: not a readable torch file"),
    "empty flow": (write("flow.pt", b""), r"flow\.pt: not a readable torch file"),
    "pointer instead of a file": (
        write("flow.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
        r"flow\.pt: not a readable torch file",
    ),
    "pickled object": (
        lambda model_dir: torch.save({"a": Path("x")}, model_dir / "llm.pt"),
        r"llm\.pt: not a readable torch file",
    ),
    "list of tensors": (
        lambda model_dir: torch.save([torch.ones(1)], model_dir / "llm.pt"),
        r"llm\.pt: holds a list, expected a dict",
    ),
    "missing weights": (lambda model_dir: (model_dir / "flow.pt").unlink(), r"flow\.pt is missing"),
    "missing tokenizer": (
        lambda model_dir: (model_dir / "CosyVoice-BlankEN" / "vocab.json").unlink(),
        r"vocab\.json is missing",
    ),
    "no yaml": (lambda model_dir: (model_dir / "cosyvoice2.yaml").unlink(), "neither"),
    "both yamls": (write("cosyvoice3.yaml", b"a: 1"), "both"),
    "version 3": (
        lambda model_dir: (model_dir / "cosyvoice2.yaml").rename(model_dir / "cosyvoice3.yaml") and None,
        "CosyVoice3 is not implemented yet",
    ),
    "other class": (
        replace_text("cosyvoice2.yaml", "CausalMaskedDiffWithXvec", "MaskedDiffWithXvec"),
        r"cosyvoice2\.yaml: flow is 'MaskedDiffWithXvec', expected 'CausalMaskedDiffWithXvec'",
    ),
    "other activation": (
        replace_text("cosyvoice2.yaml", "act_fn: 'gelu'", "act_fn: 'snakebeta'"),
        r"flow\.decoder\.estimator\.act_fn is 'snakebeta'",
    ),
    "yaml of another size": (
        replace_text("cosyvoice2.yaml", "channels: [32]", "channels: [48]"),
        r"flow\.pt: key decoder\.estimator\.time_mlp\.linear_1\.weight has shape \[128, 320\], expected \[192, 320\]",
    ),
    "qwen config of another size": (
        replace_text("CosyVoice-BlankEN/config.json", '"hidden_size": 128', '"hidden_size": 256'),
        r"cosyvoice2\.yaml: llm\.llm_input_size is 128, expected 256",
    ),
    "damaged qwen config": (write("CosyVoice-BlankEN/config.json", b"{"), r"config\.json: cannot be read as JSON"),
    "voice without a mel": (
        edit("spk2info.pt", lambda voices: voices["random"].pop("prompt_speech_feat")),
        r"spk2info\.pt: voice random: key prompt_speech_feat is missing",
    ),
    "voice with a short mel": (
        edit(
            "spk2info.pt",
            lambda voices: voices["random"].update(
                prompt_speech_feat=voices["random"]["prompt_speech_feat"][:, :100]
            ),
        ),
        r"voice random: key prompt_speech_feat is torch\.float32 \[100, 80\], expected floats \[250, 80\]",
    ),
    "voice with ids of another model": (
        edit("spk2info.pt", lambda voices: voices["random"]["flow_prompt_speech_token"].add_(6000)),
        r"voice random: key flow_prompt_speech_token has ids from",
    ),
    "truncated voices": (truncate("spk2info.pt"), r"spk2info\.pt: not a readable torch file"),
    "style without a name": (
        styles({"llm_path": "llm.pt"}),
        r'style_config\.json: lora_info\[0\]: style_name is missing; for example "style_name": "calm"',
    ),
    "style without weights": (
        styles({"style_name": "calm"}),
        r"style_config\.json: lora_info\[0\]: llm_path is missing",
    ),
    "style whose weights are missing": (
        styles({"style_name": "calm", "llm_path": "calm.pt"}),
        r"calm\.pt is missing",
    ),
    "style twice": (
        styles({"style_name": "a", "llm_path": "llm.pt"}, {"style_name": "a", "llm_path": "llm.pt"}),
        r"lora_info\[1\]\.style_name 'a' occurs twice",
    ),
    "style that is a path": (
        styles({"style_name": "../a", "llm_path": "llm.pt"}),
        r"lora_info\[0\]\.style_name is '\.\./a'",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_directory_is_refused_with_file_and_key(
    damage: Callable[[Path], None], message: str, model_dir: Path, tmp_path: Path
) -> None:
    damage(model_dir)
    cache = tmp_path / "cache"
    with pytest.raises(CheckpointError, match=message):
        convert(model_dir, cache)
    assert not [path for path in cache.glob("*") if path.is_dir()]


def test_weight_beyond_half_precision_is_refused_with_a_remedy(model_dir: Path, tmp_path: Path) -> None:
    edit("llm.pt", lambda state: state["llm_decoder.bias"].fill_(1e5))(model_dir)
    with pytest.raises(CheckpointError, match=r"head\.bias reaches 100000.*use bf16 or fp32"):
        convert(model_dir, tmp_path / "cache", dtype="fp16")


def test_version_3_directory_as_published_is_refused_clearly(goldens_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="CosyVoice3 is not implemented yet"):
        convert(goldens_dir / "cosyvoice3-random", tmp_path)
