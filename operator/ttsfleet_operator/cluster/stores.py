"""What the cluster was last seen to hold: filled by a list at start, kept by watch events and by our own writes.

Objects are kept as JSON text and decoded on use: as Python objects a thousand Deployments take five times as much
memory, and one reconcile reads only a handful. Resource versions are compared as numbers, as the API server does: an
older event never overwrites a newer answer, and the echo of our own write is no change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from ttsfleet_operator.cluster.client import KubernetesClient, Manifest
from ttsfleet_operator.cluster.kinds import Kind
from ttsfleet_operator.labels import SERVICE_LABEL

T = TypeVar("T")

MAX_TOMBSTONES = 10_000


class ObjectKey(NamedTuple):
    """An object's name in its namespace ("" for cluster-scoped kinds)."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def key_of(manifest: Mapping[str, Any]) -> ObjectKey:
    metadata = manifest["metadata"]
    return ObjectKey(metadata.get("namespace") or "", metadata["name"])


def version_of(manifest: Mapping[str, Any]) -> int:
    """The resource version as a number; 0 where there is none."""
    text = manifest["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isdigit() else 0


def service_of(manifest: Mapping[str, Any]) -> ObjectKey | None:
    """The TTSService that a child's label names."""
    name = (manifest["metadata"].get("labels") or {}).get(SERVICE_LABEL)
    return ObjectKey(manifest["metadata"].get("namespace") or "", name) if name else None


@dataclass(frozen=True)
class _Stored:
    version: int
    service: ObjectKey | None
    meaning: int
    text: bytes


class ObjectStore:
    """All objects of one kind, whole but for managedFields."""

    def __init__(self, kind: Kind, *, with_status: bool, status_matters: bool) -> None:
        """`with_status`: keep it. `status_matters`: a changed status is a change."""
        self.kind = kind
        self._with_status = with_status
        self._status_matters = status_matters
        self._objects: dict[ObjectKey, _Stored] = {}
        self._by_service: dict[ObjectKey, set[ObjectKey]] = {}
        self._gone: dict[ObjectKey, int] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[ObjectKey]:
        """The keys as they are now; the store may change meanwhile."""
        return iter(list(self._objects))

    def versions(self) -> dict[ObjectKey, int]:
        return {key: stored.version for key, stored in self._objects.items()}

    def get(self, key: ObjectKey) -> Manifest | None:
        stored = self._objects.get(key)
        return None if stored is None else msgspec.json.decode(stored.text)

    def meaning(self, key: ObjectKey) -> int | None:
        """A number that changes when the object changes in a way that matters; None when there is none."""
        stored = self._objects.get(key)
        return None if stored is None else stored.meaning

    def meanings(self) -> dict[ObjectKey, int]:
        return {key: stored.meaning for key, stored in self._objects.items()}

    def of_service(self, service: ObjectKey) -> list[Manifest]:
        """The objects that carry the service's label, by name."""
        return [msgspec.json.decode(self._objects[key].text) for key in sorted(self._by_service.get(service, ()))]

    def deliver(self, event: str | None, manifest: Mapping[str, Any]) -> set[ObjectKey]:
        """Take a watch event. The services whose children changed, in a way that matters, by it."""
        if event == "DELETED":
            return self.remove(key_of(manifest), version_of(manifest))
        return self.put(manifest)

    def put(self, manifest: Mapping[str, Any]) -> set[ObjectKey]:
        """Take an object as it is now. The services that this concerns; empty when nothing changed."""
        key, version = key_of(manifest), version_of(manifest)
        before = self._objects.get(key)
        if before is not None and before.version >= version:
            return set()
        if self._gone.get(key, -1) >= version:
            return set()
        stored = self._reduced(manifest, version)
        self._objects[key] = stored
        self._index(key, before, stored)
        if before is not None and before.meaning == stored.meaning and before.service == stored.service:
            return set()
        return {service for service in (before.service if before else None, stored.service) if service is not None}

    def remove(self, key: ObjectKey, version: int) -> set[ObjectKey]:
        """The object is gone as of `version`."""
        before = self._objects.get(key)
        if before is None or before.version > version:
            return set()
        del self._objects[key]
        self._gone[key] = version
        if len(self._gone) > MAX_TOMBSTONES:
            del self._gone[next(iter(self._gone))]
        self._index(key, before, None)
        return {before.service} if before.service is not None else set()

    def replace(self, manifests: Iterable[Mapping[str, Any]], version: int) -> set[ObjectKey]:
        """Take a whole list as of `version`: what it lacks is gone. The services that this concerns."""
        changed: set[ObjectKey] = set()
        present: set[ObjectKey] = set()
        for manifest in manifests:
            present.add(key_of(manifest))
            changed |= self.put(manifest)
        for key in self:
            if key not in present:
                changed |= self.remove(key, version)
        return changed

    def _reduced(self, manifest: Mapping[str, Any], version: int) -> _Stored:
        metadata = {name: value for name, value in manifest["metadata"].items() if name != "managedFields"}
        kept = {**manifest, "metadata": metadata}
        if not self._with_status:
            kept.pop("status", None)
        meaning = dict(kept)
        meaning["metadata"] = {name: value for name, value in metadata.items() if name != "resourceVersion"}
        if not self._status_matters:
            meaning.pop("status", None)
        service = service_of(manifest)
        digest = hash(msgspec.json.encode(meaning, order="deterministic"))
        return _Stored(version, service, digest, msgspec.json.encode(kept))

    def _index(self, key: ObjectKey, before: _Stored | None, after: _Stored | None) -> None:
        old, new = before.service if before else None, after.service if after else None
        if old == new:
            return
        if old is not None:
            self._by_service[old].discard(key)
            if not self._by_service[old]:
                del self._by_service[old]
        if new is not None:
            self._by_service.setdefault(new, set()).add(key)


class ReducedStore(Generic[T]):
    """Objects of a cluster-scoped kind of which only a few facts count."""

    def __init__(self, kind: Kind, reduce: Callable[[Manifest], T]) -> None:
        self.kind = kind
        self._reduce = reduce
        self._facts: dict[ObjectKey, T] = {}
        self._versions: dict[ObjectKey, int] = {}
        self.revision = 0

    def __len__(self) -> int:
        return len(self._facts)

    def __iter__(self) -> Iterator[T]:
        """The facts, by the names of their objects."""
        return iter([self._facts[key] for key in sorted(self._facts)])

    def versions(self) -> dict[ObjectKey, int]:
        return dict(self._versions)

    def deliver(self, event: str | None, manifest: Mapping[str, Any]) -> bool:
        """Take a watch event. Whether any fact changed."""
        if event == "DELETED":
            return self.remove(key_of(manifest), version_of(manifest))
        return self.put(manifest)

    def put(self, manifest: Mapping[str, Any]) -> bool:
        key, version = key_of(manifest), version_of(manifest)
        if self._versions.get(key, -1) >= version:
            return False
        self._versions[key] = version
        facts = self._reduce(dict(manifest))
        if key in self._facts and self._facts[key] == facts:
            return False
        self._facts[key] = facts
        self.revision += 1
        return True

    def remove(self, key: ObjectKey, version: int) -> bool:
        if self._versions.get(key, version + 1) > version:
            return False
        del self._versions[key]
        del self._facts[key]
        self.revision += 1
        return True

    def replace(self, manifests: Iterable[Mapping[str, Any]], version: int) -> bool:
        """Take a whole list as of `version`. Whether any fact changed."""
        present, changed = set(), False
        for manifest in manifests:
            present.add(key_of(manifest))
            changed |= self.put(manifest)
        for key in list(self._facts):
            if key not in present:
                changed |= self.remove(key, version)
        return changed


async def listed(
    client: KubernetesClient, kind: Kind, namespaces: Iterable[str], selector: str = ""
) -> tuple[list[Manifest], int]:
    """All objects of a kind in some namespaces ("" = all), in chunks, and the oldest version that holds for all."""
    found: list[Manifest] = []
    versions: list[int] = []
    for namespace in namespaces if kind.namespaced else ("",):
        async for items, version in client.list_chunks(kind, namespace, selector):
            for item in items:
                item["metadata"].pop("managedFields", None)
            found += items
            versions.append(int(version))
    return found, min(versions, default=0)
