"""What a scale run found, and the limits that it is held against. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from control_plane.scale.usage import Sample

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Growth:
    """Something that was done to all services. `arrivals`: seconds until each was as wanted, sorted.

    `written_seconds`: when the writers were done. The rest is the operator's part; a script has none of it.
    """

    seconds: float
    written_seconds: float
    arrivals: tuple[float, ...]
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    reconciles: int = 0
    reconcile_p50_seconds: float = 0.0
    reconcile_p99_seconds: float = 0.0
    writes: Mapping[str, int] | None = None
    samples: tuple[Sample, ...] = ()
    control_plane_cpu_seconds: Mapping[str, float] | None = None

    @property
    def num_writes(self) -> int:
        return sum((self.writes or {}).values())


@dataclass(frozen=True)
class Restart:
    """An operator that starts over a cluster in which everything is as wanted. Seconds since its process began."""

    ready_seconds: float
    settled_seconds: float
    peak_bytes: int
    resident_bytes: int
    cpu_seconds: float
    writes: Mapping[str, int]
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class ScaleResult:
    services: int
    nodes: int
    creators: int
    date: str
    cpus: int
    load_before: float
    baseline: Growth
    creation: Growth
    restart: Restart
    change: Growth

    @property
    def ratio(self) -> float:
        """The operator's time as a multiple of the script's."""
        return self.creation.seconds / self.baseline.seconds

    def as_json(self) -> dict[str, Any]:
        limits = [asdict(one) | {"held": one.held} for one in self.limits()]
        return {**asdict(self), "ratio": self.ratio, "limits": limits}

    def limits(self) -> list[Limit]:
        """The figures that have a limit, for a thousand services on two cores."""
        creation, restart, count = self.creation, self.restart, self.services
        return [
            Limit("all converged, from the first create", creation.seconds, 240, "s"),
            Limit("the same over the script that applies", self.ratio, 1.3, "times"),
            Limit("operator CPU per service", creation.cpu_seconds / count * 1000, 30, "ms"),
            Limit("write requests per service", creation.num_writes / count, 12, ""),
            Limit("operator memory while growing, peak", creation.peak_bytes / MEGABYTE, 200, "MB"),
            Limit("operator memory after a restart, peak", restart.peak_bytes / MEGABYTE, 350, "MB"),
            Limit("a restart settles in", restart.settled_seconds, 30, "s"),
            Limit("writes after a restart", sum(restart.writes.values()), 0, ""),
        ]

    def others(self) -> list[tuple[str, str]]:
        """The figures without a limit, as name and text."""
        creation, change, restart = self.creation, self.change, self.restart
        return [
            ("the script: all Deployments available", f"{self.baseline.seconds:.0f} s"),
            ("all TTSServices created after", f"{creation.written_seconds:.1f} s"),
            ("a reconcile while growing, p50 / p99", _milliseconds(creation)),
            ("reconciles while growing, per service", f"{creation.reconciles / self.services:.1f}"),
            ("a spec change to all: converged", f"{change.seconds:.0f} s"),
            ("operator CPU per changed service", f"{change.cpu_seconds / self.services * 1000:.1f} ms"),
            ("write requests per changed service", f"{change.num_writes / self.services:.1f}"),
            ("a reconcile during the change, p50 / p99", _milliseconds(change)),
            ("operator memory at the end of the change, peak", f"{change.peak_bytes / MEGABYTE:.0f} MB"),
            ("operator memory after a restart, at rest", f"{restart.resident_bytes / MEGABYTE:.0f} MB"),
            ("a restart is ready after", f"{restart.ready_seconds:.1f} s"),
            ("operator CPU of a restart", f"{restart.cpu_seconds:.1f} s"),
        ]


@dataclass(frozen=True)
class Limit:
    name: str
    value: float
    most: float
    unit: str

    @property
    def held(self) -> bool:
        return self.value <= self.most


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the sorted values does not exceed."""
    return values[min(len(values) - 1, round(share * len(values)))] if values else 0.0


def _milliseconds(growth: Growth) -> str:
    return f"{growth.reconcile_p50_seconds * 1000:.0f} / {growth.reconcile_p99_seconds * 1000:.0f} ms"
