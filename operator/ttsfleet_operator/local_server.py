"""One runtime on this machine: started from a Launch, watched until it is ready, stopped without leftovers.

The child gets a session of its own, so Ctrl-C in the terminal reaches only us and the drain is ours to order; and it
gets SIGTERM from the kernel should this process vanish.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ttsfleet_operator.engine_config import Command
from ttsfleet_operator.errors import ServerStartError, UsageError
from ttsfleet_operator.launch import Launch

POLL_SECONDS = 0.2
LOG_TAIL_LINES = 20
DEFAULT_DRAIN_SECONDS = 30.0
STOP_MARGIN_SECONDS = 15.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ProcessState:
    """One process of the runtime; `pid` None = not running at this moment."""

    ready: bool
    pid: int | None = None


@dataclass(frozen=True)
class StartState:
    """What is known while the runtime starts. `processes` by identity; empty before it answers."""

    answering: bool = False
    ready: bool = False
    processes: dict[str, ProcessState] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class LocalServer:
    """A running runtime process and its log."""

    def __init__(self, process: asyncio.subprocess.Process, launch: Launch, log: Path, lock: int) -> None:
        self._process = process
        self._launch = launch
        self._log = log
        self._lock = lock

    @classmethod
    async def start(cls, launch: Launch, state_dir: Path) -> LocalServer:
        """Write engine.yaml and start the command; its output goes to `state_dir/runtime.log`.

        Raises ServerStartError when the runtime is not installed, UsageError when a port or the folder is taken.
        """
        check_port_free(launch.placement.host, launch.placement.port, "--port")
        check_port_free(launch.placement.management_host, launch.placement.management_port, "--management-port")
        lock = _lock_state(state_dir)
        try:
            launch.config_path.write_text(launch.engine_yaml, encoding="utf-8")
            log = state_dir / "runtime.log"
            process = await _spawn(launch.command, log)
        except BaseException:
            os.close(lock)
            raise
        _record_server(state_dir, process.pid, launch)
        return cls(process, launch, log, lock)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait_ready(self, timeout_seconds: float, report: Callable[[StartState], None]) -> None:
        """Poll readiness, telling `report` of every state. Raises ServerStartError when it ends or takes too long."""
        deadline = time.monotonic() + timeout_seconds
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            while True:
                if self._process.returncode is not None:
                    code = self._process.returncode
                    raise ServerStartError(
                        f"the runtime ended with exit code {code} before it was ready\n{self.tail()}"
                    )
                state = await read_start_state(client, self._launch.management_url)
                report(state)
                if state.ready:
                    return
                if time.monotonic() > deadline:
                    raise ServerStartError(
                        f"the runtime was not ready after {timeout_seconds:.0f} s: "
                        f"{'; '.join(state.problems) or 'no answer'}\n{self.tail()}"
                    )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), POLL_SECONDS)

    async def wait(self) -> int:
        """Until the process ends; its exit code."""
        return await self._process.wait()

    def terminate(self) -> None:
        """Ask it to drain and end."""
        self._signal(signal.SIGTERM)

    async def stop(self, *, impatient: asyncio.Event | None = None) -> int:
        """Drain and end; after the drain time, or once `impatient` is set, kill it and its children."""
        self.terminate()
        waiters = {asyncio.create_task(self._process.wait())}
        if impatient is not None:
            waiters.add(asyncio.create_task(impatient.wait()))
        _, pending = await asyncio.wait(
            waiters, timeout=self._drain_seconds() + STOP_MARGIN_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        for waiter in pending:
            waiter.cancel()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        code = await self._process.wait()
        if self._lock >= 0:
            self._log.with_name("server.json").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1
        return code

    def tail(self) -> str:
        """The last lines of the log, with its path."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join([*lines[-LOG_TAIL_LINES:], f"(full log: {self._log})"])

    def _drain_seconds(self) -> float:
        rollout = self._launch.service.spec.rollout
        if rollout is None or rollout.drain is None or rollout.drain.max_stream_seconds is None:
            return DEFAULT_DRAIN_SECONDS
        return float(rollout.drain.max_stream_seconds)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


async def read_start_state(client: httpx.AsyncClient, management_url: str) -> StartState:
    """What the management API says now; an unreachable one is a state, not an error."""
    try:
        readiness = await client.get(f"{management_url}/readyz")
        status = await client.get(f"{management_url}/status")
    except httpx.HTTPError:
        return StartState()
    body = _json(readiness)
    problems = body.get("problems", [])
    processes = _json(status).get("processes", {})
    return StartState(
        answering=True,
        ready=readiness.status_code == 200,
        processes={
            name: ProcessState(bool(one.get("ready")), one.get("pid"))
            for name, one in processes.items()
            if isinstance(one, dict)
        },
        problems=tuple(str(problem) for problem in problems),
    )


def find_program(name: str) -> str:
    """The path of a console script: beside this interpreter, else on the PATH. Raises ServerStartError."""
    beside = Path(sys.executable).with_name(name)
    if beside.is_file():
        return str(beside)
    found = shutil.which(name)
    if found is None:
        raise ServerStartError(f"{name} is not installed; install the package ttsfleet-runtime beside this command")
    return found


def check_port_free(host: str, port: int, option: str) -> None:
    """Raise UsageError when nothing could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}; give another {option}") from error


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def running_server(state_dir: Path) -> str | None:
    """The URL of the server that `ttsfleet run` recorded in a state folder and whose process lives."""
    try:
        record = json.loads((state_dir / "server.json").read_text(encoding="utf-8"))
        os.kill(int(record["pid"]), 0)
        return str(record["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lock_state(state_dir: Path) -> int:
    """Make the folder and take it for one server; the descriptor holds the lock. Raises UsageError when taken."""
    state_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(
            f"another ttsfleet serves from {state_dir}; stop it, or give another --state-dir and --port"
        ) from error
    return descriptor


def _record_server(state_dir: Path, pid: int, launch: Launch) -> None:
    record = {"pid": pid, "url": launch.url, "management_url": launch.management_url}
    (state_dir / "server.json").write_text(json.dumps(record), encoding="utf-8")


async def _spawn(command: Command, log: Path) -> asyncio.subprocess.Process:
    libc = ctypes.CDLL(None)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def follow_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    try:
        return await asyncio.create_subprocess_exec(
            find_program(command.arguments[0]),
            *command.arguments[1:],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **command.environment},
            start_new_session=True,
            preexec_fn=follow_parent if sys.platform == "linux" else None,
        )
    finally:
        os.close(output)


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
