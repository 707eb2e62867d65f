"""What a scale run found, and the limits that it is held against. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
    """What is known so far. A phase that is None did not come to its end; `failures` says why, by its name."""

    services: int
    nodes: int
    creators: int
    date: str
    cpus: int
    load_before: float
    baseline: Growth | None = None
    creation: Growth | None = None
    restart: Restart | None = None
    change: Growth | None = None
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The operator's time as a multiple of the script's."""
        if self.creation is None or self.baseline is None:
            return None
        return self.creation.seconds / self.baseline.seconds

    @property
    def held(self) -> bool:
        """Whether every limit was measured and held."""
        return not self.failures and all(one.held for one in self.limits())

    def as_json(self) -> dict[str, Any]:
        limits = [asdict(one) | {"verdict": one.verdict} for one in self.limits()]
        return {**asdict(self), "ratio": self.ratio, "limits": limits}

    def limits(self) -> list[Limit]:
        """The figures that have a limit, for a thousand services on two cores."""
        count = self.services

        def growth(figure: Callable[[Growth], float]) -> float | None:
            return None if self.creation is None else figure(self.creation)

        def restart(figure: Callable[[Restart], float]) -> float | None:
            return None if self.restart is None else figure(self.restart)

        return [
            Limit("all converged, from the first create", growth(lambda one: one.seconds), 240, "s"),
            Limit("the same over the script that applies", self.ratio, 1.3, "times"),
            Limit("operator CPU per service", growth(lambda one: one.cpu_seconds / count * 1000), 30, "ms"),
            Limit("write requests per service", growth(lambda one: one.num_writes / count), 12, ""),
            Limit("operator memory while growing, peak", growth(lambda one: one.peak_bytes / MEGABYTE), 200, "MB"),
            Limit("operator memory after a restart, peak", restart(lambda one: one.peak_bytes / MEGABYTE), 350, "MB"),
            Limit("a restart settles in", restart(lambda one: one.settled_seconds), 30, "s"),
            Limit("writes after a restart", restart(lambda one: sum(one.writes.values())), 0, ""),
        ]

    def others(self) -> list[tuple[str, str]]:
        """The figures without a limit, as name and text."""
        found: list[tuple[str, str]] = []
        if self.baseline is not None:
            found.append(("the script: all Deployments available", f"{self.baseline.seconds:.0f} s"))
        if self.creation is not None:
            found += [
                ("all TTSServices created after", f"{self.creation.written_seconds:.1f} s"),
                ("a reconcile while growing, p50 / p99", _milliseconds(self.creation)),
                ("reconciles while growing, per service", f"{self.creation.reconciles / self.services:.1f}"),
            ]
        if self.change is not None:
            found += [
                ("a spec change to all: converged", f"{self.change.seconds:.0f} s"),
                ("operator CPU per changed service", f"{self.change.cpu_seconds / self.services * 1000:.1f} ms"),
                ("write requests per changed service", f"{self.change.num_writes / self.services:.1f}"),
                ("a reconcile during the change, p50 / p99", _milliseconds(self.change)),
                ("operator memory at the end of the change, peak", f"{self.change.peak_bytes / MEGABYTE:.0f} MB"),
            ]
        if self.restart is not None:
            found += [
                ("operator memory after a restart, at rest", f"{self.restart.resident_bytes / MEGABYTE:.0f} MB"),
                ("a restart is ready after", f"{self.restart.ready_seconds:.1f} s"),
                ("operator CPU of a restart", f"{self.restart.cpu_seconds:.1f} s"),
            ]
        return found


@dataclass(frozen=True)
class Limit:
    """A figure and the most that it may be. None was not measured, which is not held."""

    name: str
    value: float | None
    most: float
    unit: str

    @property
    def held(self) -> bool:
        return self.value is not None and self.value <= self.most

    @property
    def verdict(self) -> str:
        return "not measured" if self.value is None else "held" if self.held else "missed"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the sorted values does not exceed."""
    return values[min(len(values) - 1, round(share * len(values)))] if values else 0.0


def _milliseconds(growth: Growth) -> str:
    return f"{growth.reconcile_p50_seconds * 1000:.0f} / {growth.reconcile_p99_seconds * 1000:.0f} ms"
