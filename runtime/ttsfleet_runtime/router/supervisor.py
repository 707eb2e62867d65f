"""Starts child processes, says when they end, and stops them: the only place that knows process ids.

A child is a Python module of this package run with this interpreter. It dies with the router (`process.py`). What
to do about an exit (restart, give up) is the caller's decision, told through `on_exit`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass
class _Child:
    process: asyncio.subprocess.Process
    watcher: asyncio.Task[None]


class Supervisor:
    """Children by identity."""

    def __init__(self, on_exit: Callable[[str, int], None]) -> None:
        self._on_exit = on_exit
        self._children: dict[str, _Child] = {}

    async def start(
        self,
        identity: str,
        module: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Run `python -m module arguments... --parent <our pid>` as the child `identity`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            "--parent",
            str(os.getpid()),
            env={**os.environ, **environment},
            pass_fds=pass_fds,
            stdin=asyncio.subprocess.DEVNULL,
        )
        watcher = asyncio.create_task(self._watch(identity, process), name=f"watch {identity}")
        watcher.add_done_callback(_log_failure)
        self._children[identity] = _Child(process, watcher)

    def pid(self, identity: str) -> int | None:
        child = self._children.get(identity)
        return None if child is None else child.process.pid

    def identities(self) -> list[str]:
        return list(self._children)

    def kill(self, identity: str) -> None:
        """SIGKILL a child that hangs; its exit is then told as any other."""
        self._signal(identity, signal.SIGKILL)

    def terminate(self, identity: str) -> None:
        """SIGTERM: an HTTP worker finishes its streams, then exits; a child that is still starting just ends."""
        self._signal(identity, signal.SIGTERM)

    async def wait(self, identities: Sequence[str], timeout_seconds: float) -> bool:
        """Wait for these children to end; False when some still run after the timeout."""
        watchers = [self._children[i].watcher for i in identities if i in self._children]
        if not watchers:
            return True
        _, pending = await asyncio.wait(watchers, timeout=timeout_seconds)
        return not pending

    async def stop_all(self, timeout_seconds: float) -> None:
        """Wait for all children, then kill what is left."""
        if not await self.wait(self.identities(), timeout_seconds):
            for identity in self.identities():
                logger.warning("%s did not stop within %.1f s and is killed", identity, timeout_seconds)
                self.kill(identity)
            await self.wait(self.identities(), 10.0)

    def _signal(self, identity: str, number: signal.Signals) -> None:
        child = self._children.get(identity)
        if child is not None and child.process.returncode is None:
            child.process.send_signal(number)

    async def _watch(self, identity: str, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        child = self._children.get(identity)
        if child is not None and child.process is process:
            del self._children[identity]
        self._on_exit(identity, code)


def _log_failure(watcher: asyncio.Task[None]) -> None:
    if not watcher.cancelled() and watcher.exception() is not None:
        logger.critical("%s failed", watcher.get_name(), exc_info=watcher.exception())
