"""The scheduler's policy, without a model: the samples come from a table."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest

from ttsfleet_runtime.errors import InvalidRequestError
from ttsfleet_runtime.llm.block_manager import BlockManager
from ttsfleet_runtime.llm.scheduler import Scheduler, SchedulerLimits
from ttsfleet_runtime.llm.sequence import Sequence, SequenceSpec, SequenceStatus, Vocabulary
from ttsfleet_runtime.llm.step_plan import SampledToken, StepPlan
from ttsfleet_runtime.messages import FinishReason

EOS = 100
VOCABULARY = Vocabulary(
    sos_row=200,
    task_row=201,
    speech_offset=202,
    num_text_rows=200,
    num_codes=100,
    eos_id=EOS,
    fill_id=102,
    masked_before_min=EOS,
    stop_ids=frozenset({100, 101, 102}),
)
LIMITS = SchedulerLimits(max_running=4, max_rows=256, max_step_rows=64)


def scheduler(limits: SchedulerLimits = LIMITS, num_blocks: int = 64, block_size: int = 4) -> Scheduler:
    return Scheduler(BlockManager(num_blocks, block_size), limits, VOCABULARY)


def spec(num_rows: int = 10, max_tokens: int = 20, first_row: int = 0) -> SequenceSpec:
    rows = tuple(first_row * 1000 + index for index in range(num_rows))
    return SequenceSpec(rows=rows, seed=0, segment=0, min_tokens=0, max_tokens=max_tokens)


def sampled(plan: StepPlan) -> list[Sequence]:
    """Who samples in this step."""
    return [row.sequence for row in plan.decode] + [chunk.sequence for chunk in plan.prefill if chunk.samples]


def answer(owner: Scheduler, plan: StepPlan, token: Callable[[Sequence], int] = lambda _: 7) -> None:
    for sequence in sampled(plan):
        owner.apply(SampledToken(sequence, sequence.epoch, token(sequence)))


def run(owner: Scheduler, steps: int) -> list[StepPlan]:
    """Some steps in which everybody samples token 7."""
    plans = []
    for _ in range(steps):
        plan = owner.schedule()
        assert plan is not None
        plans.append(plan)
        answer(owner, plan)
    return plans


def test_nothing_to_do_is_no_plan() -> None:
    assert scheduler().schedule() is None


def test_a_prompt_is_prefilled_and_samples_then_decodes_one_row_a_step() -> None:
    owner = scheduler()
    sequence = owner.add(spec(num_rows=10))
    first, second, third = run(owner, 3)
    assert [(chunk.begin, chunk.end, chunk.samples) for chunk in first.prefill] == [(0, 10, True)]
    assert first.admitted == (sequence,)
    assert [row.position for row in second.decode + third.decode] == [10, 11]


def test_a_long_prompt_is_cut_at_block_boundaries_within_the_step_budget() -> None:
    owner = scheduler(replace(LIMITS, max_step_rows=10))
    owner.add(spec(num_rows=27))
    plans = run(owner, 4)
    assert [(c.begin, c.end, c.samples) for plan in plans for c in plan.prefill] == [
        (0, 8, False),
        (8, 16, False),
        (16, 24, False),
        (24, 27, True),
    ]


def test_running_sequences_decode_in_every_step_of_a_long_prefill() -> None:
    owner = scheduler(replace(LIMITS, max_step_rows=8))
    running = owner.add(spec(num_rows=4))
    run(owner, 1)
    owner.add(spec(num_rows=40, first_row=1))
    for plan in run(owner, 6):
        assert [row.sequence for row in plan.decode] == [running]


def test_a_waiting_sequence_is_not_starved_by_a_long_prefill() -> None:
    owner = scheduler(replace(LIMITS, max_step_rows=8))
    owner.add(spec(num_rows=100))
    short = owner.add(spec(num_rows=4, first_row=1))
    plans = run(owner, 14)
    assert any(short in sampled(plan) for plan in plans)


def test_a_tiny_budget_still_makes_progress() -> None:
    owner = scheduler(replace(LIMITS, max_step_rows=1))
    sequence = owner.add(spec(num_rows=9, max_tokens=2))
    run(owner, 4)
    assert sequence.status is SequenceStatus.FINISHED


def test_no_more_sequences_run_than_there_are_slots() -> None:
    owner = scheduler(replace(LIMITS, max_running=2))
    sequences = [owner.add(spec(first_row=index, max_tokens=5)) for index in range(3)]
    assert run(owner, 1)[0].admitted == tuple(sequences[:2])
    run(owner, 5)
    assert sequences[2].slot >= 0


def test_the_head_of_the_queue_is_not_overtaken_by_a_smaller_one() -> None:
    owner = scheduler(num_blocks=12)
    owner.add(spec(num_rows=16))
    run(owner, 1)
    large = owner.add(spec(num_rows=30, first_row=1, max_tokens=4))
    small = owner.add(spec(num_rows=4, first_row=2, max_tokens=4))
    run(owner, 3)
    assert (large.status, small.status) == (SequenceStatus.WAITING, SequenceStatus.WAITING)


@pytest.mark.parametrize(("max_wait_steps", "admitted_after"), [(1, 1), (3, 3), (8, 8)])
def test_new_sequences_are_considered_at_most_so_many_decode_steps_apart(
    max_wait_steps: int, admitted_after: int
) -> None:
    owner = scheduler(replace(LIMITS, max_wait_steps=max_wait_steps))
    owner.add(spec(max_tokens=60))
    run(owner, 1)
    owner.add(spec(first_row=1))
    plans = run(owner, admitted_after)
    assert [bool(plan.admitted) for plan in plans] == [False] * (admitted_after - 1) + [True]


def test_an_idle_engine_admits_at_once_whatever_the_wait() -> None:
    owner = scheduler(replace(LIMITS, max_wait_steps=100))
    owner.add(spec(max_tokens=3))
    run(owner, 3)
    late = owner.add(spec(first_row=1))
    assert run(owner, 1)[0].admitted == (late,)


def test_the_youngest_is_preempted_when_blocks_run_out_and_keeps_its_outputs() -> None:
    owner = scheduler(num_blocks=7)
    old = owner.add(spec(num_rows=8, max_tokens=15))
    young = owner.add(spec(num_rows=8, max_tokens=15, first_row=1))
    while owner.counters.preemptions == 0:
        run(owner, 1)
    assert (old.status, young.status) == (SequenceStatus.RUNNING, SequenceStatus.WAITING)
    assert young.outputs
    assert not young.blocks


def test_a_preempted_sequence_recomputes_its_rows_and_samples_at_the_next_position() -> None:
    owner = scheduler(num_blocks=7)
    owner.add(spec(num_rows=8, max_tokens=15))
    young = owner.add(spec(num_rows=8, max_tokens=15, first_row=1))
    while owner.counters.preemptions == 0:
        run(owner, 1)
    known = len(young.outputs)
    chunks = []
    while young.status is not SequenceStatus.RUNNING:
        chunks += [chunk for chunk in run(owner, 1)[0].prefill if chunk.sequence is young]
    assert chunks[0].begin == 4  # the first block of its prompt was still there
    assert chunks[-1].end == 8 + known - 1
    assert not any(chunk.samples for chunk in chunks)
    assert [row.position for row in run(owner, 1)[0].decode] == [8 + known - 1]


def test_a_preempted_sequence_is_admitted_before_younger_ones() -> None:
    owner = scheduler(num_blocks=7)
    owner.add(spec(num_rows=8, max_tokens=15))
    young = owner.add(spec(num_rows=8, max_tokens=15, first_row=1))
    while owner.counters.preemptions == 0:
        run(owner, 1)
    youngest = owner.add(spec(num_rows=4, first_row=2))
    assert owner.waiting == [young, youngest]


def test_a_result_from_before_a_preemption_is_void() -> None:
    owner = scheduler(num_blocks=7)
    owner.add(spec(num_rows=8, max_tokens=15))
    young = owner.add(spec(num_rows=8, max_tokens=15, first_row=1))
    run(owner, 1)
    epoch = young.epoch
    while owner.counters.preemptions == 0:
        run(owner, 1)
    outputs = list(young.outputs)
    assert owner.apply(SampledToken(young, epoch, 9)) is None
    assert young.outputs == outputs


def test_late_results_leave_room_for_steps_in_flight() -> None:
    owner = scheduler()
    sequence = owner.add(spec(num_rows=10, max_tokens=3))
    first, second, third = owner.schedule(), owner.schedule(), owner.schedule()
    assert first is not None
    assert second is not None
    assert third is not None
    assert [row.position for row in second.decode + third.decode] == [10, 11]
    assert owner.schedule() is None  # three samples are on their way, and that is its maximum
    for token in (1, 2, 3):
        accepted = owner.apply(SampledToken(sequence, sequence.epoch, token))
    assert accepted is not None
    assert accepted.finish is FinishReason.LENGTH


def test_a_late_result_of_a_sequence_that_ended_is_void() -> None:
    owner = scheduler()
    sequence = owner.add(spec())
    owner.schedule()
    owner.schedule()
    owner.apply(SampledToken(sequence, sequence.epoch, EOS))
    assert owner.apply(SampledToken(sequence, sequence.epoch, 5)) is None
    assert owner.blocks.num_held == 0


def test_blocks_of_a_shared_prompt_are_computed_once() -> None:
    owner = scheduler()
    owner.add(spec(num_rows=17))
    run(owner, 1)
    owner.add(spec(num_rows=17))
    chunk = run(owner, 1)[0].prefill[0]
    assert (chunk.begin, chunk.end) == (16, 17)
    assert owner.counters.prefix_hit_rows == 16


def test_the_last_prompt_row_is_always_computed() -> None:
    owner = scheduler()
    for _ in range(2):
        owner.add(spec(num_rows=16))
        plan = run(owner, 1)[0]
    assert [(chunk.begin, chunk.end) for chunk in plan.prefill] == [(12, 16)]


@pytest.mark.parametrize(
    ("token", "max_tokens", "reason", "emitted"),
    [
        (EOS, 20, FinishReason.EOS, None),
        (102, 20, FinishReason.EOS, None),
        (5, 1, FinishReason.LENGTH, 5),
        (5, 20, None, 5),
    ],
)
def test_how_a_sequence_ends(token: int, max_tokens: int, reason: FinishReason | None, emitted: int | None) -> None:
    owner = scheduler()
    sequence = owner.add(spec(max_tokens=max_tokens))
    owner.schedule()
    accepted = owner.apply(SampledToken(sequence, sequence.epoch, token))
    assert accepted is not None
    assert (accepted.finish, accepted.emitted) == (reason, emitted)


@pytest.mark.parametrize(
    ("limits", "num_blocks", "names"),
    [
        (replace(LIMITS, max_rows=29), 64, ("29", "max_req_total_len")),
        (LIMITS, 7, ("28", "max_total_token_num")),
    ],
)
def test_what_can_never_fit_is_refused_with_value_limit_and_remedy(
    limits: SchedulerLimits, num_blocks: int, names: tuple[str, str]
) -> None:
    owner = scheduler(limits, num_blocks)
    with pytest.raises(InvalidRequestError) as refused:
        owner.check_fits(spec(num_rows=10, max_tokens=20))
    for expected in ("30", "10 of input", "20 of speech", "shorten or split", *names):
        assert expected in str(refused.value)


@pytest.mark.parametrize("two_in_flight", [False, True])
def test_no_block_or_slot_is_lost_in_a_storm_of_joins_cancels_and_preemptions(two_in_flight: bool) -> None:
    chance = random.Random(3)
    owner = scheduler(replace(LIMITS, max_step_rows=24, max_running=5, max_rows=80), num_blocks=24)
    live: list[Sequence] = []
    late: list[tuple[int, SampledToken]] = []
    for step in range(1500):
        if chance.random() < 0.3:
            wanted = spec(chance.randrange(1, 40), chance.randrange(1, 40), first_row=chance.randrange(3))
            owner.check_fits(wanted)
            live.append(owner.add(wanted))
        if live and chance.random() < 0.1:
            owner.remove(live.pop(chance.randrange(len(live))))
        plan = owner.schedule()
        for sequence in sampled(plan) if plan else []:
            token = EOS if chance.random() < 0.05 else chance.randrange(100)
            late.append((step + 1 if two_in_flight else step, SampledToken(sequence, sequence.epoch, token)))
        while late and late[0][0] <= step:
            owner.apply(late.pop(0)[1])
        live = [sequence for sequence in live if sequence.status is not SequenceStatus.FINISHED]
    assert owner.counters.preemptions > 20
    for sequence in live:
        owner.remove(sequence)
    assert owner.blocks.num_available == 24
    assert not owner.active
    assert not owner.waiting
    owner.blocks.drop_idle()
    assert len(owner.blocks.allocate(24)) == 24


def test_everybody_gets_all_its_tokens_in_a_tiny_cache() -> None:
    owner = scheduler(replace(LIMITS, max_rows=64), num_blocks=18)
    sequences = [owner.add(spec(num_rows=20, max_tokens=40, first_row=index)) for index in range(6)]
    emitted: dict[int, int] = defaultdict(int)
    while plan := owner.schedule():
        for sequence in sampled(plan):
            accepted = owner.apply(SampledToken(sequence, sequence.epoch, len(sequence.outputs)))
            assert accepted is not None
            emitted[sequence.number] += 1
    assert owner.counters.preemptions > 0
    assert [sequence.outputs for sequence in sequences] == [list(range(40))] * 6
    assert emitted == dict.fromkeys(range(6), 40)
