"""Plain PyTorch of every kernel in this package: the definition that tests compare with, and the fallback."""

from __future__ import annotations

import torch
from torch import Tensor


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(normalised, sum) of RMSNorm over the last dimension of x + residual.

    x, residual: [rows, hidden]; weight: [hidden]. The mean square is taken in float32; the result has x's dtype.
    Without a residual the sum is x itself.
    """
    total = x if residual is None else x + residual
    wide = total.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype) * weight, total


def silu_mul(gate_up: Tensor) -> Tensor:
    """SwiGLU's product: silu(gate) * up. gate_up: [rows, 2 * ffn], gate first -> [rows, ffn]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up
