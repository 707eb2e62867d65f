"""Leader election over a coordination.k8s.io Lease, on the operator's own event loop.

The loop that reconciles is the loop that renews: an operator that hangs loses its Lease. A candidate takes over
when it has itself seen no renewal for the whole duration, by its own clock (clocks of machines differ). A leader that
could not renew until `renew_deadline_seconds` stops being one before another may start: `lost` is called, which must
end the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from ttsfleet_operator.cluster.api_errors import AlreadyExistsError, APIError, ConflictError, NotFoundError
from ttsfleet_operator.cluster.client import Manifest
from ttsfleet_operator.cluster.kinds import LEASES, Kind

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseSettings:
    """Who asks for which Lease. A leader renews each `retry_seconds` and gives up after `renew_deadline_seconds`."""

    namespace: str
    name: str
    identity: str
    duration_seconds: int = 15
    renew_deadline_seconds: float = 10.0
    retry_seconds: float = 3.0


class LeaseClient(Protocol):
    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest: ...
    async def create(self, kind: Kind, manifest: Manifest) -> Manifest: ...
    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest: ...


@dataclass
class LeaderElection:
    """`won` is called once, when this process becomes the leader; `lost` when it no longer is."""

    settings: LeaseSettings
    client: LeaseClient
    won: Callable[[], None]
    lost: Callable[[], None]
    clock: Callable[[], float] = field(default_factory=lambda: asyncio.get_running_loop().time)
    wall: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __post_init__(self) -> None:
        self.is_leader = False
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = self.clock()
        self._renewed_at = 0.0

    async def run(self) -> None:
        """Ask for the Lease for ever; returns only after `lost`."""
        while True:
            held = await self._attempt()
            if held and not self.is_leader:
                self.is_leader = True
                logger.info("this operator leads (%s)", self.settings.identity)
                self.won()
            if self.is_leader and self._is_lost(held):
                self.is_leader = False
                logger.error("the Lease %s is lost", self.settings.name)
                self.lost()
                return
            await self.sleep(self.settings.retry_seconds)

    async def release(self) -> None:
        """Give the Lease back, so that another need not wait for its end. Failures do not matter."""
        if not self.is_leader:
            return
        self.is_leader = False
        try:
            lease = await self.client.get(LEASES, self.settings.namespace, self.settings.name)
            if lease["spec"].get("holderIdentity") == self.settings.identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self.client.replace(LEASES, lease)
        except APIError as error:
            logger.warning("the Lease could not be given back: %s", error)

    def _is_lost(self, held: bool | None) -> bool:
        if held is False:
            return True
        return self.clock() - self._renewed_at > self.settings.renew_deadline_seconds

    async def _attempt(self) -> bool | None:
        """True: held now. False: someone else's. None: no answer, so unknown."""
        started = self.clock()
        try:
            held = await asyncio.wait_for(self._acquire_or_renew(), timeout=self._patience_seconds(started))
        except (ConflictError, AlreadyExistsError):
            return None
        except (APIError, TimeoutError) as error:
            logger.warning("the Lease %s: no answer: %s", self.settings.name, error)
            return None
        if held:
            self._renewed_at = started
        return held

    def _patience_seconds(self, now: float) -> float:
        """How long an attempt may take. A leader's ends a second before another may take over; one that is late
        (this process was held up) is short, since another may lead already."""
        deadline = self.settings.renew_deadline_seconds
        if not self.is_leader:
            return deadline
        return max(1.0, min(deadline, self._renewed_at + self.settings.duration_seconds - 1.0 - now))

    async def _acquire_or_renew(self) -> bool:
        settings = self.settings
        try:
            lease = await self.client.get(LEASES, settings.namespace, settings.name)
        except NotFoundError:
            metadata = {"name": settings.name, "namespace": settings.namespace}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
            await self.client.create(LEASES, body | {"spec": self._spec({}, acquired=True)})
            return True
        spec = lease.setdefault("spec", {})
        holder = spec.get("holderIdentity") or ""
        if holder and holder != settings.identity and not self._expired(spec):
            return False
        lease["spec"] = self._spec(spec, acquired=holder != settings.identity)
        await self.client.replace(LEASES, lease)
        return True

    def _expired(self, spec: Manifest) -> bool:
        """Whether this process has seen the same renewal for the whole duration."""
        record = (str(spec.get("holderIdentity")), str(spec.get("renewTime")))
        if record != self._seen:
            self._seen, self._seen_at = record, self.clock()
        return self.clock() - self._seen_at > float(spec.get("leaseDurationSeconds") or 0)

    def _spec(self, before: Manifest, *, acquired: bool) -> Manifest:
        now = self.wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = before | {
            "holderIdentity": self.settings.identity,
            "leaseDurationSeconds": self.settings.duration_seconds,
            "renewTime": now,
        }
        if acquired:
            spec |= {"acquireTime": now, "leaseTransitions": int(before.get("leaseTransitions") or 0) + bool(before)}
        return spec
