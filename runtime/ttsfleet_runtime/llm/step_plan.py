"""What the scheduler asks of the runner, and what it hears back. Values only: no torch, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from ttsfleet_runtime.llm.sequence import Sequence


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Rows [begin, end) of a sequence; `begin` is a multiple of the block size unless rows were appended later.

    samples: the last row is the last before a sample, so the sequence samples in this step.
    """

    sequence: Sequence
    begin: int
    end: int
    samples: bool


@dataclass(frozen=True, slots=True)
class DecodeRow:
    """One decode step of a sequence: feeds the row at `position`, whose id the device knows, and samples."""

    sequence: Sequence
    position: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    prefill: tuple[PrefillChunk, ...]
    decode: tuple[DecodeRow, ...]
    admitted: tuple[Sequence, ...] = ()

    @property
    def num_rows(self) -> int:
        return len(self.decode) + sum(chunk.end - chunk.begin for chunk in self.prefill)


@dataclass(frozen=True, slots=True)
class SampledToken:
    """One sample of a launched step. `epoch`: the sequence's when it was launched."""

    sequence: Sequence
    epoch: int
    token: int
