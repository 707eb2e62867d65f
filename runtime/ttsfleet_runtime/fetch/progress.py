"""How far a fetch is: a bar on a terminal, else a log line every few seconds. Either may be called often."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Protocol, Self

_LOG_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """What is told. `expect` begins a part of the work, of which so much is done."""

    def expect(self, total_bytes: int, done_bytes: int = 0) -> None: ...
    def begin(self, name: str) -> None: ...
    def advance(self, num_bytes: int) -> None: ...
    def finish(self, name: str, num_bytes: int, remark: str = "") -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LogProgress:
    """Lines in the log."""

    def __init__(self) -> None:
        self._total = self._done = 0
        self._name = ""
        self._last_seconds = time.monotonic()
        self._last_done = 0

    def expect(self, total_bytes: int, done_bytes: int = 0) -> None:
        self._total, self._done, self._last_done = total_bytes, done_bytes, done_bytes

    def begin(self, name: str) -> None:
        self._name = name

    def advance(self, num_bytes: int) -> None:
        self._done += num_bytes
        now = time.monotonic()
        passed = now - self._last_seconds
        if passed < _LOG_SECONDS:
            return
        rate = max(0, self._done - self._last_done) / passed
        share = f" of {megabytes(self._total)} ({self._done / self._total:.0%})" if self._total else ""
        logger.info("%s: %s%s, %s/s", self._name, megabytes(self._done), share, megabytes(rate))
        self._last_seconds, self._last_done = now, self._done

    def finish(self, name: str, num_bytes: int, remark: str = "") -> None:
        logger.info("%s: %s%s", name, megabytes(num_bytes), f", {remark}" if remark else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""


class TerminalProgress:
    """A bar for everything, and a line per finished file."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bars.add_task("", total=None)

    def expect(self, total_bytes: int, done_bytes: int = 0) -> None:
        self._bars.update(self._task, total=total_bytes, completed=done_bytes)

    def begin(self, name: str) -> None:
        self._bars.update(self._task, description=name)

    def advance(self, num_bytes: int) -> None:
        self._bars.advance(self._task, num_bytes)

    def finish(self, name: str, num_bytes: int, remark: str = "") -> None:
        self._console.print(f"{name}: {megabytes(num_bytes)}{f', {remark}' if remark else ''}", highlight=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
