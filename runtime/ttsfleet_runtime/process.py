"""What every child process does first: die with its parent, leave Ctrl-C to it, and log to stderr in one shape."""

from __future__ import annotations

import ctypes
import logging
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies (Linux), so a lost router leaves no orphans.

    `parent_pid` is the parent's id as the parent knew it: if it has died already, exit now.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        raise SystemExit(f"parent process {parent_pid} is gone")


def ignore_interrupt() -> None:
    """Ctrl-C reaches the whole process group; only the router acts on it and tells its children."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def configure_logging(identity: str, level: int = logging.INFO) -> None:
    """One line per event on stderr: time, level, process, logger, message."""
    logging.basicConfig(level=level, format=f"%(asctime)s %(levelname)s {identity} %(name)s: %(message)s", force=True)
    for noisy in ("httpx", "httpcore", "uvicorn.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
