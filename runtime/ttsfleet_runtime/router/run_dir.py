"""The run directory: sockets, voice entries and the plan of one running router, in shared memory.

It is locked while its router lives, so the next one can tell what a killed router left behind, and remove it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "ttsfleet-"
_SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def run_directory(parent: Path | None = None) -> Iterator[Path]:
    """A new locked directory below `parent` (default: shared memory), removed at the end."""
    parent = parent or (_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir()))
    remove_abandoned(parent)
    # Locked before it gets the name by which others look for abandoned ones.
    hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
    lock = os.open(hidden / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    directory = hidden.rename(parent / hidden.name.removeprefix("."))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def remove_abandoned(parent: Path) -> list[Path]:
    """Remove the run directories of routers that are gone; returns them."""
    removed = []
    for directory in sorted(parent.glob(f"{_PREFIX}*")):
        try:
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # not ours, or of another user
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(directory, ignore_errors=True)
            removed.append(directory)
        finally:
            os.close(lock)
    return removed
