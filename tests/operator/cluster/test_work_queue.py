"""The queue's promises: one entry per key, one worker per key, order, back-off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from ttsfleet_operator.cluster.work_queue import BackOff, RetryAfter, WorkQueue

FAST = BackOff(first_seconds=0.01, most_seconds=0.05, jitter=lambda: 1.0)


@asynccontextmanager
async def queue(
    handle: Callable[[str], Awaitable[float | None]], workers: int = 4, failures: list[str] | None = None
) -> AsyncIterator[WorkQueue[str]]:
    def note(key: str, error: BaseException) -> None:
        if failures is not None:
            failures.append(f"{key}: {error}")

    work = WorkQueue(handle, workers=workers, back_off=FAST, on_failure=note)
    work.start()
    try:
        yield work
    finally:
        await work.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the condition is the queue's own state, which has no event
            await asyncio.sleep(0)


async def test_nothing_runs_before_the_queue_is_open() -> None:
    seen: list[str] = []

    async def handle(key: str) -> None:
        seen.append(key)

    async with queue(handle) as work:
        work.add("a")
        await asyncio.sleep(0)
        assert (seen, len(work)) == ([], 1)
        work.open()
        await until(lambda: seen == ["a"])


async def test_a_key_that_is_added_often_runs_once() -> None:
    seen: list[str] = []

    async def handle(key: str) -> None:
        seen.append(key)

    async with queue(handle) as work:
        for _ in range(100):
            work.add("a")
            work.add("b")
        work.open()
        await until(lambda: work.idle)
        assert sorted(seen) == ["a", "b"]


async def test_a_key_never_runs_twice_at_a_time_and_once_more_when_it_changed_meanwhile() -> None:
    gate, running, most, seen = asyncio.Event(), 0, 0, 0

    async def handle(_key: str) -> None:
        nonlocal running, most, seen
        running += 1
        most, seen = max(most, running), seen + 1
        await gate.wait()
        running -= 1

    async with queue(handle) as work:
        work.open()
        work.add("a")
        await until(lambda: seen == 1)
        for _ in range(10):
            work.add("a")
        gate.set()
        await until(lambda: work.idle and seen == 2)
        assert most == 1


async def test_as_many_keys_run_at_a_time_as_there_are_workers() -> None:
    gate, running = asyncio.Event(), set[str]()

    async def handle(key: str) -> None:
        running.add(key)
        await gate.wait()

    async with queue(handle, workers=3) as work:
        work.open()
        for key in "abcde":
            work.add(key)
        await until(lambda: len(running) == 3)
        assert (running, len(work)) == (set("abc"), 2)
        gate.set()
        await until(lambda: running == set("abcde"))


async def test_a_failing_key_is_retried_and_does_not_hold_up_others() -> None:
    seen: dict[str, int] = {}
    failures: list[str] = []

    async def handle(key: str) -> None:
        seen[key] = seen.get(key, 0) + 1
        if key == "bad" and seen[key] < 4:
            raise ValueError("no")

    async with queue(handle, workers=1, failures=failures) as work:
        work.open()
        work.add("bad")
        work.add("good")
        await until(lambda: seen.get("bad") == 4)
        assert seen["good"] == 1
        assert failures == ["bad: no"] * 3


async def test_a_storm_of_events_does_not_defeat_the_back_off() -> None:
    times: list[float] = []

    async def handle(_key: str) -> None:
        times.append(asyncio.get_running_loop().time())
        raise ValueError("no")

    async with queue(handle) as work:
        work.open()
        work.add("a")
        await until(lambda: bool(times))
        until_time = times[0] + 0.2
        while asyncio.get_running_loop().time() < until_time:
            work.add("a")
            await asyncio.sleep(0.001)
    assert len(times) <= 20


async def test_a_named_time_is_waited_for() -> None:
    times: list[float] = []

    async def handle(_key: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise RetryAfter(0.1, "busy")

    async with queue(handle) as work:
        work.open()
        work.add("a")
        await until(lambda: len(times) == 2)
    assert times[1] - times[0] >= 0.1


async def test_a_named_time_is_not_cut_short_by_events() -> None:
    times: list[float] = []
    work: WorkQueue[str]

    async def handle(key: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            work.add(key)
            raise RetryAfter(0.2, "busy")

    async with queue(handle) as work:
        work.open()
        work.add("a")
        await until(lambda: bool(times))
        while len(times) == 1:
            work.add("a")
            await asyncio.sleep(0.001)
        assert times[1] - times[0] >= 0.2
        asked = asyncio.get_running_loop().time()
        work.add("a")
        await until(lambda: len(times) == 3)
        assert times[2] - asked < 0.1


async def test_a_key_comes_back_when_its_handler_asks_for_it_and_earlier_when_it_is_added() -> None:
    times: list[float] = []

    async def handle(_key: str) -> float | None:
        times.append(asyncio.get_running_loop().time())
        return 0.05 if len(times) == 1 else 3600.0

    async with queue(handle) as work:
        work.open()
        work.add("a")
        await until(lambda: len(times) == 2)
        assert times[1] - times[0] >= 0.05
        work.add("a")
        await until(lambda: len(times) == 3)


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.2), (2, 0.4), (5, 3.2), (20, 60.0), (5000, 60.0)])
def test_the_back_off_grows_to_its_cap(failures: int, seconds: float) -> None:
    assert BackOff(jitter=lambda: 1.0).after(failures) == pytest.approx(seconds)
    assert BackOff(jitter=lambda: 0.0).after(failures) == pytest.approx(seconds / 2)
