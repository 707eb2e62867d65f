"""What a bundle holds, that spellings of the same weights give the same bundle, and that it is made once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ttsfleet_runtime.checkpoint import resolve_model_dir
from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.checkpoint.cached import ensure_bundle, find_bundle
from ttsfleet_runtime.checkpoint.convert import convert
from ttsfleet_runtime.checkpoint.random_model import make_checkpoint
from ttsfleet_runtime.checkpoint.random_recipe import PRESETS
from ttsfleet_runtime.errors import CheckpointError, ConfigError

MODULES = ("llm.cosyvoice", "flow", "hift", "voices")
CONVERT = [sys.executable, "-m", "ttsfleet_runtime.checkpoint.convert"]


def same_tensors(left: Path, right: Path) -> bool:
    return all(
        (left / f"{name}.safetensors").read_bytes() == (right / f"{name}.safetensors").read_bytes()
        for name in MODULES
    )


def rewrite(path: Path, names: Mapping[str, str], prefix: str = "") -> None:
    """Save a state dict again with parts of its keys replaced."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in torch.load(path, weights_only=True).items():
        for old, new in names.items():
            key = key.replace(old, new)
        renamed[prefix + key] = tensor
    torch.save(renamed, path)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_random_dir: Path, bundle_cache: Path) -> Path:
    return convert(tiny_random_dir, bundle_cache)


