"""Makes one service's children so: applies what differs, deletes what is no longer wanted.

The decisions are in `children`. Only a difference is written. Nothing that is not ours is touched: a create is not
forced, where that alone could mix two objects the name is looked up before, and a repair names the uid that it is
meant for, so that an object which appears in between is a conflict and not an adoption.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ttsfleet_operator.cluster.api_errors import (
    AlreadyExistsError,
    APIError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NamespaceEndsError,
    UnavailableError,
)
from ttsfleet_operator.cluster.children import Standing, compare, config_map_names, is_owned, standing, to_create
from ttsfleet_operator.cluster.client import KubernetesClient, Manifest
from ttsfleet_operator.cluster.diff import shown, stamp_of, without
from ttsfleet_operator.cluster.kinds import (
    CLAIMS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    NETWORK_POLICIES,
    REPLICA_SETS,
    Kind,
    kind_of,
)
from ttsfleet_operator.cluster.reverts import RevertLedger
from ttsfleet_operator.cluster.stores import ObjectKey, key_of, version_of
from ttsfleet_operator.cluster.view import ClusterView
from ttsfleet_operator.labels import CLASS_LABEL, SERVICE_LABEL

logger = logging.getLogger(__name__)

FIELD_MANAGER = "ttsfleet-operator"
MAX_ATTEMPTS = 4
# Kinds whose selector is one value with one owner: an apply that is not forced conflicts with every object that has
# another. A Service or ConfigMap of the same name would take our ports and keys beside its own.
CONFLICT_WITH_OTHERS = frozenset({DEPLOYMENTS, DISRUPTION_BUDGETS, NETWORK_POLICIES})

View: TypeAlias = ClusterView[Any, Any]


@dataclass
class Outcome:
    """What came of one pass over the children. Objects are written `Kind/name`.

    refusals, undeleted: what the API server refuses to apply, and to delete, as `Kind/name: its words`
    """

    name_conflicts: list[str] = field(default_factory=list)
    field_conflicts: list[str] = field(default_factory=list)
    scaled: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    undeleted: list[str] = field(default_factory=list)
    leftovers: bool = False


class ChildWriter:
    """`wrote(kind, verb)` is told every write."""

    def __init__(
        self,
        client: KubernetesClient,
        view: View,
        clock: Callable[[], float],
        wrote: Callable[[str, str], None] = lambda _kind, _verb: None,
    ) -> None:
        self._client = client
        self._view = view
        self._clock = clock
        self._wrote = wrote
        self._ledger = RevertLedger()
        self._kept_maps: dict[ObjectKey, object] = {}

    async def apply(self, service: ObjectKey, uid: str, manifests: Iterable[Manifest]) -> Outcome:
        """Bring every child of the TTSService of that uid to what is wanted, in order.

        Raises UnavailableError, NamespaceEndsError.
        """
        outcome = Outcome()
        for desired in manifests:
            kind = kind_of(desired)
            name = f"{kind.name}/{desired['metadata']['name']}"
            try:
                await self._apply_one(service, uid, kind, desired, name, outcome)
            except NamespaceEndsError:
                raise
            except (InvalidError, ForbiddenError) as error:
                logger.warning("%s: %s is refused: %s", service, name, str(error).splitlines()[0])
                outcome.refusals.append(f"{name}: {error.message}")
        return outcome

    async def prune(
        self,
        service: ObjectKey,
        uid: str,
        manifests: Sequence[Manifest],
        classes: Collection[str],
        outcome: Outcome,
    ) -> None:
        """Delete our children that are no longer wanted, and add to the outcome. Raises UnavailableError.

        Claims hold data and go only with their service; a Deployment goes only when its class left the spec.
        """
        wanted = {(kind_of(manifest), key_of(manifest)) for manifest in manifests}
        extra = [
            (kind, live)
            for kind, live in self._view.children_of(service)
            if (kind, key_of(live)) not in wanted and is_owned(live, uid) and kind != CLAIMS
            if kind != DEPLOYMENTS or live["metadata"]["labels"].get(CLASS_LABEL) not in classes
        ]
        for kind, live in extra:
            if kind != CONFIG_MAPS and not live["metadata"].get("deletionTimestamp"):
                await self._delete(kind, live, outcome)
        await self._prune_maps(service, [live for kind, live in extra if kind == CONFIG_MAPS], outcome)

    def recheck(self) -> None:
        """Look at every kept ConfigMap again at its service's next reconcile."""
        self._kept_maps.clear()

    def forget(self, service: ObjectKey) -> None:
        self._ledger.forget(service)
        self._kept_maps.pop(service, None)

    async def _apply_one(
        self, service: ObjectKey, uid: str, kind: Kind, desired: Manifest, name: str, outcome: Outcome
    ) -> None:
        key = key_of(desired)
        live = self._view.child(kind, key)
        for _ in range(MAX_ATTEMPTS):
            if live is None and kind not in CONFLICT_WITH_OTHERS:
                live = await self._client.find(kind, key.namespace, key.name)
            state = standing(desired, live, uid)
            try:
                if state is Standing.ABSENT:
                    live = await self._write(kind, to_create(desired), "create", force=False)
                elif state is Standing.OURS:
                    assert live is not None
                    await self._repair(service, kind, desired, live, name, outcome)
                elif state is Standing.LEFTOVER:
                    outcome.leftovers = True
                else:
                    outcome.name_conflicts.append(name)
                return
            except (ConflictError, AlreadyExistsError):
                live = await self._client.find(kind, key.namespace, key.name)
        raise UnavailableError(409, "Conflict", f"{name} changes faster than it can be read")

    async def _repair(
        self, service: ObjectKey, kind: Kind, desired: Manifest, live: Manifest, name: str, outcome: Outcome
    ) -> None:
        result = compare(desired, live)
        if result.scaled is not None:
            outcome.scaled.append(live["metadata"]["name"])
        stamp = stamp_of(result.body)
        lost = self._ledger.given_up(service, name, stamp)
        if lost:
            self._ledger.settle(service, name, lost - set(result.paths))
        paths = [path for path in result.paths if path not in lost]
        fought = bool(paths) and (result.drift or self._ledger.was_applied(service, name, stamp))
        if fought:
            lost |= self._ledger.record(service, name, stamp, paths, self._clock())
            paths = [path for path in paths if path not in lost]
        remaining = lost & set(result.paths)
        if remaining:
            outcome.field_conflicts.append(f"{name} ({', '.join(sorted(shown(path) for path in remaining))})")
        if paths:
            logger.info("%s: %s differs at %s", service, name, ", ".join(shown(path) for path in paths[:5]))
            body = without(result.body, sorted(lost))
            body["metadata"] = {**body["metadata"], "uid": live["metadata"]["uid"]}
            try:
                await self._write(kind, body, "apply", force=True)
            except APIError:
                if fought:
                    self._ledger.withdraw(service, name, paths)
                raise
            self._ledger.applied(service, name, stamp)

    async def _write(self, kind: Kind, body: Manifest, verb: str, *, force: bool) -> Manifest:
        self._wrote(kind.plural, verb)
        answer = await self._client.apply(kind, body, FIELD_MANAGER, force=force)
        self._view.children[kind].put(answer)
        return answer

    async def _delete(self, kind: Kind, live: Mapping[str, Any], outcome: Outcome) -> bool:
        """Whether it is gone. Another object of its name, which is none of ours, is no refusal."""
        metadata = live["metadata"]
        self._wrote(kind.plural, "delete")
        try:
            await self._client.delete(kind, metadata["namespace"], metadata["name"], metadata["uid"])
        except ConflictError as error:
            logger.info("%s/%s is not deleted: %s", kind.name, metadata["name"], error)
            return False
        except (ForbiddenError, InvalidError) as error:
            logger.warning("%s/%s is not deleted: %s", kind.name, metadata["name"], error)
            outcome.undeleted.append(f"{kind.name}/{metadata['name']}: {error.message}")
            return False
        self._view.children[kind].remove(key_of(live), version_of(live))
        return True

    async def _prune_maps(self, service: ObjectKey, maps: list[Manifest], outcome: Outcome) -> None:
        """Delete engine ConfigMaps that no Deployment, and no ReplicaSet (it may be rolled back to), refers to."""
        if not maps:
            self._kept_maps.pop(service, None)
            return
        deployments = self._view.children[DEPLOYMENTS].of_service(service)
        basis = (
            tuple(sorted(one["metadata"]["name"] for one in maps)),
            tuple((one["metadata"]["uid"], (one.get("status") or {}).get("observedGeneration"),
                   (one.get("status") or {}).get("replicas")) for one in deployments),
        )  # fmt: skip
        if self._kept_maps.get(service) == basis:
            return
        selector = f"{SERVICE_LABEL}={service.name},{CLASS_LABEL}"
        sets = await self._client.list_all(REPLICA_SETS, service.namespace, selector)
        used: set[str] = set()
        for one in (*deployments, *sets):
            used |= config_map_names(one)
        unused = [live for live in maps if live["metadata"]["name"] not in used]
        gone = [await self._delete(CONFIG_MAPS, live, outcome) for live in unused]
        if all(gone):
            self._kept_maps[service] = basis
