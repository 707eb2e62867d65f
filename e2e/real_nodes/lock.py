"""One cluster at a time on a machine: its names and addresses are constants."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from control_plane.errors import ControlPlaneError
from real_nodes.layout import LOCK


class ClusterRunning(ControlPlaneError):
    """Another process has a cluster of real nodes on this machine."""


class Lock:
    """Held from `acquire` to `release`, or to the end of the process. The file is removed with it."""

    def __init__(self, path: Path = LOCK) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        return self._descriptor is not None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            ClusterRunning: with the pid of the process that has it.
        """
        while self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(descriptor, 100).decode().strip()
                os.close(descriptor)
                raise ClusterRunning(
                    f"process {holder or '(unknown)'} has a cluster of real nodes on this machine ({self._path}); "
                    "there can be one at a time, because their names and addresses are constants: wait for its end"
                ) from error
            # The holder before us may have removed the file after we opened it.
            if self._path.exists() and os.path.samestat(os.fstat(descriptor), self._path.stat()):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                self._descriptor = descriptor
            else:
                os.close(descriptor)

    def release(self) -> None:
        """Gives the lock back. It can be called twice."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
