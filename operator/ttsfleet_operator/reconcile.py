"""The path of a resource, top to bottom: TTSService → observe → plan → manifests → apply → status.

Level-based: each call looks at everything and writes only what differs, so it may be called at any time, any number
of times, and cut off after any write. `handlers` and timers put keys into the queue that calls it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from ttsfleet_operator.api.manifest import parse_service
from ttsfleet_operator.cluster.api_errors import NamespaceEndsError
from ttsfleet_operator.cluster.client import KubernetesClient, Manifest
from ttsfleet_operator.cluster.kinds import SCALERS
from ttsfleet_operator.cluster.stores import ObjectKey
from ttsfleet_operator.cluster.writer import ChildWriter, Outcome
from ttsfleet_operator.errors import ManifestError
from ttsfleet_operator.fleet.plan import FleetPlan, plan_fleet
from ttsfleet_operator.fleet.settings import FleetSettings, referenced_keys
from ttsfleet_operator.manifests.fleet_objects import render_fleet
from ttsfleet_operator.manifests.pod_template import pod_template
from ttsfleet_operator.observe import REFERENCES_EVERY_SECONDS, TROUBLE_AFTER_SECONDS, Observation, Observer, View
from ttsfleet_operator.operator_metrics import OperatorMetrics
from ttsfleet_operator.operator_settings import OperatorSettings
from ttsfleet_operator.report import Reporter
from ttsfleet_operator.status.build import build_status
from ttsfleet_operator.status.observed import ObservedFleet
from ttsfleet_operator.status.pace import look_again_seconds
from ttsfleet_operator.version_skew import refused_image

logger = logging.getLogger(__name__)

CONFLICT_SECONDS = 30.0
LEFTOVER_SECONDS = 2.0
REFUSED_SECONDS = 60.0
SLOWEST_LOOK_SECONDS = 60.0


class Reconciler:
    """Makes one service so. The queue guarantees that no two calls for one key run at a time."""

    def __init__(
        self,
        client: KubernetesClient,
        view: View,
        settings: OperatorSettings,
        metrics: OperatorMetrics,
        clock: Callable[[], float],
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._view = view
        self._settings = settings
        self._metrics = metrics
        self._wall = wall
        self._observer = Observer(client, view, wall, clock, settings.fleet)
        self._writer = ChildWriter(client, view, clock, metrics.write)
        self._reporter = Reporter(client, view.services, metrics.write)

    async def reconcile(self, key: ObjectKey) -> float | None:
        """Make the service so; seconds until it must be looked at again although nothing is reported.

        A deleted service needs nothing: its children carry owner references. Raises APIError when the API server does
        not answer; the queue tries again.
        """
        raw = self._view.services.get(key)
        if raw is None or raw["metadata"].get("deletionTimestamp"):
            self._forget(key)
            return None
        with self._metrics.reconcile():
            try:
                service = parse_service(raw)
            except ManifestError as error:
                return await self._reporter.report_unreadable(raw, error, self._wall())
            seen = await self._observer.observe(service, raw)
            plan = self._plan(seen)
            try:
                outcome = await self._apply(seen, plan)
            except NamespaceEndsError:
                return None
            return await self._report(seen, plan, outcome)

    def recheck(self) -> None:
        """Forget what was concluded from objects that are not watched."""
        self._writer.recheck()

    def _plan(self, seen: Observation) -> FleetPlan:
        return plan_fleet(
            seen.service, seen.table, seen.nodes, seen.running, self._fleet_settings(), seen.references, pod_template
        )

    async def _apply(self, seen: Observation, plan: FleetPlan) -> Outcome:
        if seen.paused or self._refused_image(seen):
            return Outcome()
        manifests, uid = self._manifests(seen, plan), seen.service.metadata.uid
        outcome = await self._writer.apply(seen.key, uid, manifests)
        classes = {one.name for one in seen.service.spec.hardware.classes}
        await self._writer.prune(seen.key, uid, manifests, classes, outcome)
        return outcome

    def _manifests(self, seen: Observation, plan: FleetPlan) -> list[Manifest]:
        without_surge = {name for name, surge in seen.surges.items() if surge.without_surge}
        return render_fleet(plan, self._fleet_settings(), without_surge=without_surge)

    async def _report(self, seen: Observation, plan: FleetPlan, outcome: Outcome) -> float | None:
        observed = ObservedFleet(
            classes=self._observer.refreshed(seen),
            service_present=self._observer.has_service(seen),
            name_conflicts=tuple(outcome.name_conflicts),
            field_conflicts=tuple(outcome.field_conflicts),
            foreign_scalers=await self._foreign_scalers(seen, outcome),
            refusals=tuple(outcome.refusals),
            undeleted=tuple(outcome.undeleted),
            version_skew=self._refused_image(seen),
            release=self._settings.fleet.release,
            paused=seen.paused,
            lost_nodes=seen.lost_nodes,
        )
        status = build_status(seen.service, plan, observed, seen.previous_status, seen.now)
        wait = await self._reporter.report(seen.service, seen.previous_status, status, seen.now)
        ready = any((one["type"], one["status"]) == ("Ready", "True") for one in status["conditions"])
        self._metrics.service(seen.key, ready, status["desiredReplicas"], status["readyReplicas"])
        return _earliest(wait, _next_look(seen, outcome, look_again_seconds(status)))

    async def _foreign_scalers(self, seen: Observation, outcome: Outcome) -> tuple[str, ...]:
        """Who scales a Deployment of ours, when somebody does: an autoscaler that aims at it, or an unknown."""
        if not outcome.scaled:
            return ()
        names = set(outcome.scaled)
        found = []
        for scaler in await self._client.list_all(SCALERS, seen.key.namespace):
            target = scaler["spec"]["scaleTargetRef"]
            if target.get("kind") == "Deployment" and target.get("name") in names:
                found.append(f"HorizontalPodAutoscaler/{scaler['metadata']['name']}")
                names.discard(target["name"])
        return tuple(sorted(found) + sorted(f"a writer of Deployment/{name}'s replicas" for name in names))

    def _refused_image(self, seen: Observation) -> str:
        runtime = seen.service.spec.runtime
        fleet = self._settings.fleet
        return refused_image(runtime.image if runtime is not None else "", fleet.runtime_image, fleet.release)

    def _fleet_settings(self) -> FleetSettings:
        fleet = self._settings.fleet
        return replace(
            fleet,
            service_monitors=self._settings.service_monitors and self._view.has_service_monitors,
            denied_networks=tuple(dict.fromkeys((*fleet.denied_networks, *self._view.api_servers))),
        )

    def _forget(self, key: ObjectKey) -> None:
        self._observer.forget(key)
        self._writer.forget(key)
        self._reporter.forget(key)
        self._metrics.forget(key)


def _next_look(seen: Observation, outcome: Outcome, troubled: float | None) -> float | None:
    """When to look at what is not watched. The longer a trouble lasts, the less often: it costs a list of pods."""
    looks: list[float | None] = [surge.look_again_seconds for surge in seen.surges.values()]
    if seen.unsettled_seconds is not None:
        looks.append(max(TROUBLE_AFTER_SECONDS - seen.unsettled_seconds, min(seen.unsettled_seconds, 10.0), 0.5))
    if troubled is not None:
        age = seen.unsettled_seconds or 0.0
        looks.append(min(SLOWEST_LOOK_SECONDS, max(troubled, age / 4)))
    if referenced_keys(seen.service) or "" in seen.references.hashes.values():
        looks.append(REFERENCES_EVERY_SECONDS)
    if outcome.name_conflicts or outcome.scaled:
        looks.append(CONFLICT_SECONDS)
    if outcome.leftovers:
        looks.append(LEFTOVER_SECONDS)
    if outcome.refusals or outcome.undeleted:
        looks.append(REFUSED_SECONDS)
    return _earliest(*looks)


def _earliest(*seconds: float | None) -> float | None:
    known = [one for one in seconds if one is not None]
    return min(known) if known else None
