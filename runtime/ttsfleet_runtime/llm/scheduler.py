"""Which sequences compute what in the next step. Pure: no torch, no clock; the same calls give the same plans.

A step is one decode step of all running sequences plus prefill chunks, together at most `batch_max_tokens` rows.
Policy:
- First come, first served. The head of the queue is admitted when a slot (`gpt_paral_num`) and the blocks of its
  prompt are there, with one block of headroom for each sequence that already runs. Nobody overtakes it.
- Admission is considered at most `max_wait_steps` decode steps apart (`router_max_wait_tokens`).
- Running sequences never wait for prefill: they decode in every step, and chunks use what is left of the budget.
- When a running sequence needs a block and none is left, the youngest one that holds blocks is preempted: its
  blocks are freed, its outputs are kept, and it queues ahead of everybody younger. It later recomputes its rows
  and continues with the draws that its positions always had, so nothing is lost and nothing changes.
  The oldest sequence is never preempted, and it fits alone (`check_fits`), so there is always progress.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field, replace

from ttsfleet_runtime.errors import InvalidRequestError
from ttsfleet_runtime.llm.block_manager import BlockManager
from ttsfleet_runtime.llm.sequence import Accepted, RowSource, Sequence, SequenceSpec, SequenceStatus, Vocabulary
from ttsfleet_runtime.llm.step_plan import DecodeRow, PrefillChunk, SampledToken, StepPlan
from ttsfleet_runtime.messages import FinishReason


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """max_running: slots. max_rows: rows of one sequence. max_step_rows: rows of one step."""

    max_running: int
    max_rows: int
    max_step_rows: int
    max_wait_steps: int = 1


@dataclass(slots=True)
class SchedulerCounters:
    preemptions: int = 0
    prefix_hit_rows: int = 0
    prefilled_rows: int = 0


@dataclass(slots=True)
class Scheduler:
    """Owner of all sequences of one engine."""

    blocks: BlockManager
    limits: SchedulerLimits
    vocabulary: Vocabulary
    counters: SchedulerCounters = field(default_factory=SchedulerCounters)
    waiting: list[Sequence] = field(default_factory=list)  # by number: preempted ones are older, so ahead
    active: list[Sequence] = field(default_factory=list)  # by number; these hold a slot and blocks
    _free_slots: list[int] = field(default_factory=list)
    _next_number: int = 0
    _steps_since_admission: int = 0

    def __post_init__(self) -> None:
        self._free_slots = list(range(self.limits.max_running - 1, -1, -1))
        self._steps_since_admission = self.limits.max_wait_steps

    # --- what comes and goes --------------------------------------------------------------------------------

    def max_rows(self) -> int:
        """Rows that a sequence can have: the request limit or the whole KV cache, whichever is smaller."""
        return min(self.limits.max_rows, self.blocks.num_blocks * self.blocks.block_size)

    def check_fits(self, spec: SequenceSpec) -> None:
        """Raises InvalidRequestError when the sequence could not finish even alone."""
        needed = len(spec.rows) + spec.max_tokens
        if needed > self.max_rows():
            name = "max_req_total_len" if self.limits.max_rows <= self.max_rows() else "max_total_token_num"
            raise InvalidRequestError(
                f"the segment needs {needed} positions ({len(spec.rows)} of input and {spec.max_tokens} of speech); "
                f"at most {self.max_rows()} are possible ({name}): shorten or split the text, use a shorter "
                f"prompt, or raise {name}",
                param="input",
            )

    def add(self, spec: SequenceSpec, source: RowSource | None = None) -> Sequence:
        """Queue a sequence that fits (see `check_fits`) and may sample at least once.

        With a row source it waits for text: call `resume` when there is some.
        """
        sequence = Sequence(number=self._next_number, spec=spec, rows=list(spec.rows), source=source)
        self._next_number += 1
        if source is None:
            assert spec.max_tokens > 0
            self.waiting.append(sequence)
        else:
            sequence.status = SequenceStatus.WAITING_FOR_TEXT
        return sequence

    def resume(self, sequence: Sequence) -> FinishReason | None:
        """Text has arrived for a sequence with a row source: let it go on if that is enough to feed.

        Returns LENGTH when the rows no longer fit; the sequence is then removed.
        """
        if sequence.status is not SequenceStatus.WAITING_FOR_TEXT:
            return None
        assert sequence.source is not None
        rows = sequence.source.take_rows()
        if not rows:
            return None
        sequence.rows += rows
        if len(sequence.rows) + 1 > self.max_rows():
            self.remove(sequence)
            return FinishReason.LENGTH
        sequence.sample_after_prefill = True
        sequence.epoch += 1
        if sequence.slot >= 0:
            sequence.status = SequenceStatus.PREFILLING
        else:
            sequence.status = SequenceStatus.WAITING
            insort(self.waiting, sequence, key=_age)
        return None

    def remove(self, sequence: Sequence) -> None:
        """The sequence ends here (finished, cancelled, failed): its slot and blocks are free at once."""
        if sequence.status is SequenceStatus.WAITING:
            self.waiting.remove(sequence)
        self._release(sequence)
        sequence.status = SequenceStatus.FINISHED

    # --- one step -------------------------------------------------------------------------------------------

    def schedule(self) -> StepPlan | None:
        """The next step, or None when nothing can be computed. What is planned counts as launched."""
        self._grow_resumed()
        decode = self._plan_decode()
        admitted: list[Sequence] = []
        self._steps_since_admission += 1
        if self._steps_since_admission >= self.limits.max_wait_steps or not decode:
            self._steps_since_admission = 0
            admitted = self._admit()
        prefill = self._plan_prefill(self.limits.max_step_rows - len(decode))
        if not prefill and not decode:
            return None
        return StepPlan(prefill=tuple(prefill), decode=tuple(decode), admitted=tuple(admitted))

    def apply(self, sampled: SampledToken) -> Accepted | None:
        """Take in one result. None = void: the sequence was removed or preempted after the launch."""
        sequence = sampled.sequence
        if sampled.epoch != sequence.epoch or sequence.status is not SequenceStatus.RUNNING:
            return None
        sequence.num_in_flight -= 1
        accepted = sequence.accept(sampled.token, self.vocabulary)
        if accepted.finish is None and accepted.resample:
            finish = self._turn_to_text(sequence)
            return replace(accepted, finish=finish) if finish else accepted
        if accepted.finish is None and len(sequence.rows) > self.max_rows():
            accepted = replace(accepted, finish=FinishReason.LENGTH)
        if accepted.finish is not None:
            self.remove(sequence)
        return accepted

    # --- parts ----------------------------------------------------------------------------------------------

    def _grow_resumed(self) -> None:
        for sequence in list(self.active):
            if sequence.status is SequenceStatus.PREFILLING:
                self._grow(sequence, sequence.prefill_end)

    def _plan_decode(self) -> list[DecodeRow]:
        """Oldest first: whoever is preempted for one of them is younger, so not planned yet."""
        rows = []
        for sequence in list(self.active):
            if sequence.status is not SequenceStatus.RUNNING or not sequence.may_sample_more:
                continue
            if not self._grow(sequence, sequence.next_position + 1):
                continue
            rows.append(DecodeRow(sequence, sequence.next_position))
            sequence.num_computed = sequence.next_position + 1
            sequence.num_in_flight += 1
        return rows

    def _grow(self, sequence: Sequence, num_rows: int) -> bool:
        """Blocks for `num_rows` rows, preempting the youngest while there are none. False: it was itself."""
        missing = self.blocks.blocks_for(num_rows) - len(sequence.blocks)
        while missing > self.blocks.num_available:
            youngest = self.active[-1]
            self._preempt(youngest)
            if youngest is sequence:
                return False
        if missing > 0:
            sequence.blocks += self.blocks.allocate(missing)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.counters.preemptions += 1
        self._release(sequence)
        sequence.epoch += 1
        sequence.num_in_flight = 0
        sequence.num_computed = 0
        if sequence.status is not SequenceStatus.WAITING_FOR_TEXT:
            sequence.status = SequenceStatus.WAITING
            insort(self.waiting, sequence, key=_age)

    def _release(self, sequence: Sequence) -> None:
        self.blocks.free(sequence.blocks)
        if sequence.slot >= 0:
            self.active.remove(sequence)
            insort(self._free_slots, sequence.slot, key=int.__neg__)
            sequence.slot = -1

    def _admit(self) -> list[Sequence]:
        admitted: list[Sequence] = []
        while self.waiting and self._free_slots:
            sequence = self.waiting[0]
            digests = self._prompt_digests(sequence)
            num_matched, num_idle = self.blocks.count_idle(digests)
            needed = self.blocks.blocks_for(sequence.prefill_end) - num_matched
            # Headroom, so that those who run do not preempt the newcomer in the next step.
            if needed + num_idle + len(self.active) > self.blocks.num_available and self.active:
                break
            self.waiting.pop(0)
            sequence.blocks = self.blocks.match_prefix(digests)
            sequence.blocks += self.blocks.allocate(needed)
            sequence.num_computed = num_matched * self.blocks.block_size
            self.counters.prefix_hit_rows += sequence.num_computed
            sequence.slot = self._free_slots.pop()
            sequence.status = SequenceStatus.PREFILLING
            insort(self.active, sequence, key=_age)
            admitted.append(sequence)
        return admitted

    def _prompt_digests(self, sequence: Sequence) -> list[bytes]:
        """Digests of the full prompt blocks that may be shared; the last prompt row is always computed."""
        if sequence.digests is None:
            sequence.digests = self.blocks.digests(sequence.spec.rows[:-1])
        return sequence.digests

    def _plan_prefill(self, budget: int) -> list[PrefillChunk]:
        """Chunks for those admitted, oldest first. All blocks are there, so nobody is preempted from here on."""
        size = self.blocks.block_size
        budget = max(budget, size)
        chunks = []
        for sequence in self.active:
            if sequence.status is not SequenceStatus.PREFILLING:
                continue
            begin, end = sequence.num_computed, sequence.prefill_end
            if end - begin > budget:
                end = begin + budget - budget % size
            if end > begin:
                budget -= end - begin
                chunks.append(self._compute(sequence, begin, end))
            if budget < size:
                break
        return chunks

    def _compute(self, sequence: Sequence, begin: int, end: int) -> PrefillChunk:
        size = self.blocks.block_size
        self.counters.prefilled_rows += end - begin
        digests = self._prompt_digests(sequence)
        for index in range(begin // size, min(end // size, len(digests))):
            self.blocks.publish(sequence.blocks[index], digests[index])
        sequence.num_computed = end
        complete = end == sequence.prefill_end
        samples = complete and sequence.sample_after_prefill
        if complete:
            sequence.status = SequenceStatus.RUNNING
            sequence.num_in_flight = int(samples)
        return PrefillChunk(sequence, begin, end, samples)

    def _turn_to_text(self, sequence: Sequence) -> FinishReason | None:
        """The last output is not fed (fill): what comes next is text, now or later."""
        sequence.status = SequenceStatus.WAITING_FOR_TEXT
        sequence.epoch += 1
        sequence.num_in_flight = 0
        sequence.num_computed = len(sequence.rows)
        return self.resume(sequence)


def _age(sequence: Sequence) -> int:
    return sequence.number
