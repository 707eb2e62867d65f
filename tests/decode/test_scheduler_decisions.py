"""Named scenarios of the decode scheduler."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ttsfleet_runtime.decode.scheduler import Candidate, Decision, Limits, Phase, SegmentKey, choose

NOW = 100.0
LIMITS = Limits(
    max_batch_size=4,
    max_active=8,
    frame_budget=400,
    vocode_budget=400,
    companion_frames=0,
    patience_seconds=1.0,
)


def flow(key: str, **changes: object) -> Candidate:
    """An offline job of 100 frames that came a second ago and was last served just now."""
    base = Candidate(
        key=(key, 0),
        phase=Phase.FLOW,
        frames=100,
        remaining_steps=10,
        streaming=False,
        is_first_chunk=False,
        playback_deadline=0.0,
        arrival=NOW - 1.0,
        waiting_since=NOW,
        started=False,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def first(key: str, **changes: object) -> Candidate:
    return flow(key, **{"streaming": True, "is_first_chunk": True, **changes})


def later(key: str, deadline: float, **changes: object) -> Candidate:
    return flow(key, **{"streaming": True, "playback_deadline": deadline, **changes})


def vocode(key: str, **changes: object) -> Candidate:
    return flow(key, **{"phase": Phase.VOCODE, "remaining_steps": 1, "started": True, **changes})


def keys(decision: Decision | None) -> list[str]:
    assert decision is not None
    return [key for key, _ in decision.keys]


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        pytest.param([flow("old"), first("new", arrival=NOW)], ["new"], id="a first chunk overtakes an offline job"),
        pytest.param(
            [flow("half", started=True, remaining_steps=1), first("new", arrival=NOW)],
            ["new"],
            id="a first chunk overtakes an offline job that is nearly solved",
        ),
        pytest.param(
            [later("late", NOW - 1.0), first("new", arrival=NOW)], ["new"], id="a first chunk overtakes a later chunk"
        ),
        pytest.param(
            [first("b", arrival=NOW - 1), first("a", arrival=NOW - 2)],
            ["a", "b"],
            id="first chunks go by arrival and together",
        ),
        pytest.param(
            [later("relaxed", NOW + 9), later("urgent", NOW + 1)],
            ["urgent", "relaxed"],
            id="later chunks go by playback deadline",
        ),
        pytest.param(
            [flow("offline", arrival=NOW - 3), later("stream", NOW + 60)],
            ["stream", "offline"],
            id="streams go before offline segments, which fill the batch",
        ),
        pytest.param(
            [flow("b", arrival=NOW - 1), flow("a", arrival=NOW - 2)], ["a", "b"], id="offline segments go by arrival"
        ),
        pytest.param(
            [first(f"new{i}", arrival=NOW) for i in range(6)] + [flow("starved", waiting_since=NOW - 1)],
            ["starved", "new0", "new1", "new2"],
            id="an offline job that waited too long gets one turn before first chunks",
        ),
        pytest.param(
            [first("new"), *(flow(f"waits{i}", waiting_since=NOW - 5.9) for i in range(6))],
            ["new"],
            id="what counts as too long grows with the number of jobs that wait",
        ),
        pytest.param(
            [later("late", NOW - 1), flow("starved", waiting_since=NOW - 2)],
            ["starved", "late"],
            id="nor do later chunks starve an offline job",
        ),
        pytest.param(
            [first("b", arrival=NOW - 99, waiting_since=NOW), first("a", arrival=NOW - 100, waiting_since=NOW)],
            ["a", "b"],
            id="first chunks stay in the order of arrival however late they are",
        ),
        pytest.param(
            [flow("a", waiting_since=NOW - 6), flow("b", waiting_since=NOW - 7)],
            ["b", "a"],
            id="among starved jobs the longest wait goes first",
        ),
        pytest.param(
            [flow(f"o{i}", arrival=NOW - 9 + i) for i in range(6)],
            ["o0", "o1", "o2", "o3"],
            id="a batch holds at most decode_max_batch_size jobs",
        ),
        pytest.param(
            [
                flow("a", frames=300, arrival=1.0),
                flow("b", frames=200, arrival=2.0),
                flow("c", frames=90, arrival=3.0),
            ],
            ["a", "c"],
            id="a job that does not fit the frame budget is passed over for one that does",
        ),
        pytest.param([flow("huge", frames=30_000)], ["huge"], id="a job longer than the budget runs alone"),
        pytest.param(
            [flow("solve", arrival=1.0), vocode("speak", arrival=2.0)],
            ["solve"],
            id="one decision never mixes Euler steps and vocoder passes",
        ),
        pytest.param(
            [flow("solve", arrival=2.0), vocode("speak", arrival=1.0), vocode("speak too", arrival=3.0)],
            ["speak", "speak too"],
            id="vocoder passes of several segments run together",
        ),
        pytest.param(
            [vocode("offline", arrival=1.0), first("new", arrival=NOW)],
            ["new"],
            id="a first chunk is solved before an offline segment is vocoded",
        ),
    ],
)
def test_the_most_urgent_work_is_chosen(candidates: list[Candidate], expected: list[str]) -> None:
    assert keys(choose(candidates, LIMITS, NOW)) == expected
    assert keys(choose(candidates[::-1], LIMITS, NOW)) == expected, "the order of candidates must not matter"


@pytest.mark.parametrize(
    ("candidates", "num_steps"),
    [
        pytest.param([flow("a", frames=1000)], 1, id="a long job is solved step by step"),
        pytest.param([flow("a", frames=40)], 10, id="a short job is solved at once"),
        pytest.param([flow("a", frames=100)], 4, id="frames times steps stay within the budget"),
        pytest.param(
            [flow("a", frames=40, remaining_steps=9), flow("b", frames=40, remaining_steps=3)],
            3,
            id="a decision ends when the first job of the batch is solved",
        ),
        pytest.param([vocode("a", frames=40)], 1, id="a vocoder pass is one step"),
    ],
)
def test_the_number_of_steps_is_bounded(candidates: list[Candidate], num_steps: int) -> None:
    decision = choose(candidates, LIMITS, NOW)
    assert decision is not None
    assert decision.num_steps == num_steps


@pytest.mark.parametrize(("companion_frames", "expected"), [(0, ["new"]), (200, ["new", "old"]), (199, ["new"])])
def test_less_urgent_work_rides_with_a_first_chunk_only_where_it_is_free(
    companion_frames: int, expected: list[str]
) -> None:
    limits = replace(LIMITS, companion_frames=companion_frames)
    assert keys(choose([flow("old"), first("new")], limits, NOW)) == expected


@pytest.mark.parametrize(
    ("max_active", "candidates", "expected"),
    [
        pytest.param(1, [flow("a", arrival=1.0), flow("b", arrival=2.0)], ["a"], id="one slot, one job"),
        pytest.param(2, [flow("a", arrival=1.0), flow("b", arrival=2.0)], ["a", "b"], id="two slots, two jobs"),
        pytest.param(
            1,
            [flow("a", arrival=2.0, started=True), flow("b", arrival=3.0)],
            ["a"],
            id="nothing of lower rank starts while all slots are held",
        ),
        pytest.param(
            1,
            [flow("a", started=True), first("new", arrival=NOW)],
            ["new"],
            id="a slot held by a paused job does not block a first chunk",
        ),
        pytest.param(
            1,
            [flow("a", arrival=1.0, started=True), later("stream", NOW)],
            ["stream", "a"],
            id="nor a later chunk",
        ),
        pytest.param(
            1,
            [later(f"paused{i}", NOW + i, started=True) for i in range(5)] + [first("new", arrival=NOW)],
            ["new"],
            id="paused later chunks leave room for first chunks",
        ),
        pytest.param(
            1,
            [flow("overdue", waiting_since=NOW - 99), flow("a", started=True), flow("b", started=True)],
            ["a", "b"],
            id="overdue files do not take the room of streams",
        ),
        pytest.param(
            1,
            [flow(f"paused{i}", started=True, arrival=float(i)) for i in range(9)] + [first("new", arrival=NOW)],
            ["paused0", "paused1", "paused2", "paused3"],
            id="but the state held by paused jobs stays bounded",
        ),
    ],
)
def test_decode_paral_num_bounds_the_jobs_that_hold_state(
    max_active: int, candidates: list[Candidate], expected: list[str]
) -> None:
    assert keys(choose(candidates, replace(LIMITS, max_active=max_active), NOW)) == expected


def test_nothing_to_do_is_no_decision() -> None:
    assert choose([], LIMITS, NOW) is None


def simulate(jobs: dict[SegmentKey, Candidate], arrivals: dict[int, Candidate], num_turns: int) -> list[str]:
    """Run decisions against a fake solver in which a decision takes 0.1 s; the keys in the order they were solved."""
    solved: list[str] = []
    for turn in range(num_turns):
        now = NOW + 0.1 * turn
        if turn in arrivals:
            jobs[arrivals[turn].key] = replace(arrivals[turn], arrival=now, waiting_since=now)
        decision = choose(list(jobs.values()), LIMITS, now)
        if decision is None:
            continue
        for key in decision.keys:
            job = jobs[key]
            job = replace(
                job, remaining_steps=job.remaining_steps - decision.num_steps, started=True, waiting_since=now + 0.1
            )
            jobs[key] = job
            if job.remaining_steps == 0:
                solved.append(key[0])
                del jobs[key]
    return solved


def test_a_first_chunk_arriving_during_a_long_offline_job_finishes_before_it() -> None:
    long_job = flow("offline", frames=4000)
    assert simulate({long_job.key: long_job}, {4: first("new")}, 20) == ["new", "offline"]


def test_an_offline_job_makes_progress_under_an_endless_load_of_first_chunks() -> None:
    offline = flow("offline", frames=400)
    arrivals = {turn: first(f"new{turn:03d}", frames=80) for turn in range(2000)}
    solved = simulate({offline.key: offline}, arrivals, 600)
    assert "offline" in solved
    assert solved.index("offline") > 30, "it must not displace the first chunks either"


def test_an_overload_of_overdue_files_leaves_first_chunks_nearly_all_the_time() -> None:
    files = {(f"file{i}", 0): flow(f"file{i}", frames=400, waiting_since=NOW - 1000.0) for i in range(50)}
    arrivals = {turn: first(f"new{turn:03d}", frames=400, remaining_steps=1) for turn in range(400)}
    solved = simulate(files, arrivals, 400)
    first_turns = sum(key.startswith("new") for key in solved)
    assert first_turns > 0.85 * 350, "50 turns for the backlog, then at most one in ten"
