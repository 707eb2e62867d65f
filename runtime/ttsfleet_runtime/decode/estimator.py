"""The flow's vector field: a U-Net without down-sampling, over packed rows (tests/goldens/FORMAT.md, section 10).

What is constant is computed once. The time embeddings of the ten fixed t, and with them the bias that each resnet
adds, are tables (`step_biases`). The first resnet's two convolutions are linear in [x, mu, speaker, prompt mel]:
their conditioning part is computed once per job (`condition`), and the part of x once for both guidance rows
(`project`); the sum is what `velocity` starts from.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import FlowInfo
from ttsfleet_runtime.decode.attention import PackedAttention
from ttsfleet_runtime.decode.packing import PackedLayout
from ttsfleet_runtime.decode.weights import RowConv, Weights

CONTEXT_ROWS = 2  # all convolutions are causal with three taps
_NORM_EPS = 1e-5


def mish_(x: Tensor) -> Tensor:
    """x * tanh(softplus(x)), in place where that is faster.

    With e = exp(x) it is x * n / (n + 2), n = e * (e + 2): one exponential instead of three transcendental passes
    (a fifth of the time of torch's own on a CPU), equal to rounding. Beyond 20 the quotient is 1 in fp32.
    """
    if x.device.type != "cpu":
        return F.mish(x, inplace=True)
    e = x.clamp(max=20.0).exp_()
    n = e.add(2.0).mul_(e)
    return x.mul_(n).div_(n.add_(2.0))


class TimeBiases:
    """The resnets' time biases of a batch: one row for all sequences, or one per row of the buffer."""

    def __init__(self, table: Tensor, rows: Tensor | None) -> None:
        """table: [times, num_resnets, channels]; rows: int64 [rows] into `times`, or None when times is 1."""
        self.table = table
        self.rows = rows

    def of(self, resnet: int) -> Tensor:
        bias = self.table[:, resnet]
        return bias if self.rows is None else bias.index_select(0, self.rows)


class _Block:
    """Causal convolution, layer norm over channels, Mish."""

    def __init__(self, weights: Weights, name: str) -> None:
        self.conv = weights.conv(f"{name}.block.0")
        self.norm = weights.norm(f"{name}.block.2")

    def __call__(self, x: Tensor, layout: PackedLayout) -> Tensor:
        return self.activate(self.conv.causal(layout.zero_gaps(x)))

    def activate(self, h: Tensor) -> Tensor:
        return mish_(F.layer_norm(h, (h.shape[1],), *self.norm, _NORM_EPS))


class _Resnet:
    """Two blocks with the time bias between them, and a residual path through a 1x1 convolution."""

    def __init__(self, weights: Weights, index: int) -> None:
        self.index = index
        self.block1 = _Block(weights, "block1")
        self.block2 = _Block(weights, "block2")
        self.residual = weights.dense("res_conv")

    def __call__(self, x: Tensor, biases: TimeBiases, layout: PackedLayout) -> Tensor:
        return self.finish(self.block1(x, layout), self.residual(x), biases, layout)

    def finish(self, h: Tensor, residual: Tensor, biases: TimeBiases, layout: PackedLayout) -> Tensor:
        h.add_(biases.of(self.index))
        return self.block2(h, layout).add_(residual)


class _Transformer:
    """Pre-norm attention and feed-forward. Adds to its input in place."""

    def __init__(self, weights: Weights) -> None:
        self.norm_attention = weights.norm("norm1")
        self.qkv = weights.dense("attn1.to_qkv", bias=False)
        self.out = weights.dense("attn1.to_out.0")
        self.norm_ffn = weights.norm("norm3")
        self.up = weights.dense("ff.net.0.proj")
        self.down = weights.dense("ff.net.2")

    def __call__(self, x: Tensor, attention: PackedAttention) -> Tensor:
        normed = F.layer_norm(x, (x.shape[1],), *self.norm_attention, _NORM_EPS)
        x.add_(self.out(attention(self.qkv(normed))))
        normed = F.layer_norm(x, (x.shape[1],), *self.norm_ffn, _NORM_EPS)
        return x.add_(self.down(F.gelu(self.up(normed))))


class Estimator:
    """Weights and forward pass of the vector field. Holds no state of any request."""

    def __init__(self, info: FlowInfo, weights: Weights) -> None:
        self.info = info
        num_mid, num_transformers = info.estimator_mid_blocks, info.estimator_blocks
        prefixes = ["down_blocks.0", *(f"mid_blocks.{i}" for i in range(num_mid)), "up_blocks.0"]
        self.resnets = [_Resnet(weights.under(f"{p}.0"), i) for i, p in enumerate(prefixes)]
        self.transformers = [
            [_Transformer(weights.under(f"{p}.1.{i}")) for i in range(num_transformers)] for p in prefixes
        ]
        self.down_conv = weights.conv("down_blocks.0.2")
        self.up_conv = weights.conv("up_blocks.0.2")
        self.final_block = _Block(weights, "final_block")
        self.final_proj = weights.dense("final_proj")
        self._split_first_resnet(weights.under("down_blocks.0.0"))
        self._time_mlp = (weights.dense("time_mlp.linear_1"), weights.dense("time_mlp.linear_2"))
        self._time_in = 4 * info.mel_bins
        self._time_projections = [weights.under(f"{p}.0").dense("mlp.1") for p in prefixes]
        self.device, self.dtype = weights.device, weights.dtype

    def _split_first_resnet(self, weights: Weights) -> None:
        """One convolution for the block and its residual path (last tap only), cut into x and the rest."""
        block, residual = weights["block1.block.0.weight"], weights["res_conv.weight"]
        weight = torch.cat([block, F.pad(residual, (block.shape[2] - 1, 0))])
        self.condition_bias = torch.cat([weights["block1.block.0.bias"], weights["res_conv.bias"]])
        mel_bins = self.info.mel_bins
        self._project = RowConv(weight[:, :mel_bins], torch.zeros_like(self.condition_bias))
        self._condition = RowConv(weight[:, mel_bins:], self.condition_bias)

    def time_biases(self, t: Tensor) -> Tensor:
        """t: [n] in [0, 1], float32 -> [n, num_resnets, channels], what each resnet adds between its blocks."""
        half = self._time_in // 2
        exponent = torch.arange(half, device=t.device, dtype=torch.float32) * (-math.log(10000.0) / (half - 1))
        angle = (1000.0 * t.to(torch.float32))[:, None] * exponent.exp()
        embedding = torch.cat([angle.sin(), angle.cos()], dim=1).to(self.dtype)
        first, second = self._time_mlp
        embedding = F.mish(second(F.silu(first(embedding))))
        return torch.stack([projection(embedding) for projection in self._time_projections], dim=1)

    def condition(self, mu: Tensor, speaker: Tensor, cond: Tensor) -> Tensor:
        """mu, cond: [frames, mel_bins], speaker: [mel_bins] of one sequence -> [frames, 2 * channels]."""
        rows = torch.cat([mu, speaker.expand_as(mu), cond], dim=1).to(self.dtype)
        return self._condition.causal(rows)

    def project(self, x: Tensor) -> Tensor:
        """x: [rows, mel_bins] with zero gaps -> [rows, 2 * channels], to be added to the conditioning."""
        return self._project.causal(x.to(self.dtype))

    def velocity(
        self, hidden: Tensor, biases: TimeBiases, layout: PackedLayout, attention: PackedAttention
    ) -> Tensor:
        """The vector field.

        hidden: [rows, 2 * channels], `project` + `condition` of each row. Returns [rows, mel_bins]; gap rows hold
        no meaning.
        """
        channels = self.info.estimator_channels
        first = self.resnets[0]
        h = first.block1.activate(hidden[:, :channels])
        x = first.finish(h, hidden[:, channels:], biases, layout)
        for transformer in self.transformers[0]:
            x = transformer(x, attention)
        skip = x
        x = self.down_conv.causal(layout.zero_gaps(x))
        for resnet, transformers in zip(self.resnets[1:-1], self.transformers[1:-1], strict=True):
            x = resnet(x, biases, layout)
            for transformer in transformers:
                x = transformer(x, attention)
        x = self.resnets[-1](torch.cat([x, skip], dim=1), biases, layout)
        for transformer in self.transformers[-1]:
            x = transformer(x, attention)
        x = self.up_conv.causal(layout.zero_gaps(x))
        return self.final_proj(self.final_block(x, layout))
