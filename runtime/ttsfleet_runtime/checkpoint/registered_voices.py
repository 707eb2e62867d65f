"""`spk2info.pt`: the voices that ship with a model, checked, as the bundle stores them.

A voice has `embedding` (for sft), the zero-shot entries (prompt text, tokens, mel, `flow_embedding`), or both. The
two vectors of one voice may differ: `embedding` serves sft, `prompt_embedding` goes with the prompt. Keys that
this runtime does not use (lengths, `llm_embedding`) are ignored: such files are written by many tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.checkpoint.dimensions import SPEAKER_SIZE
from ttsfleet_runtime.checkpoint.weight_files import load_torch_file
from ttsfleet_runtime.errors import CheckpointError

_PROMPT_KEYS = ("prompt_text", "llm_prompt_speech_token", "flow_prompt_speech_token", "prompt_speech_feat")


def read_voices(path: Path | None) -> dict[str, dict[str, Any]]:
    """Name -> entries as they are in the file; empty without a file. Raises CheckpointError naming the file."""
    if path is None:
        return {}
    content = load_torch_file(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a dict of voices")
    for name, entries in content.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise CheckpointError(f"{path}: voice name {name!r} must be text without a slash")
        if not isinstance(entries, Mapping):
            raise CheckpointError(f"{path}: voice {name} holds a {type(entries).__name__}, expected a dict")
    return dict(content)


def has_prompt(entries: Mapping[str, Any]) -> bool:
    """True for a voice registered for zero-shot (any of its entries: then all must be there)."""
    return any(key in entries for key in _PROMPT_KEYS)


def voice_tensors(path: Path, name: str, entries: Mapping[str, Any], info: ModelInfo) -> dict[str, Tensor]:
    """One voice under the bundle's names.

    `<name>/embedding` f32 [192]; for a voice with a prompt also `<name>/prompt_embedding` f32 [192],
    `<name>/speech_token` i32 [P], `<name>/mel` f32 [2P, mel bins], `<name>/prompt_ids` i32 [text].
    Raises CheckpointError naming file, voice and key.
    """
    where = f"{path}: voice {name}"
    embedding_key = "embedding" if "embedding" in entries else "flow_embedding"
    tensors = {f"{name}/embedding": _entry(where, entries, embedding_key, (SPEAKER_SIZE,))}
    if not has_prompt(entries):
        return tensors
    tokens = _ids(where, entries, "flow_prompt_speech_token", info.flow.vocab_size)
    if not torch.equal(tokens, _ids(where, entries, "llm_prompt_speech_token", info.flow.vocab_size)):
        raise CheckpointError(f"{where}: llm_prompt_speech_token and flow_prompt_speech_token differ")
    frames = info.flow.token_mel_ratio * len(tokens)
    return tensors | {
        f"{name}/prompt_embedding": _entry(where, entries, "flow_embedding", (SPEAKER_SIZE,)),
        f"{name}/speech_token": tokens,
        f"{name}/mel": _entry(where, entries, "prompt_speech_feat", (frames, info.flow.mel_bins)),
        f"{name}/prompt_ids": _ids(where, entries, "prompt_text", info.llm.text_vocab_size),
    }


def _tensor(where: str, entries: Mapping[str, Any], key: str) -> Tensor:
    """The entry without its leading dimension of one."""
    value = entries.get(key)
    if not isinstance(value, Tensor):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise CheckpointError(f"{where}: key {key} is {found}, expected a tensor")
    return value[0] if value.ndim > 1 and value.shape[0] == 1 else value


def _entry(where: str, entries: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> Tensor:
    value = _tensor(where, entries, key)
    if tuple(value.shape) != shape or not value.is_floating_point():
        raise CheckpointError(
            f"{where}: key {key} is {value.dtype} {list(value.shape)}, expected floats {list(shape)}"
        )
    if not torch.isfinite(value).all():
        raise CheckpointError(f"{where}: key {key} holds NaN or infinite values")
    return value.float()


def _ids(where: str, entries: Mapping[str, Any], key: str, limit: int) -> Tensor:
    value = _tensor(where, entries, key)
    if value.ndim != 1 or value.is_floating_point() or value.is_complex() or value.dtype is torch.bool:
        raise CheckpointError(f"{where}: key {key} is {value.dtype} {list(value.shape)}, expected a row of ids")
    if len(value) and not 0 <= int(value.min()) <= int(value.max()) < limit:
        raise CheckpointError(
            f"{where}: key {key} has ids from {int(value.min())} to {int(value.max())}, allowed is 0 to {limit - 1}"
        )
    return value.to(torch.int32)
