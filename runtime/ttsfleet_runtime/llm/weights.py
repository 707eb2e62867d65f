"""Reads the LM of one style from the bundle: strict about keys and shapes, mapped, not copied, where it can be."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import LLMInfo
from ttsfleet_runtime.errors import CheckpointError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def llm_weights_path(bundle_dir: Path, style: str) -> Path:
    return bundle_dir / f"llm.{style}.safetensors"


def expected_shapes(info: LLMInfo) -> dict[str, tuple[int, ...]]:
    """Key -> shape of the fused form; `head.bias` is there in v2 only."""
    hidden, head_dim = info.hidden_size, info.head_dim
    query = info.num_heads * head_dim
    fused = query + 2 * info.num_kv_heads * head_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(info.num_layers):
        prefix = f"layers.{index}."
        shapes[prefix + "qkv.weight"] = (fused, hidden)
        shapes[prefix + "qkv.bias"] = (fused,)
        shapes[prefix + "o.weight"] = (hidden, query)
        shapes[prefix + "gate_up.weight"] = (2 * info.ffn_size, hidden)
        shapes[prefix + "down.weight"] = (hidden, info.ffn_size)
        shapes[prefix + "input_norm.weight"] = (hidden,)
        shapes[prefix + "post_norm.weight"] = (hidden,)
    shapes["norm.weight"] = (hidden,)
    shapes["head.weight"] = (info.speech_vocab_size, hidden)
    return shapes


def load_llm_weights(
    bundle_dir: Path, style: str, info: LLMInfo, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """All tensors of `llm.<style>.safetensors`. Raises CheckpointError for a file, key or shape that is wrong."""
    path = llm_weights_path(bundle_dir, style)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {error}; convert the model again") from error
    shapes = expected_shapes(info)
    if "head.bias" in tensors:
        shapes["head.bias"] = (info.speech_vocab_size,)
    present = set(tensors) - {"embedding.weight"}
    if "embedding.weight" not in tensors or present != set(shapes):
        wrong = sorted(present ^ set(shapes)) or ["embedding.weight"]
        raise CheckpointError(f"{path}: missing or unknown keys {wrong[:5]}; convert the model again")
    for key, shape in shapes.items():
        if tuple(tensors[key].shape) != shape:
            raise CheckpointError(f"{path}: {key} is {tuple(tensors[key].shape)}, expected {shape}")
    rows = info.speech_offset + info.speech_vocab_size
    embedding = tensors["embedding.weight"]
    if embedding.shape[0] < rows or embedding.shape[1] != info.hidden_size:
        raise CheckpointError(f"{path}: embedding.weight is {tuple(embedding.shape)}, expected at least {rows} rows")
    return {key: tensor.to(device=device, dtype=dtype) for key, tensor in tensors.items()}
