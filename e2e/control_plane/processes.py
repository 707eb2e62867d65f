"""The processes of one control plane: started with a log each, and ended with the process that started them.

A child ends with its parent even when that is killed: the kernel sends SIGKILL. It does so when the *thread* that
started the child ends, so every child is started by one thread that lives as long as this object.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from control_plane.errors import StartFailed

GUARD = Path(__file__).with_name("process_guard.py")
# Below the ports that the kernel gives to outgoing connections, so that none of those takes a port before its server.
PORTS = range(20000, 32000)


class Processes:
    """Named child processes with their logs in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="control-plane-starter")

    def start(self, name: str, command: Sequence[str | Path], environment: dict[str, str] | None = None) -> int:
        """Starts a command and returns its pid."""
        with self.log(name).open("ab") as log:
            self._running[name] = self._starter.submit(
                subprocess.Popen,
                [*guarded(), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            ).result()
        return self._running[name].pid

    def kill(self, name: str) -> None:
        """Kills a process and waits for its end; nothing happens when it is not running."""
        process = self._running.pop(name, None)
        if process:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()

    def stop(self) -> None:
        """Kills all processes, the last started first. What they keep is thrown away, so none is asked politely."""
        for process in self._running.values():
            process.kill()
        for name in reversed(list(self._running)):
            self.kill(name)
        self._starter.shutdown()

    def pids(self) -> dict[str, int]:
        """The pids of the processes that were started and not stopped."""
        return {name: process.pid for name, process in self._running.items()}

    def log(self, name: str) -> Path:
        """The log of a process: stdout and stderr."""
        return self._folder / f"{name}.log"

    def require_running(self) -> None:
        """Raises:
        StartFailed: a process has ended by itself; its last lines are in the message.
        """
        # A copy, for other threads may start something meanwhile.
        for name, process in tuple(self._running.items()):
            if process.poll() is not None:
                raise StartFailed(f"{name} ended with {process.returncode}; its last lines:\n{self.last_lines(name)}")

    def last_lines(self, name: str, count: int = 15) -> str:
        """The end of a process's log."""
        return "\n".join(self.log(name).read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def guarded() -> list[str]:
    """What stands before a command that has to end with the thread that starts it."""
    return [sys.executable, "-I", "-S", str(GUARD), str(os.getpid())]


def processes_below(parent: int) -> list[str]:
    """The command lines of the processes that a process has started and that have not ended (zombies have none)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(stat.with_name("cmdline").read_text().replace("\0", " ").strip())
    return [command for command in found if command]


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody listens on just now, all different."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            candidate = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                candidate.bind(("127.0.0.1", random.choice(PORTS)))
                ports.append(candidate.getsockname()[1])
        return ports
