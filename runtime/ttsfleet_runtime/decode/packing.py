"""Sequences of different lengths in one row buffer, without cross-talk.

Layout: `copies` equal blocks (the rows of classifier-free guidance), each holding the sequences one after the
other, every sequence followed by `gap` rows that belong to nobody:

    block 0: [seq 0][gap][seq 1][gap] ...   block 1: the same places, `rows_per_copy` further down

Row-wise layers run over all rows, gaps included; before a convolution the gaps are set to zero, so that a sequence
sees zeros to its left as if it were alone. The waste is gap / length (2 rows of 250), against the padding of a
rectangular batch. Attention goes sequence by sequence on the CPU and as one padded call on CUDA (`decode.attention`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class PackedLayout:
    """Where each sequence lies in a row buffer. Pure numbers, and one index tensor on the device."""

    def __init__(self, lengths: Sequence[int], *, gap: int, copies: int, device: torch.device | str) -> None:
        self.lengths = tuple(lengths)
        self.copies = copies
        starts: list[int] = []
        gap_rows: list[int] = []
        row = 0
        for length in self.lengths:
            starts.append(row)
            row += length + gap
            gap_rows.extend(range(row - gap, row))
        self.starts = tuple(starts)
        self.rows_per_copy = row
        every_gap = [copy * row + gap_row for copy in range(copies) for gap_row in gap_rows]
        self.gap_rows = torch.tensor(every_gap, dtype=torch.int64).to(device, non_blocking=True)
        self.num_gap_rows_per_copy = len(gap_rows)

    @property
    def rows(self) -> int:
        return self.copies * self.rows_per_copy

    def zero_gaps(self, buffer: Tensor) -> Tensor:
        """Zero the rows between sequences in place; `buffer`: [rows, ...] or [rows_per_copy, ...]."""
        if buffer.shape[0] == self.rows:
            return buffer.index_fill_(0, self.gap_rows, 0.0)
        return buffer.index_fill_(0, self.gap_rows[: self.num_gap_rows_per_copy], 0.0)

    def pack(self, sequences: Sequence[Tensor]) -> Tensor:
        """[length_i, channels] each -> one copy's buffer [rows_per_copy, channels] with zero gaps."""
        first = sequences[0]
        buffer = first.new_zeros(self.rows_per_copy, *first.shape[1:])
        for start, length, sequence in zip(self.starts, self.lengths, sequences, strict=True):
            buffer[start : start + length] = sequence
        return buffer

    def unpack(self, buffer: Tensor) -> list[Tensor]:
        """One copy's buffer [rows_per_copy, channels] -> views [length_i, channels]."""
        return [buffer[s : s + n] for s, n in zip(self.starts, self.lengths, strict=True)]

    def rows_of(self, values: Sequence[int]) -> Tensor:
        """A value per sequence -> int64 [rows], the value of the sequence that a row belongs to (on the CPU)."""
        per_sequence = torch.tensor(values, dtype=torch.int64)
        ends = torch.tensor([*self.starts[1:], self.rows_per_copy]) - torch.tensor(self.starts)
        return per_sequence.repeat_interleave(ends).repeat(self.copies)
