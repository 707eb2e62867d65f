"""One fetch at a time per model directory: an flock beside it, which dies with its holder.

flock has no time limit, so it is tried again and again, less and less often. On NFS it is the server's lock, so that
it holds between the nodes of a ReadWriteMany volume too.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ttsfleet_runtime.fetch.failures import Failure, FetchError

_FIRST_PAUSE_SECONDS = 0.05
_LAST_PAUSE_SECONDS = 2.0
_HELD = frozenset({errno.EWOULDBLOCK, errno.EACCES})

logger = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, timeout_seconds: float) -> Iterator[None]:
    """Hold the lock `path`. Raises FetchError when another holds it for longer than `timeout_seconds`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _acquire(descriptor, path, timeout_seconds)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    pause = _FIRST_PAUSE_SECONDS
    while not _try(descriptor, path):
        left = deadline - time.monotonic()
        if left <= 0:
            raise FetchError(
                Failure.LOCK_TIMEOUT,
                f"another process has held {path} for {timeout_seconds:g} s; look at the pods that use the volume",
            )
        if pause == _FIRST_PAUSE_SECONDS:
            logger.info("another process fetches this model; waiting for it at most %g s", timeout_seconds)
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LAST_PAUSE_SECONDS)


def _try(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise FetchError(
            Failure.FAILED, f"{path}: the volume has no file locks ({error.strerror}); use one that does"
        ) from error
    return True
