"""What there is of one service: its spec, what runs, what it refers to, and the pods of classes in trouble. IO.

Caches answer almost everything. Pods are listed only for a class that has not been fully available for a while: there
is no watch on pods. Events are listed only when one of them waits too long for its volumes. Referenced ConfigMaps
carry no label of ours, so they are read each time, and once a minute.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.cluster.api_errors import ForbiddenError
from ttsfleet_operator.cluster.children import config_map_names, is_owned
from ttsfleet_operator.cluster.client import KubernetesClient, Manifest
from ttsfleet_operator.cluster.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    PODS,
    SERVICES,
)
from ttsfleet_operator.cluster.stores import ObjectKey
from ttsfleet_operator.cluster.view import ClusterView
from ttsfleet_operator.fleet.bundle import (
    DIGEST_ANNOTATION,
    DISTRIBUTION_ANNOTATION,
    INPUTS_ANNOTATION,
    PlanBundle,
    RunningClass,
    read_bundle,
)
from ttsfleet_operator.fleet.nodes import NodeFacts
from ttsfleet_operator.fleet.settings import ConfigMapKey, FleetSettings, References, referenced_keys, takeover_keys
from ttsfleet_operator.labels import CLASS_LABEL, SERVICE_LABEL
from ttsfleet_operator.profiles import ProfileObject, ProfileTable, builtin_profiles
from ttsfleet_operator.status.deployments import read_rollout
from ttsfleet_operator.status.mounts import waits_for_volumes
from ttsfleet_operator.status.observed import ObservedClass
from ttsfleet_operator.surge import WITH_SURGE, SurgeDecision, decide_surge

PAUSED = "ttsfleet.dev/paused"
TROUBLE_AFTER_SECONDS = 3.0
REFERENCES_EVERY_SECONDS = 60.0
MAX_EVENTS = 500

# Warnings about volumes have two reasons, and a field selector cannot say "or": the frequent others are left out.
_VOLUME_WARNINGS = "involvedObject.kind=Pod,type=Warning," + ",".join(
    f"reason!={reason}" for reason in ("BackOff", "Failed", "FailedScheduling", "Unhealthy")
)

logger = logging.getLogger(__name__)

View: TypeAlias = ClusterView[NodeFacts, ProfileObject]


@dataclass(frozen=True)
class Observation:
    """One service as it was seen at `now`.

    running, classes and surges are by class name. `unsettled_seconds`: how long the longest-troubled class has not
    been fully available; None = all are.
    """

    key: ObjectKey
    service: TTSService
    now: datetime
    previous_status: Mapping[str, Any]
    running: Mapping[str, RunningClass]
    classes: Mapping[str, ObservedClass]
    surges: Mapping[str, SurgeDecision]
    references: References
    nodes: tuple[NodeFacts, ...] | None
    table: ProfileTable
    unsettled_seconds: float | None

    @property
    def paused(self) -> bool:
        return self.service.metadata.annotations.get(PAUSED) == "true"

    @property
    def lost_nodes(self) -> frozenset[str]:
        return frozenset(node.name for node in self.nodes or () if not node.ready)


class Observer:
    """`wall` is the time of day, `clock` seconds that only grow."""

    def __init__(
        self,
        client: KubernetesClient,
        view: View,
        wall: Callable[[], datetime],
        clock: Callable[[], float],
        settings: FleetSettings,
    ) -> None:
        self._settings = settings
        self._client = client
        self._view = view
        self._wall = wall
        self._clock = clock
        self._unsettled: dict[ObjectKey, dict[str, float]] = {}
        self._table: tuple[int, ProfileTable] = (-1, builtin_profiles())
        self._nodes: tuple[int, tuple[NodeFacts, ...]] = (-1, ())

    async def observe(self, service: TTSService, raw: Manifest) -> Observation:
        """Everything that the plan and the status need. Raises APIError."""
        key = ObjectKey(service.namespace, service.name)
        now = self._wall()
        deployments = self.deployments(key, service.metadata.uid)
        names = [one.name for one in service.spec.hardware.classes]
        unsettled = self._unsettled_seconds(key, {name: deployments.get(name) for name in names})
        classes: dict[str, ObservedClass] = {}
        surges: dict[str, SurgeDecision] = {}
        for name in names:
            deployment = deployments.get(name)
            seen = await self._class(key, name, deployment, unsettled.get(name), now)
            classes[name] = seen
            surges[name] = (
                decide_surge(service.spec.rollout, deployment, seen.pods, now) if seen.pods_listed else WITH_SURGE
            )
        return Observation(
            key=key,
            service=service,
            now=now,
            previous_status=raw.get("status") or {},
            running=self._running(key, service, deployments),
            classes=classes,
            surges=surges,
            references=await self._references(service),
            nodes=self._node_facts(),
            table=self._profile_table(),
            unsettled_seconds=max(unsettled.values(), default=None),
        )

    def deployments(self, key: ObjectKey, uid: str) -> dict[str, Manifest]:
        """Our Deployments by class name, as they are now."""
        found = self._view.children[DEPLOYMENTS].of_service(key)
        return {one["metadata"]["labels"].get(CLASS_LABEL, ""): one for one in found if is_owned(one, uid)}

    def refreshed(self, seen: Observation) -> dict[str, ObservedClass]:
        """The observed classes with the Deployments as they are after our writes."""
        deployments = self.deployments(seen.key, seen.service.metadata.uid)
        return {name: replace(one, deployment=deployments.get(name)) for name, one in seen.classes.items()}

    def has_service(self, seen: Observation) -> bool:
        live = self._view.child(SERVICES, seen.key)
        return live is not None and is_owned(live, seen.service.metadata.uid)

    def forget(self, key: ObjectKey) -> None:
        self._unsettled.pop(key, None)

    def _unsettled_seconds(self, key: ObjectKey, deployments: Mapping[str, Manifest | None]) -> dict[str, float]:
        """How long each class that is not fully available has not been, as far as this process has seen."""
        now, before = self._clock(), self._unsettled.pop(key, {})
        since = {
            name: before.get(name, now)
            for name, one in deployments.items()
            if one is not None and not read_rollout(one).settled
        }
        if since:
            self._unsettled[key] = since
        return {name: now - began for name, began in since.items()}

    async def _class(
        self, key: ObjectKey, name: str, deployment: Manifest | None, unsettled: float | None, now: datetime
    ) -> ObservedClass:
        if unsettled is None or unsettled < TROUBLE_AFTER_SECONDS:
            return ObservedClass(name, deployment, pods_listed=False)
        selector = f"{SERVICE_LABEL}={key.name},{CLASS_LABEL}={name}"
        pods = await self._client.list_all(PODS, key.namespace, selector)
        waiting = any(waits_for_volumes(pod, now) for pod in pods)
        events = await self._volume_warnings(key.namespace) if waiting else ()
        return ObservedClass(name, deployment, pods=tuple(pods), events=events)

    async def _volume_warnings(self, namespace: str) -> tuple[Manifest, ...]:
        """What kubelets say of volumes in the namespace, in one list of bounded length; () where it is forbidden."""
        query = {"fieldSelector": _VOLUME_WARNINGS, "limit": str(MAX_EVENTS)}
        try:
            answer = await self._client.request("GET", EVENTS.path(namespace), query=query)
        except ForbiddenError as error:
            logger.warning("why a pod waits for its volumes is not known: %s", error)
            return ()
        return tuple(answer.get("items") or ())

    def _running(
        self, key: ObjectKey, service: TTSService, deployments: Mapping[str, Manifest]
    ) -> dict[str, RunningClass]:
        maps = {
            one["metadata"]["name"]: one
            for one in self._view.children[CONFIG_MAPS].of_service(key)
            if is_owned(one, service.metadata.uid)
        }
        running = {}
        for one in service.spec.hardware.classes:
            found = _running_class(service.name, one.name, deployments.get(one.name), maps)
            if found is not None:
                running[one.name] = found
        return running

    async def _references(self, service: TTSService) -> References:
        hashes = {}
        for reference in (*referenced_keys(service), *takeover_keys(service, self._settings)):
            found = await self._client.find(CONFIG_MAPS, service.namespace, reference.name)
            hashes[reference] = _content_hash(found, reference)
        return References(hashes)

    def _node_facts(self) -> tuple[NodeFacts, ...] | None:
        nodes = self._view.nodes
        if nodes is None:
            return None
        if self._nodes[0] != nodes.revision:
            self._nodes = (nodes.revision, tuple(nodes))
        return self._nodes[1]

    def _profile_table(self) -> ProfileTable:
        profiles = self._view.profiles
        if self._table[0] != profiles.revision:
            rows = [one.row for one in profiles if one.row is not None]
            self._table = (profiles.revision, builtin_profiles().extended(rows))
        return self._table[1]


def _running_class(
    service: str, name: str, deployment: Manifest | None, maps: Mapping[str, Manifest]
) -> RunningClass | None:
    """What the cluster has of a class; without a Deployment nothing, whatever plans are stored."""
    if deployment is None:
        return None
    prefix = f"{service}-{name}-"
    stored = sorted(one for one in config_map_names(deployment) & maps.keys() if one.startswith(prefix))
    config_map: Manifest = maps[stored[0]] if stored else {"metadata": {}}
    annotations = deployment["metadata"].get("annotations") or {}
    data = config_map.get("data") or {}
    return RunningClass(
        class_name=name,
        bundle=_read_bundle(annotations.get(DIGEST_ANNOTATION, ""), tuple(sorted(data.items()))),
        inputs_hash=(config_map["metadata"].get("annotations") or {}).get(INPUTS_ANNOTATION, ""),
        ready=(deployment.get("status") or {}).get("readyReplicas") or 0,
        replicas=deployment["spec"].get("replicas") or 0,
        distribution_hash=annotations.get(DISTRIBUTION_ANNOTATION, ""),
    )


@functools.lru_cache(maxsize=256)
def _read_bundle(digest: str, data: tuple[tuple[str, str], ...]) -> PlanBundle | None:
    return read_bundle(digest, dict(data))


def _content_hash(config_map: Manifest | None, reference: ConfigMapKey) -> str:
    """The hash of one key of a ConfigMap; "" when it is not there."""
    if config_map is None:
        return ""
    data = {**(config_map.get("data") or {}), **(config_map.get("binaryData") or {})}
    content = data.get(reference.key)
    return "" if content is None else hashlib.sha256(content.encode()).hexdigest()[:16]
