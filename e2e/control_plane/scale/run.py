"""The steps of the scale run: a script applies what the operator would; the operator does it; a restart; a change.

Their order is that of phases.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from control_plane.operator_process import OperatorProcess
from control_plane.plane import ControlPlane
from control_plane.scale import usage
from control_plane.scale.crowd import (
    GPUS_PER_NODE,
    KINDS_OF_GPU,
    Manifest,
    available,
    converged,
    crowd,
    namespaces,
    rendered,
)
from control_plane.scale.load import Arrivals, Load, Told, in_parallel, untold
from control_plane.scale.results import Growth, Restart
from control_plane.speech import install_definitions
from control_plane.waiting import eventually
from ttsfleet_operator.cluster.kinds import DEPLOYMENTS, SERVICES_OF_USERS, kind_of
from ttsfleet_operator.cluster.stores import key_of

USER = "scale-operator"
BASELINE, CROWD = "baseline", "crowd"
CHANGE = {"spec": {"engine": {"cache_capacity": 7}}}
RECONCILES = "ttsfleet_reconcile_duration_seconds"
# Longer than a status may be held back (10 s), so that every late write is seen.
QUIET_SECONDS = 15.0

Act = Callable[[Manifest], Awaitable[object]]


@dataclass(frozen=True)
class ScaleSettings:
    services: int = 1000
    nodes: int = 500
    creators: int = 16
    within_seconds: float = 1200.0


def prepare(plane: ControlPlane, settings: ScaleSettings, prefixes: Sequence[str] = (CROWD,)) -> None:
    """Definitions, GPU nodes of four kinds, and namespaces with their service accounts."""
    install_definitions(plane)
    for number, kind in enumerate(KINDS_OF_GPU):
        plane.nodes(kind, len(range(number, settings.nodes, len(KINDS_OF_GPU))), gpus=GPUS_PER_NODE)
    rooms = {room for prefix in prefixes for room in namespaces(prefix)}
    plane.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": room}} for room in sorted(rooms)))

    def have_accounts() -> bool:
        return rooms <= {one["metadata"]["namespace"] for one in plane.get("serviceaccounts")}

    eventually(have_accounts, "every namespace has its service account", 60, every=0.5)


def start_operator(plane: ControlPlane, name: str = "scale-operator-1", **settings: str) -> OperatorProcess:
    """An operator whose writes the audit log tells by its user."""
    return OperatorProcess(plane.kubeconfig_for(USER, ["system:masters"]), name, **settings)


def has_looked_at_all(operator: OperatorProcess, services: int) -> bool:
    """Whether an operator has reconciled as many times as there are services, and none waits."""
    done = operator.metric(f"{RECONCILES}_count") >= services
    return done and operator.metric("ttsfleet_queue_depth") == 0


def writes_of_operator(plane: ControlPlane, mark: int) -> Counter[str]:
    """Its write requests since `mark`, without its Lease, as `patch deployments` or `patch ttsservices/status`."""
    found = plane.audit(since=mark, user=USER, writes=True)
    return Counter(
        f"{one.verb} {'/'.join(part for part in (one.resource, one.subresource) if part)}"
        for one in found
        if one.resource != "leases"
    )


class ScaleRun:
    """One step per method; `told` gets the number of objects that are as wanted."""

    def __init__(
        self, plane: ControlPlane, load: Load, settings: ScaleSettings, operator: OperatorProcess | None = None
    ) -> None:
        self._plane = plane
        self._load = load
        self._settings = settings
        self._services = crowd(settings.services, CROWD)
        self._operator = operator

    async def _leading(self) -> OperatorProcess:
        """The operator; a fresh one where none runs."""
        if self._operator is None or not self._operator.running:
            self._operator = start_operator(self._plane)
            await asyncio.to_thread(self._operator.wait_leader)
        return self._operator

    def stop(self) -> None:
        if self._operator is not None:
            self._operator.stop()

    async def apply_by_script(self, told: Told = untold) -> Growth:
        """What the operator is compared with: its children, rendered beforehand, applied by parallel writers."""
        sets = rendered(crowd(self._settings.services, BASELINE), self._plane.get("nodes"))
        deployments = [key_of(child) for children in sets for child in children if child["kind"] == "Deployment"]

        async def apply(children: list[Manifest]) -> None:
            for child in children:
                await self._load.client.apply(kind_of(child), child, "baseline")

        writing = _Timed(in_parallel, self._settings.creators, sets, apply)
        before = self._cpu_of_control_plane()
        within = self._settings.within_seconds
        arrivals = await self._load.write_and_wait(DEPLOYMENTS, deployments, available, writing, within, told)
        return _growth(arrivals, writing.seconds, control_plane_cpu_seconds=self._cpu_since(before))

    async def create_services(self, told: Told = untold) -> Growth:
        """All TTSServices, until each serves."""

        async def create(manifest: Manifest) -> None:
            await self._load.client.create(SERVICES_OF_USERS, manifest)

        return await self._observed(create, 1, told)

    async def change_services(self, told: Told = untold) -> Growth:
        """Another engine parameter for all, until each serves with it."""

        async def change(manifest: Manifest) -> None:
            metadata = manifest["metadata"]
            await self._load.client.merge(SERVICES_OF_USERS, metadata["namespace"], metadata["name"], CHANGE)

        return await self._observed(change, 2, told)

    async def restart(self) -> Restart:
        """A fresh operator over the crowd: how long until it has looked at all, and what it writes."""
        await asyncio.sleep(QUIET_SECONDS)
        await asyncio.to_thread(self.stop)
        mark = self._plane.audit_mark()
        started = time.monotonic()
        operator = self._operator = start_operator(self._plane, "scale-operator-2")
        async with usage.sampled(operator.pid) as samples:
            await asyncio.to_thread(operator.wait_ready, 120)
            ready = time.monotonic() - started
            settled = lambda: has_looked_at_all(operator, self._settings.services)  # noqa: E731
            await asyncio.to_thread(eventually, settled, "settled", 120, 0.2)
            seconds, cpu = time.monotonic() - started, usage.cpu_seconds(operator.pid)
            await asyncio.sleep(QUIET_SECONDS)
        return Restart(
            ready_seconds=ready,
            settled_seconds=seconds,
            peak_bytes=usage.peak_bytes(operator.pid),
            resident_bytes=usage.resident_bytes(operator.pid),
            cpu_seconds=cpu,
            writes=dict(writes_of_operator(self._plane, mark)),
            samples=tuple(samples),
        )

    async def _observed(self, act: Act, generation: int, told: Told) -> Growth:
        """Does something to every service, and takes what the operator spends until all are as wanted."""
        operator = await self._leading()
        writing = _Timed(in_parallel, self._settings.creators, self._services, act)
        mark = self._plane.audit_mark()
        control_plane = self._cpu_of_control_plane()
        before = await asyncio.to_thread(self._reconcile_buckets, operator)
        cpu = usage.cpu_seconds(operator.pid)
        async with usage.sampled(operator.pid) as samples:
            arrivals = await self._load.write_and_wait(
                SERVICES_OF_USERS,
                [key_of(one) for one in self._services],
                lambda raw: converged(raw, generation),
                writing,
                self._settings.within_seconds,
                told,
            )
        cpu = usage.cpu_seconds(operator.pid) - cpu
        spent = self._cpu_since(control_plane)
        after = await asyncio.to_thread(self._reconcile_buckets, operator)
        return _growth(
            arrivals,
            writing.seconds,
            cpu_seconds=cpu,
            peak_bytes=usage.peak_bytes(operator.pid),
            reconciles=round(max(after.values()) - max(before.values())),
            reconcile_p50_seconds=usage.quantile(0.5, before, after),
            reconcile_p99_seconds=usage.quantile(0.99, before, after),
            writes=dict(writes_of_operator(self._plane, mark)),
            samples=tuple(samples),
            control_plane_cpu_seconds=spent,
        )

    def _reconcile_buckets(self, operator: OperatorProcess) -> dict[float, float]:
        return usage.buckets(operator.answer("/metrics")[1], RECONCILES)

    def _cpu_of_control_plane(self) -> dict[str, float]:
        return {name: usage.cpu_seconds(pid) for name, pid in self._plane.processes.pids().items()}

    def _cpu_since(self, before: Mapping[str, float]) -> dict[str, float]:
        return {name: seconds - before[name] for name, seconds in self._cpu_of_control_plane().items()}


class _Timed:
    """A call that notes how long it took."""

    def __init__(self, call: Callable[..., Awaitable[None]], *arguments: object) -> None:
        self._call = call
        self._arguments = arguments
        self.seconds = 0.0

    async def __call__(self) -> None:
        started = time.monotonic()
        await self._call(*self._arguments)
        self.seconds = time.monotonic() - started


def _growth(arrivals: Arrivals, written_seconds: float, **rest: object) -> Growth:
    times = tuple(sorted(arrivals.seconds.values()))
    return Growth(seconds=times[-1], written_seconds=written_seconds, arrivals=times, **rest)  # type: ignore[arg-type]
