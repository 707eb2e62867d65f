"""From published weights to the compute-ready tensors of a bundle: which are fused, folded or taken as they are.

llm: one embedding table [text ; sos, task ; speech], q/k/v and gate/up concatenated along the output rows.
flow: published names; `attn1.to_qkv` and `self_attn.linear_qkv` replace their three parts.
hift: published names; weight norm folded into `X.weight`.
The dtype asked for is the LLM's. Flow and vocoder are stored in fp32: the vocoder's phase integrates f0 (a half
precision f0 decorrelates the waveform), and the flow's half precision is autocast at run time, not stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import LLMInfo
from ttsfleet_runtime.checkpoint.keys import DIRECTION, GAIN
from ttsfleet_runtime.checkpoint.tensor_file import Planned, planned

_FLOW_PARTS = {
    "to_q.weight": ("to_qkv.weight", ("to_q.weight", "to_k.weight", "to_v.weight")),
    "linear_q.weight": ("linear_qkv.weight", ("linear_q.weight", "linear_k.weight", "linear_v.weight")),
    "linear_q.bias": ("linear_qkv.bias", ("linear_q.bias", "linear_k.bias", "linear_v.bias")),
}
_FUSED_AWAY = {part for _, parts in _FLOW_PARTS.values() for part in parts}


def expand_llm(state: Mapping[str, Tensor], info: LLMInfo, dtype: torch.dtype) -> dict[str, Planned]:
    """Tensors of `llm.<style>.safetensors`."""
    backbone = "llm.model.model"
    fused = {
        "embedding.weight": _rows(
            (
                state[f"{backbone}.embed_tokens.weight"],
                state["llm_embedding.weight"],
                state["speech_embedding.weight"],
            ),
            dtype,
        )
    }
    for i in range(info.num_layers):
        source, layer = f"{backbone}.layers.{i}", f"layers.{i}"
        for kind in ("weight", "bias"):
            parts = (state[f"{source}.self_attn.{part}_proj.{kind}"] for part in ("q", "k", "v"))
            fused[f"{layer}.qkv.{kind}"] = _rows(parts, dtype)
        fused[f"{layer}.o.weight"] = planned(state[f"{source}.self_attn.o_proj.weight"], dtype)
        gate_up = (state[f"{source}.mlp.{part}_proj.weight"] for part in ("gate", "up"))
        fused[f"{layer}.gate_up.weight"] = _rows(gate_up, dtype)
        fused[f"{layer}.down.weight"] = planned(state[f"{source}.mlp.down_proj.weight"], dtype)
        fused[f"{layer}.input_norm.weight"] = planned(state[f"{source}.input_layernorm.weight"], dtype)
        fused[f"{layer}.post_norm.weight"] = planned(state[f"{source}.post_attention_layernorm.weight"], dtype)
    fused["norm.weight"] = planned(state[f"{backbone}.norm.weight"], dtype)
    fused["head.weight"] = planned(state["llm_decoder.weight"], dtype)
    fused["head.bias"] = planned(state["llm_decoder.bias"], dtype)
    return fused


def expand_flow(state: Mapping[str, Tensor]) -> dict[str, Planned]:
    """Tensors of `flow.safetensors`, fp32."""
    result: dict[str, Planned] = {}
    for key, tensor in state.items():
        module, name = _split(key)
        if name in _FLOW_PARTS:
            fused, parts = _FLOW_PARTS[name]
            result[f"{module}.{fused}"] = _rows((state[f"{module}.{part}"] for part in parts), torch.float32)
        elif name not in _FUSED_AWAY:
            result[key] = planned(tensor, torch.float32)
    return result


def expand_hift(state: Mapping[str, Tensor]) -> dict[str, Planned]:
    """Tensors of `hift.safetensors`, fp32."""
    result: dict[str, Planned] = {}
    for key, tensor in state.items():
        if key.endswith(DIRECTION):
            name = key.removesuffix(DIRECTION)
            fold = partial(folded_weight, state[name + GAIN], tensor)
            result[f"{name}weight"] = Planned(tuple(tensor.shape), torch.float32, fold)
        elif not key.endswith(GAIN):
            result[key] = planned(tensor, torch.float32)
    return result


def folded_weight(gain: Tensor, direction: Tensor) -> Tensor:
    """gain * direction / ||direction||, the norm over all dims but the first. float64 inside, float32 out."""
    direction = direction.double()
    norm = direction.flatten(1).norm(dim=1).reshape(-1, *[1] * (direction.ndim - 1))
    folded: Tensor = gain.double() * direction / norm
    return folded.float()


def _rows(parts: Iterable[Tensor], dtype: torch.dtype) -> Planned:
    """Concatenation along the first dimension, made when it is written."""
    tensors = tuple(parts)
    shape = (sum(len(tensor) for tensor in tensors), *tensors[0].shape[1:])
    return Planned(shape, dtype, lambda: torch.cat([tensor.to(dtype) for tensor in tensors]))


def _split(key: str) -> tuple[str, str]:
    """`a.b.to_q.weight` -> (`a.b`, `to_q.weight`); a key with one dot has an empty module."""
    parts = key.rsplit(".", 2)
    return (parts[0], ".".join(parts[1:])) if len(parts) == 3 else ("", key)
