"""Parts of the HiFT vocoder: the rows of a batch at one rate, snake activations, and its residual blocks.

Always float32, on row buffers [rows, channels] (see `decode.hift`, which puts the parts together).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ttsfleet_runtime.decode.packing import PackedLayout
from ttsfleet_runtime.decode.weights import RowConv, Weights

_FRAME_GRID = 8
_SNAKE_EPS = 1e-9


class StageRows:
    """The items of a batch at one rate: rows in use, and rows between items, which must read as zero.

    Buffers have `num_rows` rows; beyond `num_used` they hold no meaning.
    """

    def __init__(self, layout: PackedLayout, rate: int, extra: int, device: torch.device) -> None:
        """extra: rows that each item has beyond rate * frames; the buffer has as many more."""
        self.starts = [start * rate for start in layout.starts]
        self.lengths = [length * rate + extra for length in layout.lengths]
        ends = [start + length for start, length in zip(self.starts, self.lengths, strict=True)]
        self.num_used = ends[-1]
        self.num_rows = _rounded(layout.starts[-1] + layout.lengths[-1]) * rate + extra
        gaps = [torch.arange(end, begin) for end, begin in zip(ends, self.starts[1:], strict=False)]
        self.gaps = torch.cat(gaps).to(device, non_blocking=True) if gaps else None

    def zero_gaps(self, buffer: Tensor) -> Tensor:
        return buffer if self.gaps is None else buffer.index_fill_(0, self.gaps, 0.0)


def _rounded(frames: int) -> int:
    """Up to the grid of buffer lengths: generated code is kept per length, and lengths should come again."""
    return -(-frames // _FRAME_GRID) * _FRAME_GRID


class Snake:
    """x + sin(alpha x)^2 / alpha, alpha per channel."""

    def __init__(self, alpha: Tensor) -> None:
        self.alpha = alpha
        self.inverse = 1.0 / (alpha + _SNAKE_EPS)

    def __call__(self, x: Tensor, work: Tensor, out: Tensor) -> None:
        """x, work, out: [rows, channels]; overwrites work and out."""
        torch.mul(x, self.alpha, out=work).sin_()
        torch.addcmul(x, work.mul_(work), self.inverse, out=out)


class Margins:
    """The input buffer of one stage's convolutions: the rows in use between margins that stay zero."""

    def __init__(self, rows: StageRows, channels: int, margin: int, device: torch.device) -> None:
        self.rows = rows
        self.margin = margin
        self.buffer = torch.zeros(rows.num_rows + 2 * margin, channels, device=device)
        self.inside = self.buffer[margin : margin + rows.num_used]
        self.work = torch.empty_like(self.inside)

    def load(self, x: Tensor, activation: Callable[[Tensor, Tensor, Tensor], None]) -> Margins:
        """Fill with activation(x); x: [num_rows, channels]."""
        activation(x[: self.rows.num_used], self.work, self.inside)
        self.rows.zero_gaps(self.inside)
        return self

    def convolved(self, conv: RowConv) -> Tensor:
        """[num_rows, channels out], each row from the rows around it."""
        first = self.margin - conv.reach // 2
        return conv(self.buffer[first : first + self.rows.num_rows + conv.reach])


class ResBlock:
    """Pairs of convolutions with snake activations, each pair added to its input."""

    def __init__(self, weights: Weights, dilations: Sequence[int]) -> None:
        self.pairs = [
            (
                Snake(weights[f"activations1.{i}.alpha"]),
                weights.conv(f"convs1.{i}", dilation=dilation),
                Snake(weights[f"activations2.{i}.alpha"]),
                weights.conv(f"convs2.{i}"),
            )
            for i, dilation in enumerate(dilations)
        ]
        self.reach = max(conv.reach // 2 for pair in self.pairs for conv in (pair[1], pair[3]))

    def __call__(self, x: Tensor, margins: Margins) -> Tensor:
        """x: [num_rows, channels], kept -> a new tensor of the same shape."""
        for snake1, conv1, snake2, conv2 in self.pairs:
            y = margins.load(x, snake1).convolved(conv1)
            x = margins.load(y, snake2).convolved(conv2).add_(x)
        return x
