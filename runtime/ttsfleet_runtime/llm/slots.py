"""Fixed-slot state of running sequences on the device: what a decode step reads and writes without the host.

A slot is a row of two small tables (integers, floats) and of the block tables. A step gathers the rows of its
batch, computes, and scatters them back, so the same code serves eager steps of any batch and captured graphs of
fixed buckets. One extra slot, `padding`, fills batches up to their bucket: its blocks are the null block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ttsfleet_runtime.llm.sampling import SamplingRows
from ttsfleet_runtime.llm.sequence import HISTORY_LENGTH, Sequence

_ROW_ID, _POSITION, _COUNT, _SEED, _SEGMENT, _MIN, _MAX, _TOP_K, _WIN_SIZE, _IGNORE_EOS, _HISTORY = range(11)
_NUM_INTEGERS = _HISTORY + HISTORY_LENGTH
_TOP_P, _TAU_R = range(2)
_NEVER = 2**31


@dataclass(slots=True)
class SlotRows:
    """The state of the rows of one step, gathered: integers [rows, n] int64, floats [rows, 2] float64."""

    integers: Tensor
    floats: Tensor

    @property
    def row_ids(self) -> Tensor:
        return self.integers[:, _ROW_ID]

    @property
    def positions(self) -> Tensor:
        return self.integers[:, _POSITION]

    @property
    def seeds(self) -> Tensor:
        return self.integers[:, _SEED]

    @property
    def segments(self) -> Tensor:
        return self.integers[:, _SEGMENT]

    @property
    def counts(self) -> Tensor:
        return self.integers[:, _COUNT]

    @property
    def before_min(self) -> Tensor:
        return self.integers[:, _COUNT] < self.integers[:, _MIN]

    @property
    def ignore_eos(self) -> Tensor:
        return self.integers[:, _IGNORE_EOS] > 0

    def sampling(self) -> SamplingRows:
        return SamplingRows(
            history=self.integers[:, _HISTORY:],
            counts=self.counts,
            top_k=self.integers[:, _TOP_K],
            win_size=self.integers[:, _WIN_SIZE],
            top_p=self.floats[:, _TOP_P],
            tau_r=self.floats[:, _TAU_R],
        )

    def first(self, count: int) -> SlotRows:
        """The first rows, as views."""
        return SlotRows(self.integers[:count], self.floats[:count])

    def advance(self, tokens: Tensor, speech_offset: int) -> None:
        """Record one sampled id per row: it is the next row to feed and the newest of the history."""
        place = (self.counts % HISTORY_LENGTH + _HISTORY)[:, None]
        self.integers.scatter_(1, place, tokens[:, None])
        self.integers[:, _ROW_ID] = tokens + speech_offset
        self.integers[:, _POSITION : _COUNT + 1] += 1


class Slots:
    """Owner of the slot tables. The host writes a slot when a sequence enters it; steps update it after that."""

    def __init__(self, num_slots: int, max_blocks: int, device: torch.device) -> None:
        self.padding = num_slots
        self._device = device
        self._integers = torch.zeros((num_slots + 1, _NUM_INTEGERS), dtype=torch.int64, device=device)
        self._integers[:, _TOP_K] = 1
        self._floats = torch.ones((num_slots + 1, 2), dtype=torch.float64, device=device)
        self.block_tables = torch.zeros((num_slots + 1, max_blocks), dtype=torch.int32, device=device)
        # What the tables hold: the sequence and its epoch, and how many of its blocks.
        self._loaded: list[tuple[int, int]] = [(-1, -1)] * num_slots
        self._num_blocks = [0] * num_slots

    def gather(self, indices: Tensor) -> SlotRows:
        return SlotRows(self._integers.index_select(0, indices), self._floats.index_select(0, indices))

    def scatter(self, indices: Tensor, rows: SlotRows) -> None:
        """Padding rows write the padding slot, which is then reset: its position must not run away."""
        self._integers.index_copy_(0, indices, rows.integers)
        self._integers[self.padding].zero_()

    def invalidate(self, slot: int) -> None:
        """The host's view of this slot is newer than the device's."""
        self._loaded[slot] = (-1, -1)

    def refresh(self, sequence: Sequence) -> None:
        """Bring the slot of a sequence up to date before a launch: state on entry, blocks that were added."""
        slot = sequence.slot
        if self._loaded[slot] != (sequence.number, sequence.epoch):
            self._load(sequence)
        known, blocks = self._num_blocks[slot], sequence.blocks
        if known < len(blocks):
            added = torch.tensor(blocks[known:], dtype=torch.int32)
            self.block_tables[slot, known : len(blocks)] = _to_device(added, self._device)
            self._num_blocks[slot] = len(blocks)

    def _load(self, sequence: Sequence) -> None:
        spec, slot = sequence.spec, sequence.slot
        history = [-1] * HISTORY_LENGTH
        count = len(sequence.outputs)
        for index in range(max(0, count - HISTORY_LENGTH), count):
            history[index % HISTORY_LENGTH] = sequence.outputs[index]
        minimum = spec.min_tokens
        if sequence.source is not None:
            minimum = _NEVER if sequence.source.masked else 0
        values = [
            sequence.rows[-1],
            len(sequence.rows) - 1,
            count,
            _as_int64(spec.seed),
            spec.segment,
            minimum,
            spec.max_tokens,
            spec.sampling.top_k,
            spec.sampling.win_size,
            int(spec.ignore_eos),
            *history,
        ]
        self._integers[slot] = _to_device(torch.tensor(values, dtype=torch.int64), self._device)
        floats = torch.tensor([spec.sampling.top_p, spec.sampling.tau_r], dtype=torch.float64)
        self._floats[slot] = _to_device(floats, self._device)
        self._loaded[slot] = (sequence.number, sequence.epoch)
        self._num_blocks[slot] = 0


def _as_int64(seed: int) -> int:
    """The same 64 bits as a signed number."""
    seed &= (1 << 64) - 1
    return seed - (1 << 64) if seed >= 1 << 63 else seed


def _to_device(values: Tensor, device: torch.device) -> Tensor:
    if device.type == "cpu":
        return values
    return values.pin_memory().to(device, non_blocking=True)
