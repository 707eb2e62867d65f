"""What a process uses, from /proc, and what a Prometheus histogram says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Sample:
    """What a process held at a time: seconds since the series began, bytes resident, CPU-seconds so far."""

    seconds: float
    resident_bytes: int
    cpu_seconds: float


def cpu_seconds(pid: int) -> float:
    """The processor time of a process, in user and kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    return _memory(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most that a process ever had resident."""
    return _memory(pid, "VmHWM")


@contextlib.asynccontextmanager
async def sampled(pid: int) -> AsyncIterator[list[Sample]]:
    """A list that grows by a sample every half second until the block ends."""
    samples: list[Sample] = []
    started = time.monotonic()

    async def sample() -> None:
        while True:
            samples.append(Sample(time.monotonic() - started, resident_bytes(pid), cpu_seconds(pid)))
            await asyncio.sleep(SAMPLE_SECONDS)

    task = asyncio.create_task(sample())
    try:
        yield samples
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def buckets(metrics: str, name: str) -> dict[float, float]:
    """The cumulative counts of a histogram by upper bound."""
    found = re.findall(rf'^{name}_bucket{{le="([^"]+)"}} (\S+)$', metrics, re.MULTILINE)
    return {float(bound): float(count) for bound, count in found}


def quantile(share: float, before: Mapping[float, float], after: Mapping[float, float]) -> float:
    """The quantile of what came between two readings, linear within its bucket, as PromQL's histogram_quantile.

    The last finite bound stands for what is above it; 0 when nothing came.
    """
    grown = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    rank = share * max(grown.values(), default=0.0)
    lower, below = 0.0, 0.0
    for bound, count in grown.items():
        if count >= rank > 0:
            inside = count - below
            return lower if bound == float("inf") else lower + (bound - lower) * (rank - below) / inside
        lower, below = bound, count
    return 0.0


def _memory(pid: int, field: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    match = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
