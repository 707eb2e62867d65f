"""The child processes that should run, and keeping it so: start, hello, hang detection, restart with back-off, stop.

A child is known by its identity and, between a death and the restart, by its process id: what an earlier process of
the same identity still had on the wire is ignored. HTTP workers get a new identity each time, stages keep theirs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.router.fleet import ProcessSpec
from ttsfleet_runtime.router.supervisor import Supervisor

logger = logging.getLogger(__name__)

_FIRST_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 10.0
_STABLE_SECONDS = 30.0
_START_SECONDS = 900.0
"""A child that has not said hello by then hangs; loading a large model from a slow disk takes minutes."""
_STAGE_STOP_SECONDS = 5.0


@dataclass
class _State:
    """One child's life. `planned_exit`: it was told to go, or said that it retires."""

    started: float
    ready: bool = False
    last_seen: float = field(default=0.0)
    planned_exit: bool = False


class Children:
    """`on_lost(identity, for_good)` is called when a child has ended, before it is started again."""

    def __init__(
        self,
        plan: EnginePlan,
        specs: dict[str, ProcessSpec],
        common_arguments: list[str],
        on_lost: Callable[[str, bool], None],
        spawn: Callable[..., None],
    ) -> None:
        self._plan = plan
        self._specs = specs
        self._arguments = common_arguments
        self._on_lost = on_lost
        self._spawn = spawn
        self._supervisor = Supervisor(self._exited)
        self._states: dict[str, _State] = {}
        self._backoff: dict[str, float] = {}
        self._http_count = 0
        self._stopping = False
        self._http_arguments: list[str] = []
        self._listener_fd = -1

    async def start_all(self, listener_fd: int, key_path: Path | None) -> None:
        """Start every stage of the plan and the HTTP workers, which inherit the listening socket."""
        self._listener_fd = listener_fd
        self._http_arguments = ["--fd", str(listener_fd), *self._arguments]
        if key_path is not None:
            self._http_arguments += ["--api-key-file", str(key_path)]
        for spec in self._specs.values():
            await self._start_stage(spec)
        for _ in range(self._plan.server.httpserver_workers):
            await self._start_http()

    def hello(self, identity: str, pid: int) -> bool:
        """A child can work. False: it is not the process that runs now."""
        state = self._current(identity, pid)
        if state is not None:
            state.ready = True
            state.last_seen = time.monotonic()
        return state is not None

    def heartbeat(self, identity: str, pid: int) -> bool:
        """A child lives. False: it is not the process that runs now."""
        state = self._current(identity, pid)
        if state is not None:
            state.last_seen = time.monotonic()
        return state is not None

    def retiring(self, identity: str) -> None:
        """An HTTP worker has served its share: start its successor; its exit is planned."""
        state = self._states.get(identity)
        if state is not None and not state.planned_exit:
            state.planned_exit = True
            self._spawn(self._start_http(), f"successor of {identity}")

    def http_workers(self) -> list[str]:
        return sorted(identity for identity in self._states if identity not in self._specs)

    def http_ready(self) -> bool:
        """True while an HTTP worker accepts requests."""
        return any(self._states[identity].ready for identity in self.http_workers())

    def describe(self) -> dict[str, dict[str, object]]:
        """Readiness and process id by identity, stages first."""
        known = [*self._specs, *self.http_workers()]
        return {
            identity: {
                "ready": identity in self._states and self._states[identity].ready,
                "pid": self._supervisor.pid(identity),
            }
            for identity in known
        }

    def kill_hung(self, now: float) -> None:
        """Kill what has not answered within `stage_timeout_seconds`, or not started in time."""
        for identity, state in self._states.items():
            limit = self._plan.stage_timeout_seconds if state.ready else _START_SECONDS
            silent = now - (state.last_seen if state.ready else state.started)
            if silent > limit:
                logger.error("%s has not answered for %.0f s and is killed", identity, silent)
                state.started = state.last_seen = now  # the kill takes a moment
                self._supervisor.kill(identity)

    async def stop(self, tell: Callable[[str], None]) -> None:
        """HTTP workers finish their streams within `drain_seconds`, then the stages stop. `tell` sends Shutdown."""
        self._stopping = True
        workers = self.http_workers()
        self._shut_down(workers, tell)
        if not await self._supervisor.wait(workers, self._plan.server.drain_seconds + 2.0):
            logger.warning("streams were still running after %.0f s and are cut", self._plan.server.drain_seconds)
        self._shut_down(list(self._specs), tell)
        await self._supervisor.stop_all(_STAGE_STOP_SECONDS)

    async def kill_all(self) -> None:
        """End everything now: the router itself cannot go on."""
        self._stopping = True
        await self._supervisor.stop_all(0.0)

    def _shut_down(self, identities: list[str], tell: Callable[[str], None]) -> None:
        """Shutdown by message; a child that is still starting knows no messages and is terminated."""
        for identity in identities:
            state = self._states.get(identity)
            if state is None:
                continue
            state.planned_exit = True
            if state.ready:
                tell(identity)
            else:
                self._supervisor.terminate(identity)

    def _current(self, identity: str, pid: int) -> _State | None:
        if self._supervisor.pid(identity) != pid:
            logger.info("a late message of %s (process %d, which is gone) is ignored", identity, pid)
            return None
        return self._states.get(identity)

    async def _start_stage(self, spec: ProcessSpec) -> None:
        arguments = ["--stage", spec.kind, "--identity", spec.identity, *self._arguments]
        if spec.style:
            arguments += ["--style", spec.style]
        threads = getattr(self._plan.threads, spec.kind)
        if spec.kind == "llm" and self._plan.decode_process_num == 0:
            threads = max(threads, self._plan.threads.decode)
        self._states[spec.identity] = _State(time.monotonic())
        environment = _thread_environment(threads)
        await self._supervisor.start(spec.identity, "ttsfleet_runtime.host", arguments, environment=environment)

    async def _start_http(self) -> None:
        if self._stopping:
            return
        identity = f"http-{self._http_count}"
        self._http_count += 1
        self._states[identity] = _State(time.monotonic())
        await self._supervisor.start(
            identity,
            "ttsfleet_runtime.server.worker",
            ["--identity", identity, *self._http_arguments],
            environment=_thread_environment(1),
            pass_fds=[self._listener_fd],
        )

    def _exited(self, identity: str, code: int) -> None:
        state = self._states.pop(identity)
        is_http = identity not in self._specs
        self._on_lost(identity, is_http)
        if self._stopping or (state.planned_exit and is_http):
            return
        logger.error("%s exited with status %d", identity, code)
        self._spawn(self._restart(identity, time.monotonic() - state.started), f"restart of {identity}")

    async def _restart(self, identity: str, ran_seconds: float) -> None:
        """Start again: at once after a long life, with a growing pause after short ones."""
        spec = self._specs.get(identity)
        kind = "http" if spec is None else identity
        delay = _FIRST_BACKOFF_SECONDS if ran_seconds > _STABLE_SECONDS else self._backoff.get(kind, 0.0)
        delay = max(delay, _FIRST_BACKOFF_SECONDS)
        self._backoff[kind] = min(delay * 2, _MAX_BACKOFF_SECONDS)
        await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # jitter: not all children at once
        if self._stopping:
            return
        if spec is None:
            await self._start_http()
        else:
            await self._start_stage(spec)


def _thread_environment(num_threads: int) -> dict[str, str]:
    """Passive waiting: two stages that spin on two cores were measured 30 times slower.

    oneDNN keeps compiled kernels per length, 1,024 by default: 120 MiB in a decoder, which saved it no time.
    """
    return {
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
        "OMP_NUM_THREADS": str(num_threads),
        "MKL_NUM_THREADS": str(num_threads),
        "OPENBLAS_NUM_THREADS": str(num_threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "RAYON_NUM_THREADS": str(num_threads),
    }
