"""Rotary positions: pairs (m, m + head_dim / 2) of queries and keys are turned by position * theta^(-2m/head_dim).

Two equal forms. `HalfSplitRotary` works on the published order of channels, in any dtype. `ComplexRotary` wants the
pairs side by side, as complex numbers, and turns them with one multiplication in place; the rows of the QKV
projection are put in that order once (`arrange`). Scores do not see it, because queries and keys are reordered
alike. On a CPU, where calls cost more than arithmetic, it saves a tenth of a small model's layer.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Rotary(Protocol):
    def arrange(self, qkv: Tensor) -> Tensor:
        """Weight [rows, K] or bias [rows] of a fused QKV projection, rows in the order that `turn` wants."""
        ...

    def select(self, positions: Tensor) -> tuple[Tensor, ...]:
        """Factors for these positions ([rows] int64), used by all layers of a pass."""
        ...

    def turn(self, qkv: Tensor, factors: tuple[Tensor, ...]) -> None:
        """Turn the queries and keys of qkv ([rows, (heads + 2 * kv_heads) * head_dim]) in place."""
        ...


def make_rotary(
    num_turned: int, head_dim: int, theta: float, max_rows: int, device: torch.device, dtype: torch.dtype
) -> Rotary:
    """num_turned: query heads + KV heads. max_rows: number of positions."""
    half = head_dim // 2
    exponents = torch.arange(half, dtype=torch.float32) / half
    angles = torch.arange(max_rows, dtype=torch.float32)[:, None] / (theta**exponents)
    if device.type == "cpu" and dtype == torch.float32:
        return ComplexRotary(num_turned, angles)
    return HalfSplitRotary(num_turned, angles, device, dtype)


class ComplexRotary:
    def __init__(self, num_turned: int, angles: Tensor) -> None:
        """angles: [max_rows, head_dim / 2] float32."""
        self._num_turned = num_turned
        self._half = angles.shape[1]
        self._factors = torch.polar(torch.ones_like(angles), angles)[:, None]

    def arrange(self, qkv: Tensor) -> Tensor:
        size = self._num_turned * 2 * self._half
        turned = qkv[:size].reshape(self._num_turned, 2, self._half, *qkv.shape[1:])
        return torch.cat((turned.transpose(1, 2).reshape(qkv[:size].shape), qkv[size:]))

    def select(self, positions: Tensor) -> tuple[Tensor, ...]:
        return (self._factors.index_select(0, positions),)

    def turn(self, qkv: Tensor, factors: tuple[Tensor, ...]) -> None:
        size = self._num_turned * 2 * self._half
        pairs = qkv[:, :size].view(qkv.shape[0], self._num_turned, self._half, 2)
        torch.view_as_complex(pairs).mul_(factors[0])


class HalfSplitRotary:
    def __init__(self, num_turned: int, angles: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        """angles: [max_rows, head_dim / 2] float32."""
        self._num_turned = num_turned
        self._half = angles.shape[1]
        cos, sin = angles.cos(), angles.sin()
        self._cos = torch.stack((cos, cos), dim=1)[:, None].to(device, dtype)
        self._sin = torch.stack((-sin, sin), dim=1)[:, None].to(device, dtype)

    def arrange(self, qkv: Tensor) -> Tensor:
        return qkv

    def select(self, positions: Tensor) -> tuple[Tensor, ...]:
        return self._cos.index_select(0, positions), self._sin.index_select(0, positions)

    def turn(self, qkv: Tensor, factors: tuple[Tensor, ...]) -> None:
        cos, sin = factors
        size = self._num_turned * 2 * self._half
        halves = qkv[:, :size].view(qkv.shape[0], self._num_turned, 2, self._half)
        swapped = halves.flip(2).mul_(sin)
        halves.mul_(cos).add_(swapped)
