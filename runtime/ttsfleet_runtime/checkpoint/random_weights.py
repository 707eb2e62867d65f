"""Seeded random weights of the published shapes, scaled so that activations stay finite and of ordinary size.

The rule is unit gain: a weight has standard deviation 1/sqrt(inputs), so each layer keeps the variance of what it
gets; branches that are added to a residual stream are smaller by their number; norms are the identity. The vocoder's
f0 lies near 150 Hz and its spectrum is moderate, so that the waveform is noise within [-1, 1], not clipping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import FlowInfo, HiFTInfo, LLMInfo
from ttsfleet_runtime.checkpoint.keys import DIRECTION, GAIN, Shape, flow_keys, hift_keys, llm_keys

_RESIDUAL = (
    "o_proj.weight",
    "down_proj.weight",
    "linear_out.weight",
    "w_2.weight",
    "to_out.0.weight",
    "net.2.weight",
)
_NORM_NAMES = ("norm", "layernorm", "out.1.", "block.2.")
_LOGIT_STD = 2.0  # peaked enough for a nucleus, flat enough that no token always wins
_MEAN_F0_HZ = 150.0
_F0_STD_HZ = 30.0


def random_llm(info: LLMInfo, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    """State dict of llm.pt; `lm_head` is the text embedding, as released."""
    keys = llm_keys(info)
    head = keys.pop("llm.model.lm_head.weight")
    state = _fill(keys, generator, dtype, residual_branches=2 * info.num_layers)
    state["llm_decoder.weight"] *= _LOGIT_STD
    state["llm.model.lm_head.weight"] = state["llm.model.model.embed_tokens.weight"]
    assert state["llm.model.lm_head.weight"].shape == head
    return state


def random_flow(info: FlowInfo, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    """State dict of flow.pt."""
    return _fill(flow_keys(info), generator, dtype, residual_branches=2 * info.estimator_blocks)


def random_hift(info: HiFTInfo, mel_bins: int, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    """State dict of hift.pt, with weight norm in its newer spelling."""
    state = _fill(hift_keys(info, mel_bins), generator, dtype, residual_branches=1)
    for name in state:
        if name.endswith(GAIN):
            state[name].fill_(_vocoder_gain(name, info))
        elif name.endswith("alpha"):
            state[name].fill_(1.0)
    state["f0_predictor.classifier.weight"] *= _F0_STD_HZ
    state["f0_predictor.classifier.bias"].fill_(_MEAN_F0_HZ)
    bins = info.istft_n_fft // 2 + 1
    state["conv_post.bias"][:bins] = 1.0  # log magnitude: rms near 0.01, as loud as soft speech
    return state


def _vocoder_gain(name: str, info: HiFTInfo) -> float:
    """Norm of a convolution's rows; a transposed one shares its row among the outputs of one stride."""
    if name.startswith("ups."):
        return math.sqrt(info.upsample_rates[int(name.split(".")[1])] / 2)
    if "resblocks" in name:
        return 0.5
    return 0.2 if name.startswith("conv_post") else 1.0


def _fill(
    keys: Mapping[str, Shape], generator: torch.Generator, dtype: torch.dtype, *, residual_branches: int
) -> dict[str, Tensor]:
    return {name: _tensor(name, shape, generator, residual_branches).to(dtype) for name, shape in keys.items()}


def _tensor(name: str, shape: Shape, generator: torch.Generator, residual_branches: int) -> Tensor:
    if len(shape) == 1:
        is_gain = name.endswith("weight") and any(part in name for part in _NORM_NAMES)
        return torch.ones(shape) if is_gain else torch.zeros(shape)
    if "embed" in name and name.endswith(("embedding.weight", "tokens.weight")):
        return torch.randn(shape, generator=generator)
    if name.endswith(DIRECTION) or not name.endswith(GAIN):
        std = 1 / math.sqrt(math.prod(shape[1:]))
        if name.endswith(_RESIDUAL):
            std /= math.sqrt(residual_branches)
        return torch.randn(shape, generator=generator).mul_(std)
    return torch.ones(shape)