def test_llm_rows_are_fused_in_the_documented_order(tiny_random_dir: Path, tiny_bundle: Path) -> None:
    state = torch.load(tiny_random_dir / "llm.pt", weights_only=True)
    fused = load_file(tiny_bundle / "llm.cosyvoice.safetensors")
    info = read_model_info(tiny_bundle).llm
    layer = "llm.model.model.layers.1"
    assert torch.equal(fused["embedding.weight"][info.sos_row : info.speech_offset], state["llm_embedding.weight"])
    assert torch.equal(fused["embedding.weight"][info.speech_offset :], state["speech_embedding.weight"])
    assert torch.equal(fused["embedding.weight"][: info.sos_row], state["llm.model.model.embed_tokens.weight"])
    for kind in ("weight", "bias"):
        parts = [state[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
        assert torch.equal(fused[f"layers.1.qkv.{kind}"], torch.cat(parts))
    gate_up = torch.cat([state[f"{layer}.mlp.gate_proj.weight"], state[f"{layer}.mlp.up_proj.weight"]])
    assert torch.equal(fused["layers.1.gate_up.weight"], gate_up)
    assert torch.equal(fused["head.weight"], state["llm_decoder.weight"])


def test_flow_projections_are_fused_and_the_rest_keeps_its_name(tiny_random_dir: Path, tiny_bundle: Path) -> None:
    state = torch.load(tiny_random_dir / "flow.pt", weights_only=True)
    flow = load_file(tiny_bundle / "flow.safetensors")
    attention = "decoder.estimator.mid_blocks.0.1.0.attn1"
    parts = [state.pop(f"{attention}.to_{part}.weight") for part in "qkv"]
    assert torch.equal(flow[f"{attention}.to_qkv.weight"], torch.cat(parts))
    encoder = "encoder.up_encoders.3.self_attn"
    parts = [state.pop(f"{encoder}.linear_{part}.bias") for part in "qkv"]
    assert torch.equal(flow[f"{encoder}.linear_qkv.bias"], torch.cat(parts))
    assert torch.equal(flow["encoder_proj.weight"], state["encoder_proj.weight"])
    assert not [key for key in flow if key.endswith(("to_q.weight", "linear_v.weight", "linear_k.bias"))]


def test_weight_norm_is_folded_as_torch_does(random_v2_dir: Path, random_v2_bundle: Path) -> None:
    state = torch.load(random_v2_dir / "hift.pt", weights_only=True)
    hift = load_file(random_v2_bundle / "hift.safetensors")
    for name in ("conv_pre", "ups.0", "resblocks.4.convs2.1", "f0_predictor.condnet.8"):
        parts = [state[f"{name}.parametrizations.weight.original{i}"] for i in (0, 1)]
        expected = torch._weight_norm(parts[1], parts[0], 0)
        torch.testing.assert_close(hift[f"{name}.weight"], expected, rtol=1e-6, atol=1e-7)
    assert not [key for key in hift if "parametrizations" in key]


def test_strided_overlapping_views_are_read_as_what_they_show(random_v2_dir: Path, random_v2_bundle: Path) -> None:
    published = torch.load(random_v2_dir / "flow.pt", weights_only=True)["input_embedding.weight"]
    assert not published.is_contiguous()
    assert torch.equal(load_file(random_v2_bundle / "flow.safetensors")["input_embedding.weight"], published)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        ({"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}, ""),
        ({}, "generator."),
        ({"parametrizations.weight.original0": "weight_g"}, "generator."),
    ],
    ids=["old weight norm", "generator prefix", "mixed"],
)
def test_other_spelling_of_the_vocoder_gives_the_same_bundle(
    names: Mapping[str, str], prefix: str, model_dir: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    rewrite(model_dir / "hift.pt", names, prefix)
    assert same_tensors(convert(model_dir, tmp_path / "cache"), tiny_bundle)


def test_file_that_is_no_zip_archive_gives_the_same_bundle(
    model_dir: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    state = torch.load(model_dir / "hift.pt", weights_only=True)
    torch.save(state, model_dir / "hift.pt", _use_new_zipfile_serialization=False)
    assert same_tensors(convert(model_dir, tmp_path / "cache"), tiny_bundle)


def test_weights_beside_the_tokenizer_are_ignored(model_dir: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    state = torch.load(model_dir / "llm.pt", weights_only=True)
    decoy = {
        key.removeprefix("llm."): -tensor.clone() for key, tensor in state.items() if key.startswith("llm.model")
    }
    save_file(decoy, model_dir / "CosyVoice-BlankEN" / "model.safetensors")
    bundle = convert(model_dir, tmp_path / "cache")
    assert same_tensors(bundle, tiny_bundle)
    assert read_model_info(bundle).digest == read_model_info(tiny_bundle).digest


def test_directory_without_voices_has_none(model_dir: Path, tmp_path: Path) -> None:
    (model_dir / "spk2info.pt").unlink()
    bundle = convert(model_dir, tmp_path / "cache")
    assert read_model_info(bundle).voices == []
    assert load_file(bundle / "voices.safetensors") == {}


def test_voice_has_one_vector_for_sft_and_one_for_its_prompt(tiny_en_dir: Path, tiny_en_bundle: Path) -> None:
    published = torch.load(tiny_en_dir / "spk2info.pt", weights_only=True)["heart"]
    voices = load_file(tiny_en_bundle / "voices.safetensors")
    assert torch.equal(voices["heart/embedding"], published["embedding"][0])
    assert torch.equal(voices["heart/prompt_embedding"], published["flow_embedding"][0])
    assert torch.equal(voices["heart/prompt_ids"], published["prompt_text"][0])
    assert voices["heart/mel"].shape == (2 * len(voices["heart/speech_token"]), 80)
    info = read_model_info(tiny_en_bundle)
    assert info.voices == info.voices_with_prompt == ["heart", "rms", "pico_us", "pico_gb"]


def test_int8_form_is_the_stored_integers_times_their_row_scales(tiny_en_dir: Path, tiny_en_bundle: Path) -> None:
    stored = load_file(tiny_en_dir / "tiny-en.int8.safetensors")

    def expected(key: str) -> Tensor:
        tensor = stored[key]
        return tensor.float() * stored[f"{key}.scale"].reshape(-1, *[1] * (tensor.ndim - 1))

    llm = load_file(tiny_en_bundle / "llm.cosyvoice.safetensors")
    flow = load_file(tiny_en_bundle / "flow.safetensors")
    info = read_model_info(tiny_en_bundle).llm
    layer = "llm/llm.model.model.layers.0"
    assert torch.equal(llm["layers.0.down.weight"], expected(f"{layer}.mlp.down_proj.weight"))
    # an alias: stored once, used by both
    assert torch.equal(llm["head.weight"], expected("llm/llm_decoder.weight"))
    assert torch.equal(llm["embedding.weight"][info.speech_offset :], llm["head.weight"])
    feed_forward = expected("flow/encoder.encoders.0.feed_forward.w_1.weight")
    for block in ("encoders.0", "up_encoders.0", "up_encoders.3"):
        assert torch.equal(flow[f"encoder.{block}.feed_forward.w_1.weight"], feed_forward)


def test_int8_key_without_its_scale_is_refused(tiny_en_dir: Path, model_dir: Path, tmp_path: Path) -> None:
    stored = load_file(tiny_en_dir / "tiny-en.int8.safetensors")
    del stored["hift/conv_pre.parametrizations.weight.original1.scale"]
    (model_dir / "hift.pt").unlink()
    save_file(stored, model_dir / "x.int8.safetensors", metadata={"format": "cosyvoice2-int8-v1"})
    with pytest.raises(CheckpointError, match=r"x\.int8\.safetensors: key hift/conv_pre.*\.scale is missing"):
        convert(model_dir, tmp_path / "cache")


def test_every_style_gets_its_own_llm_and_the_first_is_the_default(model_dir: Path, tmp_path: Path) -> None:
    state = torch.load(model_dir / "llm.pt", weights_only=True)
    torch.save({key: tensor + 1 for key, tensor in state.items()}, model_dir / "loud.pt")
    entries = [
        {"style_name": "loud", "gpt_model_path": "loud.pt"},
        {"style_name": "plain", "llm_path": "llm.pt"},
    ]
    (model_dir / "style_config.json").write_text(json.dumps({"lora_info": entries}))
    bundle = convert(model_dir, tmp_path / "cache")
    assert read_model_info(bundle).styles == ["loud", "plain"]
    loud, plain = (load_file(bundle / f"llm.{style}.safetensors") for style in ("loud", "plain"))
    assert torch.equal(loud["head.weight"], plain["head.weight"] + 1)


def test_styles_that_the_caller_names_stand_in_place_of_the_models(model_dir: Path, tmp_path: Path) -> None:
    (model_dir / "style_config.json").write_text(json.dumps({"lora_info": []}))
    (model_dir / "styles" / "news").mkdir(parents=True)
    shutil.copy(model_dir / "llm.pt", model_dir / "styles" / "news")
    wanted = {"news": "styles/news", "plain": "llm.pt"}
    bundle = convert(model_dir, tmp_path / "cache", styles=wanted)
    assert read_model_info(bundle).styles == ["news", "plain"]
    assert convert(model_dir, tmp_path / "cache", styles={"late": "llm.pt"}) != bundle
    assert ensure_bundle(model_dir, tmp_path / "cache", dtype="fp32", styles=wanted) == bundle
    made = ensure_bundle(model_dir, tmp_path / "cache", dtype="fp16", styles=wanted)
    assert read_model_info(made).styles == ["news", "plain"]
    with pytest.raises(CheckpointError, match=r"style calm: .*calm\.pt is missing; name a file") as caught:
        convert(model_dir, tmp_path / "cache", styles={"calm": "calm.pt"})
    assert caught.value.param == "styles"


@pytest.mark.parametrize(("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_dtype_is_that_of_the_llm_only(name: str, dtype: torch.dtype, model_dir: Path, tmp_path: Path) -> None:
    bundle = convert(model_dir, tmp_path / "cache", dtype=name)  # type: ignore[arg-type]
    assert read_model_info(bundle).dtype == name
    assert {tensor.dtype for tensor in load_file(bundle / "llm.cosyvoice.safetensors").values()} == {dtype}
    for module in ("flow", "hift"):
        assert {tensor.dtype for tensor in load_file(bundle / f"{module}.safetensors").values()} == {torch.float32}


def test_second_conversion_returns_the_same_untouched_bundle(model_dir: Path, tmp_path: Path) -> None:
    first = convert(model_dir, tmp_path / "cache")
    made = (first / "bundle.json").stat().st_mtime_ns
    reports: list[str] = []
    again = convert(model_dir, tmp_path / "cache", progress=lambda what, *_: reports.append(what))
    assert (again, (again / "bundle.json").stat().st_mtime_ns, reports) == (first, made, [])


def test_changed_weights_give_another_bundle(model_dir: Path, tmp_path: Path) -> None:
    first = convert(model_dir, tmp_path / "cache")
    state = torch.load(model_dir / "llm.pt", weights_only=True)
    state["llm_decoder.bias"] += 1
    torch.save(state, model_dir / "llm.pt")
    second = convert(model_dir, tmp_path / "cache")
    assert second != first
    assert read_model_info(second).digest != read_model_info(first).digest


def test_bundle_that_lost_a_file_is_made_again(model_dir: Path, tmp_path: Path) -> None:
    bundle = convert(model_dir, tmp_path / "cache")
    (bundle / "flow.safetensors").unlink()
    assert find_bundle(model_dir, tmp_path / "cache", dtype="fp32") is None
    assert convert(model_dir, tmp_path / "cache") == bundle
    assert (bundle / "flow.safetensors").is_file()


def test_two_processes_at_once_make_one_bundle(model_dir: Path, tmp_path: Path) -> None:
    command = [*CONVERT, str(model_dir), "--cache", str(tmp_path / "cache"), "--json-progress"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1]
    assert sorted(len(lines) > 1 for lines in outputs) == [False, True], "both converted"
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [Path(outputs[0][-1])]


def test_converted_model_is_found_without_importing_torch(model_dir: Path, tmp_path: Path) -> None:
    bundle = convert(model_dir, tmp_path / "cache")
    code = (
        "import sys; from ttsfleet_runtime.checkpoint.convert import main; main(sys.argv[1:]);"
        "sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(model_dir), "--cache", str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, str(bundle)), done.stderr


def test_bundle_is_made_in_a_subprocess_with_progress(model_dir: Path, tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    bundle = ensure_bundle(
        model_dir, tmp_path / "cache", dtype="fp32", progress=lambda *report: reports.append(report)
    )
    assert find_bundle(model_dir, tmp_path / "cache", dtype="fp32") == bundle
    assert [done for _, done, _ in reports] == sorted(done for _, done, _ in reports)
    assert reports[-1][1] == reports[-1][2]


def test_subprocess_passes_on_why_a_model_is_refused(model_dir: Path, tmp_path: Path) -> None:
    (model_dir / "flow.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"flow\.pt: not a readable torch file"):
        ensure_bundle(model_dir, tmp_path / "cache", dtype="fp32")


def test_unknown_built_in_model_is_refused_with_those_there_are() -> None:
    with pytest.raises(CheckpointError, match="no built-in model 'x'; there is tiny-en"):
        resolve_model_dir("builtin:x")


def test_missing_model_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        resolve_model_dir(tmp_path / "none")


def test_random_model_is_the_same_for_the_same_seed(model_dir: Path, tmp_path: Path) -> None:
    again = make_checkpoint(tmp_path / "again", PRESETS["tiny"], dtype="fp32")
    other = make_checkpoint(tmp_path / "other", PRESETS["tiny"], dtype="fp32", seed=1)
    states = [torch.load(path / "llm.pt", weights_only=True) for path in (model_dir, again, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["llm_decoder.weight"], states[2]["llm_decoder.weight"])


def test_random_model_is_not_written_over_something(model_dir: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        make_checkpoint(model_dir, PRESETS["tiny"])
