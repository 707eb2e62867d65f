"""Gives heap pages that nothing uses back to the kernel.

Buffers of ever new lengths leave holes between what stays: after 250 requests of mixed lengths a decoder on the CPU
held 440 MiB in use and 420 MiB of holes, and went on growing. glibc returns holes only when asked (`malloc_trim`,
which takes tens of milliseconds, and the pages fault in again). So: once after `REST_SECONDS` without work, when
nobody waits, and every `BUSY_SECONDS` of lasting work. Where the C library has no such call, nothing is done.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

REST_SECONDS = 10.0
BUSY_SECONDS = 60.0


def _glibc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return None
    trim.argtypes = [ctypes.c_size_t]
    return lambda keep_bytes: int(trim(keep_bytes))


class HeapTrimmer:
    """Told about work by the loop of one process; trims when it is time. Times are CLOCK_MONOTONIC seconds."""

    def __init__(self, now: float, trim: Callable[[int], int] | None = None) -> None:
        self._trim = trim or _glibc_trim()
        self._last_trim = now
        self._last_work = -1.0

    def worked(self, now: float) -> None:
        self._last_work = now

    def trim_if_due(self, now: float) -> bool:
        """Trim after a rest, or after much work; True when it did. Without work since the last time: never."""
        if self._trim is None or self._last_work < self._last_trim:
            return False
        if now - self._last_work < REST_SECONDS and now - self._last_trim < BUSY_SECONDS:
            return False
        self._trim(0)
        self._last_trim = now
        return True
