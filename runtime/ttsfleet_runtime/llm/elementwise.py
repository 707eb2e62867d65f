"""What lies between the LM's products: residual addition with RMSNorm, and SwiGLU. One form per kind of device.

On the CPU: plain PyTorch in few calls, in place. On CUDA: the Triton kernels of `ttsfleet_kernels`, one launch each,
which is what counts in a step of a few rows. Triton is imported only where it is used; it costs most of a second.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Elementwise(Protocol):
    def add_norm(self, x: Tensor, residual: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(RMSNorm(x + residual) * weight, x + residual), each [rows, hidden]; without a residual the sum is x.

        x and residual may be overwritten; the caller goes on with the sum that it gets.
        """
        ...

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up. gate_up: [rows, 2 * ffn], gate first -> [rows, ffn]."""
        ...


def make_elementwise(device: torch.device, epsilon: float) -> Elementwise:
    return KernelElementwise(epsilon) if device.type == "cuda" else PlainElementwise(epsilon, device)


class PlainElementwise:
    def __init__(self, epsilon: float, device: torch.device) -> None:
        self._epsilon = epsilon
        self._epsilon_tensor = torch.tensor(epsilon, dtype=torch.float32, device=device)

    def add_norm(self, x: Tensor, residual: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
        total = x if residual is None else residual.add_(x)
        return self._norm(total, weight), total

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=1)
        return F.silu(gate).mul_(up)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return F.rms_norm(x, (x.shape[1],), weight, self._epsilon)
        # Four small calls; F.rms_norm in float32 on the CPU is six.
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        scale = torch.addcmul(self._epsilon_tensor, norm, norm, value=1.0 / x.shape[1]).rsqrt_()
        return (x * scale).mul_(weight)


class KernelElementwise:
    def __init__(self, epsilon: float) -> None:
        from ttsfleet_kernels.add_rms_norm import add_rms_norm
        from ttsfleet_kernels.silu_mul import silu_mul

        self._epsilon = epsilon
        self._add_rms_norm = add_rms_norm
        self._silu_mul = silu_mul

    def add_norm(self, x: Tensor, residual: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
        return self._add_rms_norm(x, residual, weight, self._epsilon)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        return self._silu_mul(gate_up)
