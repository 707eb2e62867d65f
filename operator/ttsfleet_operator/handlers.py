"""kopf's part: watches that feed the view. Thin on purpose.

Only `on.event` is used: every other kind of handler writes annotations or finalizers to the user's object. Handlers
return nothing (kopf would write it) and do no IO.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import kopf

from ttsfleet_operator.cluster.kinds import MANAGED_SELECTOR, WATCHED_CHILDREN, Kind

EVENT_WORKERS = 64


class Deliver(Protocol):
    def __call__(self, kind: Kind, event: str | None, manifest: Mapping[str, Any]) -> None: ...


def build_registry(kinds: tuple[Kind, ...], deliver: Deliver) -> kopf.OperatorRegistry:
    """A registry with a login and one event handler per kind; everything goes to `deliver`."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**context: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**context) or kopf.login_with_service_account(**context)

    for kind in kinds:
        _watch(registry, kind, deliver)
    return registry


def kopf_settings() -> kopf.OperatorSettings:
    """How kopf watches: children by our label only, nothing posted, no peering.

    An event's worker ends at once: with a limit on workers, idle ones would hold back the others. Scanning (for new
    kinds and namespaces) would need rights on both; the caches are filled before, so every kind is known.
    """
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.peering.standalone = True
    result.queueing.worker_limit = EVENT_WORKERS
    result.queueing.idle_timeout = 0.01
    result.scanning.disabled = True  # it would list CRDs and namespaces, which the chart does not grant
    result.watching.chunk_size = 500
    result.networking.trust_env = True
    result.persistence.diffbase_storage = _NoDiffs()
    result.persistence.progress_storage = _NoProgress()
    for kind in WATCHED_CHILDREN:
        result.watching.label_selectors[kind.group, kind.version, kind.plural] = MANAGED_SELECTOR
    return result


class _NoDiffs(kopf.DiffBaseStorage):
    """kopf compares each event with what it last handled, copying the object three times: half of its time for
    nothing, since no handler of ours is of a kind that asks."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """No handler of ours has a progress that outlives its call."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def _watch(registry: kopf.OperatorRegistry, kind: Kind, deliver: Deliver) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, id=kind.plural, registry=registry)
    async def handle(event: kopf.RawEvent, **_: Any) -> None:
        deliver(kind, event["type"], event["object"])
