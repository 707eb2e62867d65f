"""A queue of keys for level-based reconciliation: one entry per key, one worker per key, back-off on errors.

A key that is added while its worker runs is run once more afterwards. A key that is added later with a shorter delay
comes earlier; never the other way round, except for the back-off after a failure, which a fresh `add` may cut short
only to `FRESH_AFTER_FAILURE` of it: what changed may have healed the failure, a storm of events must not defeat the
back-off. The time that a `RetryAfter` names is never cut short.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

FRESH_AFTER_FAILURE = 0.25


class RetryAfter(Exception):
    """Raised by a handler that knows when trying again makes sense; counts as a failure for the back-off."""

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__(reason)
        self.seconds = seconds


@dataclass(frozen=True)
class BackOff:
    """Seconds to wait after the n-th failure in a row: exponential, capped, with jitter on the upper half."""

    first_seconds: float = 0.2
    most_seconds: float = 60.0
    jitter: Callable[[], float] = random.random

    def after(self, failures: int) -> float:
        whole = min(self.most_seconds, self.first_seconds * 2.0 ** min(failures - 1, 30))
        return float(whole * (0.5 + 0.5 * self.jitter()))


@dataclass
class _Entry:
    """A key that waits: its timer, or None when it is in line."""

    due: float
    timer: asyncio.TimerHandle | None


@dataclass
class WorkQueue(Generic[K]):
    """`handle(key)` returns the seconds until the key shall be looked at again, or None."""

    handle: Callable[[K], Awaitable[float | None]]
    workers: int = 16
    back_off: BackOff = field(default_factory=BackOff)
    on_failure: Callable[[K, BaseException], None] = lambda _key, _error: None

    def __post_init__(self) -> None:
        self._line: deque[K] = deque()
        self._waiting: dict[K, _Entry] = {}
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._not_before: dict[K, float] = {}
        self._arrived = asyncio.Event()
        self._open = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        """Keys that are in line, without those that wait for a time and those that run."""
        return len(self._line)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> bool:
        """Nothing is in line, runs, or is due within a second."""
        soon = asyncio.get_running_loop().time() + 1.0
        return not self._running and not any(entry.due <= soon for entry in self._waiting.values())

    def start(self) -> None:
        """Start the workers. Keys may be added before; nothing runs until `open`."""
        self._tasks = [asyncio.create_task(self._work(), name=f"worker {n}") for n in range(self.workers)]

    def open(self) -> None:
        self._open.set()

    async def close(self) -> None:
        """Cancel the workers and forget what waits."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for entry in self._waiting.values():
            if entry.timer is not None:
                entry.timer.cancel()
        self._waiting.clear()
        self._line.clear()

    def add(self, key: K, delay_seconds: float = 0.0) -> None:
        """Have the key handled, at the latest after `delay_seconds` unless it is backing off."""
        if key in self._running:
            if delay_seconds <= 1.0:
                self._again.add(key)
                return
        elif key in self._failures:
            named = self._not_before.get(key, 0.0) - asyncio.get_running_loop().time()
            delay_seconds = max(delay_seconds, named, FRESH_AFTER_FAILURE * self.back_off.after(self._failures[key]))
        self._schedule(key, delay_seconds)

    def _schedule(self, key: K, delay_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_seconds
        waiting = self._waiting.get(key)
        if waiting is not None:
            if waiting.due <= due:
                return
            if waiting.timer is None:
                return
            waiting.timer.cancel()
        timer = loop.call_later(delay_seconds, self._line_up, key) if delay_seconds > 0 else None
        self._waiting[key] = _Entry(due, timer)
        if timer is None:
            self._line_up(key)

    def _line_up(self, key: K) -> None:
        self._waiting[key].timer = None
        self._line.append(key)
        self._arrived.set()

    async def _next(self) -> K:
        while True:
            await self._open.wait()
            for _ in range(len(self._line)):
                key = self._line.popleft()
                if key not in self._running:
                    del self._waiting[key]
                    return key
                self._line.append(key)
            self._arrived.clear()
            await self._arrived.wait()

    async def _work(self) -> None:
        while True:
            key = await self._next()
            self._running.add(key)
            try:
                await self._run(key)
            finally:
                self._running.discard(key)
                self._arrived.set()
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    async def _run(self, key: K) -> None:
        try:
            again = await self.handle(key)
        except RetryAfter as error:
            self._failures[key] = self._failures.get(key, 0) + 1
            self._not_before[key] = asyncio.get_running_loop().time() + error.seconds
            self.on_failure(key, error)
            self._schedule(key, max(error.seconds, self.back_off.after(self._failures[key])))
        except Exception as error:  # noqa: BLE001 - one key's failure must not end the worker; it is reported and retried
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            self.on_failure(key, error)
            self._schedule(key, self.back_off.after(failures))
        else:
            self._failures.pop(key, None)
            self._not_before.pop(key, None)
            if again is not None:
                self._schedule(key, again)
