"""Start a server, show how it comes up, do something, stop it: shared by `run`, `say` and `demo`."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.status import Status

from ttsfleet_operator.launch import Launch
from ttsfleet_operator.local_server import LocalServer, ProcessState, StartState

T = TypeVar("T")
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StartDisplay:
    """Shows a starting server: a spinner on a terminal, and a lasting line per process that comes up."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._began = time.monotonic()
        self._ready: set[str] = set()
        self._pids: dict[str, int] = {}
        self._phase = ""

    def __enter__(self) -> StartDisplay:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, state: StartState) -> None:
        """Take in a state; prints only what is new."""
        if not state.answering:
            self._say_phase("preparing the model (the first start converts it)")
            return
        for name, process in state.processes.items():
            self._show_process(name, process)
        if state.ready:
            return
        waiting = [name for name, process in state.processes.items() if not process.ready]
        self._say_phase(f"waiting for {', '.join(waiting)}" if waiting else "; ".join(state.problems) or "self-test")

    def _show_process(self, name: str, process: ProcessState) -> None:
        """A line when the process has come up, and one when it was started again."""
        if process.pid is not None and self._pids.setdefault(name, process.pid) != process.pid:
            self._pids[name] = process.pid
            self._ready.discard(name)
            self._console.print(
                f"  [yellow]![/yellow] {name} ended and was started again; runtime.log says why", highlight=False
            )
        if process.ready and name not in self._ready:
            self._ready.add(name)
            self._console.print(f"  [green]✓[/green] {name} [dim]{self._elapsed()}[/dim]", highlight=False)

    def _say_phase(self, phase: str) -> None:
        if self._status is not None:
            self._status.update(f"{phase} [dim]{self._elapsed()}[/dim]")
        elif phase != self._phase:
            self._console.print(f"  {phase}", highlight=False)
        self._phase = phase

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.1f} s"


class StopRequests:
    """Signals as events: the first asks for a clean stop, the second for an immediate one."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.impatient = asyncio.Event()

    def install(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal)

    def remove(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        (self.impatient if self.asked.is_set() else self.asked).set()


@asynccontextmanager
async def serving(
    launch: Launch, state_dir: Path, ready_timeout_seconds: float, console: Console, stop: StopRequests
) -> AsyncIterator[LocalServer]:
    """A server that is ready inside the block and gone after it, whatever happens in between.

    Raises ServerStartError, and KeyboardInterrupt when a stop is asked before the server is ready.
    """
    server = await LocalServer.start(launch, state_dir)
    try:
        with StartDisplay(console) as display:
            await until_stopped(server.wait_ready(ready_timeout_seconds, display.show), stop)
        yield server
    finally:
        await server.stop(impatient=stop.impatient)


async def until_stopped(work: Coroutine[Any, Any, T], stop: StopRequests) -> T:
    """The result of `work`; KeyboardInterrupt, after cancelling it, when a stop is asked first."""
    task = asyncio.create_task(work)
    asked = asyncio.create_task(stop.asked.wait())
    try:
        await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise KeyboardInterrupt
    finally:
        for one in (task, asked):
            one.cancel()
        await asyncio.gather(task, asked, return_exceptions=True)
