"""One sequence of the LLM: what was asked, the rows that it feeds, and the rule by which it ends. No torch.

A *row* is an id of the fused embedding table; everything that the LM reads is rows, so text, speech and special
tokens are one list. The KV cache always holds the first `num_computed` rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from ttsfleet_runtime.checkpoint.bundle import LLMInfo
from ttsfleet_runtime.errors import InvalidRequestError
from ttsfleet_runtime.messages import MAX_TOP_K, FinishReason, Sampling

# The device keeps this many outputs per sequence for the repetition rule.
HISTORY_LENGTH = 10

_RELEASED = Sampling()


class SequenceStatus(Enum):
    WAITING = "waiting"  # no KV; new or preempted
    PREFILLING = "prefilling"  # holds KV and a slot, rows are still to be computed before it can sample
    RUNNING = "running"  # one row and one sample per decode step
    WAITING_FOR_TEXT = "waiting_for_text"  # holds KV and a slot; nothing to feed until more text arrives
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The ids that rules need. Speech ids are those of `llm_decoder`; a row of speech id s is speech_offset + s."""

    sos_row: int
    task_row: int
    speech_offset: int
    num_text_rows: int
    num_codes: int
    eos_id: int
    fill_id: int
    masked_before_min: int
    stop_ids: frozenset[int]
    silent_ids: frozenset[int] = frozenset()

    @classmethod
    def of(cls, info: LLMInfo) -> Vocabulary:
        return cls(
            sos_row=info.sos_row,
            task_row=info.task_row,
            speech_offset=info.speech_offset,
            num_text_rows=info.text_vocab_size,
            num_codes=info.speech_token_size,
            eos_id=info.eos_id,
            fill_id=info.fill_id,
            masked_before_min=info.masked_before_min,
            stop_ids=frozenset(info.stop_ids),
        )

    def speech_row(self, token: int) -> int:
        return self.speech_offset + token

    def prompt_rows(self, text_ids: list[int], prompt_speech: list[int]) -> list[int]:
        """Rows of a request: sos, prompt text and text, task, prompt speech."""
        speech = [self.speech_offset + token for token in prompt_speech]
        return [self.sos_row, *text_ids, self.task_row, *speech]


@dataclass(frozen=True, slots=True)
class SequenceSpec:
    """What was asked. `rows` is the prompt; `min_tokens` and `max_tokens` count sampled outputs."""

    rows: tuple[int, ...]
    seed: int
    segment: int
    min_tokens: int
    max_tokens: int
    ignore_eos: bool = False
    sampling: Sampling = _RELEASED


class RowSource(Protocol):
    """Decides what follows an output when text is streamed in (see `bistream`)."""

    @property
    def masked(self) -> bool:
        """The id `masked_before_min` must not be sampled now."""
        ...

    def take_rows(self) -> list[int]:
        """Rows to feed before the next sample; empty = wait for text."""
        ...

    def accept(self, output: int) -> Accepted: ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a sampled id: the output that is recorded, what is emitted, whether the sequence ends.

    `resample` = the next sample needs rows from `RowSource.take_rows` instead of the row of this output.
    """

    output: int
    emitted: int | None = None
    finish: FinishReason | None = None
    resample: bool = False


@dataclass(slots=True, eq=False)
class Sequence:
    """State of one sequence. Owned by the scheduler; the runner only reads it.

    rows: prompt, then whatever was appended (speech rows; text rows when text is streamed in)
    outputs: everything sampled and recorded, the repetition history; what is emitted leaves through `Accepted`
    num_in_flight: samples launched and not yet collected (their rows exist on the device only)
    epoch: counts preemptions and resumptions; a result of an older epoch is void
    sample_after_prefill: the last row was not sampled from yet (a prompt, or text that was appended)
    digests: of the prompt's full blocks, once computed
    """

    number: int
    spec: SequenceSpec
    rows: list[int]
    source: RowSource | None = None
    outputs: list[int] = field(default_factory=list)
    status: SequenceStatus = SequenceStatus.WAITING
    num_computed: int = 0
    num_in_flight: int = 0
    epoch: int = 0
    blocks: list[int] = field(default_factory=list)
    slot: int = -1
    sample_after_prefill: bool = True
    digests: list[bytes] | None = None

    @property
    def num_prompt_rows(self) -> int:
        return len(self.spec.rows)

    @property
    def next_position(self) -> int:
        """Position of the row that the next decode step feeds: the last known one, behind those in flight."""
        return len(self.rows) - 1 + self.num_in_flight

    @property
    def prefill_end(self) -> int:
        """Rows to compute before decode steps: all of them if a sample follows, else all but the last."""
        return len(self.rows) if self.sample_after_prefill else len(self.rows) - 1

    @property
    def may_sample_more(self) -> bool:
        return self.source is not None or len(self.outputs) + self.num_in_flight < self.spec.max_tokens

    def accept(self, output: int, vocabulary: Vocabulary) -> Accepted:
        """Take in a sampled id: record it, append its row, and say what leaves the engine."""
        if self.source is not None:
            accepted = self.source.accept(output)
        elif output in vocabulary.stop_ids:
            return Accepted(output=output, finish=FinishReason.EOS)
        else:
            last = len(self.outputs) + 1 >= self.spec.max_tokens
            accepted = Accepted(output=output, emitted=output, finish=FinishReason.LENGTH if last else None)
        self.outputs.append(accepted.output)
        if not accepted.resample:
            self.rows.append(vocabulary.speech_row(accepted.output))
            self.sample_after_prefill = False
        return accepted


def check_sampling(sampling: Sampling) -> None:
    """Raises InvalidRequestError for parameters that the sampler cannot honour."""
    if not 0.0 < sampling.top_p <= 1.0:
        raise InvalidRequestError(f"top_p is {sampling.top_p}; allowed: above 0, to 1", param="top_p")
    if not 1 <= sampling.top_k <= MAX_TOP_K:
        raise InvalidRequestError(f"top_k is {sampling.top_k}; allowed: 1 to {MAX_TOP_K}", param="top_k")
    if not 0 <= sampling.win_size <= HISTORY_LENGTH:
        raise InvalidRequestError(
            f"win_size is {sampling.win_size}; allowed: 0 to {HISTORY_LENGTH}, the outputs that are remembered",
            param="win_size",
        )
    if not 0.0 <= sampling.tau_r <= 1.0:
        raise InvalidRequestError(f"tau_r is {sampling.tau_r}; allowed: 0 to 1", param="tau_r")
