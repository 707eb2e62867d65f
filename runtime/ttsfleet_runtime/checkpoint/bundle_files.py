"""Write all files of a bundle into a directory: read, check, expand, store. Called by `convert` under its lock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

from ttsfleet_runtime.checkpoint.bundle import BUNDLE_FORMAT, LLMInfo, ModelInfo
from ttsfleet_runtime.checkpoint.cached import DType, Progress
from ttsfleet_runtime.checkpoint.dimensions import (
    check_architecture,
    flow_dimensions,
    hift_dimensions,
    llm_dimensions,
    mel_dimensions,
)
from ttsfleet_runtime.checkpoint.directory import ModelDirectory
from ttsfleet_runtime.checkpoint.expand import expand_flow, expand_hift, expand_llm
from ttsfleet_runtime.checkpoint.keys import flow_keys, hift_keys, llm_keys
from ttsfleet_runtime.checkpoint.published import read_module
from ttsfleet_runtime.checkpoint.recipe import Recipe
from ttsfleet_runtime.checkpoint.registered_voices import has_prompt, read_voices, voice_tensors
from ttsfleet_runtime.checkpoint.tensor_file import Planned, planned, write_tensor_file

TORCH_DTYPES: dict[DType, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def describe(directory: ModelDirectory, *, dtype: DType, digest: str) -> ModelInfo:
    """Everything about a published model but its weights. Raises CheckpointError when it is not supported."""
    recipe = Recipe(directory.yaml)
    check_architecture(recipe)
    voices = read_voices(directory.voices)
    return ModelInfo(
        format=BUNDLE_FORMAT,
        version=directory.version,
        name=directory.root.name,
        model_dir=str(directory.root),
        digest=digest,
        dtype=dtype,
        sample_rate=recipe.integer("sample_rate"),
        token_rate=recipe.integer("token_frame_rate"),
        styles=list(directory.llm),
        tokenizer_dir=str(directory.tokenizer_dir),
        speech_tokenizer_onnx=str(directory.speech_tokenizer_onnx),
        speaker_onnx=str(directory.speaker_onnx),
        voices=list(voices),
        voices_with_prompt=[name for name, entries in voices.items() if has_prompt(entries)],
        sampling_top_p=recipe.number("llm.sampling.top_p"),
        sampling_top_k=recipe.integer("llm.sampling.top_k"),
        sampling_win_size=recipe.integer("llm.sampling.win_size"),
        sampling_tau_r=recipe.number("llm.sampling.tau_r"),
        mel=mel_dimensions(recipe),
        llm=llm_dimensions(recipe, directory.tokenizer_dir / "config.json"),
        flow=flow_dimensions(recipe),
        hift=hift_dimensions(recipe),
    )


def write_bundle(
    directory: ModelDirectory, target: Path, *, dtype: DType, digest: str, progress: Progress | None
) -> None:
    """Fill the empty directory `target` with a bundle; bundle.json comes last.

    Raises CheckpointError for a damaged or unsupported model; `target` is then incomplete.
    """
    info = describe(directory, dtype=dtype, digest=digest)
    files: list[tuple[str, Path, dict[str, Planned]]] = []
    voices = {
        name: planned(tensor, tensor.dtype)
        for voice, entries in read_voices(directory.voices).items()
        for name, tensor in voice_tensors(_source(directory.voices), voice, entries, info).items()
    }
    files.append(("voices", _source(directory.voices), voices))
    hift = read_module(directory.hift, "hift", hift_keys(info.hift, info.flow.mel_bins))
    files.append(("hift", directory.hift, expand_hift(hift)))
    flow = read_module(directory.flow, "flow", flow_keys(info.flow))
    files.append(("flow", directory.flow, expand_flow(flow)))
    for style, path in directory.llm.items():
        files.append((f"llm.{style}", path, _expanded_llm(path, info.llm, TORCH_DTYPES[dtype])))
    total = sum(plan.nbytes for _, _, plans in files for plan in plans.values())
    done = 0
    for name, source, plans in files:
        wrote = _counter(name, done, total, progress)
        write_tensor_file(target / f"{name}.safetensors", plans, source=source, wrote=wrote)
        done += sum(plan.nbytes for plan in plans.values())
    (target / "bundle.json").write_bytes(msgspec.json.format(msgspec.json.encode(info), indent=1))


def _expanded_llm(path: Path, info: LLMInfo, dtype: torch.dtype) -> dict[str, Planned]:
    return expand_llm(read_module(path, "llm", llm_keys(info)), info, dtype)


def _source(path: Path | None) -> Path:
    return path or Path("spk2info.pt")


def _counter(what: str, done: int, total: int, progress: Progress | None) -> Callable[[int], None]:
    def wrote(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if progress is not None:
            progress(what, done, total)

    return wrote
