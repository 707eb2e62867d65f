"""Tells what was found: status by server-side apply on the status subresource, Events for transitions. IO."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.cluster.api_errors import (
    AlreadyExistsError,
    APIError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
)
from ttsfleet_operator.cluster.client import KubernetesClient, Manifest
from ttsfleet_operator.cluster.kinds import EVENTS, SERVICES_OF_USERS
from ttsfleet_operator.cluster.stores import ObjectKey, ObjectStore
from ttsfleet_operator.errors import ManifestError
from ttsfleet_operator.status.events import event_manifest, transitions
from ttsfleet_operator.status.pace import wait_seconds
from ttsfleet_operator.status.wire import write_time

logger = logging.getLogger(__name__)

STATUS_MANAGER = "ttsfleet-operator-status"
EVENT_MANAGER = "ttsfleet-operator-events"
MAX_UNREADABLE = 1024


@dataclass
class Reporter:
    client: KubernetesClient
    services: ObjectStore
    wrote: Callable[[str, str], None]

    def __post_init__(self) -> None:
        self._written: dict[ObjectKey, datetime] = {}

    async def report(
        self, service: TTSService, previous: Mapping[str, Any], status: dict[str, Any], now: datetime
    ) -> float | None:
        """Write the status if it is due. Seconds until it will be; None = nothing is left to write.

        0 also when the answer shows a spec that was changed meanwhile: its watch event will look like old news.
        """
        key = ObjectKey(service.namespace, service.name)
        wait = wait_seconds(previous, status, self._written.get(key), now)
        if wait != 0.0:
            return wait
        answer = await self._write(key, service.metadata.uid, status)
        if answer is None:
            return None
        self._written[key] = now
        changed = self._store(key, answer)
        for draft in transitions(previous, status):
            await self._post(event_manifest(service, draft, now))
        return 0.0 if changed else None

    async def report_unreadable(self, raw: Manifest, error: ManifestError, now: datetime) -> float | None:
        """Say that the spec cannot be read, which the API server's own checks should have prevented. As `report`."""
        previous = raw.get("status") or {}
        status = {**previous, "conditions": _unreadable(raw, str(error)[:MAX_UNREADABLE], now)}
        before = {one["type"]: (one["status"], one["message"]) for one in previous.get("conditions") or []}
        after = {one["type"]: (one["status"], one["message"]) for one in status["conditions"]}
        if before == after:
            return None
        key = ObjectKey(raw["metadata"]["namespace"], raw["metadata"]["name"])
        answer = await self._write(key, raw["metadata"]["uid"], status)
        return 0.0 if answer is not None and self._store(key, answer) else None

    def forget(self, key: ObjectKey) -> None:
        self._written.pop(key, None)

    async def _write(self, key: ObjectKey, uid: str, status: Mapping[str, Any]) -> Manifest | None:
        """The service as it is now; None when it is gone. Raises ConflictError where the queue should look again."""
        body = {
            "apiVersion": SERVICES_OF_USERS.api_version,
            "kind": SERVICES_OF_USERS.name,
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": uid},
            "status": dict(status),
        }
        self.wrote("ttsservices/status", "apply")
        try:
            return await self.client.apply(SERVICES_OF_USERS, body, STATUS_MANAGER, subresource="status")
        except NotFoundError:
            return None

    def _store(self, key: ObjectKey, answer: Manifest) -> bool:
        """Whether the answer shows more than our status: somebody wrote the service while it was reconciled."""
        before = self.services.meaning(key)
        self.services.put(answer)
        return before is not None and self.services.meaning(key) != before

    async def _post(self, event: Manifest) -> None:
        """Events are a courtesy: one that cannot be posted (a namespace that ends) stops nothing."""
        try:
            await self._post_or_renew(event)
        except (ForbiddenError, InvalidError, NotFoundError, ConflictError) as error:
            logger.warning("an Event could not be posted: %s", error)
        except APIError as error:
            logger.info("an Event is lost: %s", error)

    async def _post_or_renew(self, event: Manifest) -> None:
        """Mostly it is new, and a create costs the API server a fraction of a server-side apply."""
        metadata = event["metadata"]
        self.wrote("events", "create")
        try:
            await self.client.create(EVENTS, event, EVENT_MANAGER)
        except AlreadyExistsError:
            news = {name: event[name] for name in ("type", "message", "lastTimestamp")}
            self.wrote("events", "patch")
            await self.client.merge(EVENTS, metadata["namespace"], metadata["name"], news, EVENT_MANAGER)


def _unreadable(raw: Manifest, message: str, now: datetime) -> list[dict[str, Any]]:
    generation = raw["metadata"].get("generation", 0)
    known = {one["type"]: one for one in (raw.get("status") or {}).get("conditions") or []}
    common = {"reason": "InvalidSpec", "observedGeneration": generation}
    conditions = []
    for kind, value in (("Ready", "Unknown"), ("Stalled", "True")):
        before = known.get(kind, {})
        since = before.get("lastTransitionTime") if before.get("status") == value else None
        conditions.append(
            {
                "type": kind,
                "status": value,
                "message": message,
                "lastTransitionTime": since or write_time(now),
                **common,
            }
        )
    return conditions
