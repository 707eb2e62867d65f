"""The operator's picture of the cluster: one store per watched kind, how to fill them, and whom a change concerns."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from ttsfleet_operator.cluster.api_errors import ForbiddenError, NotFoundError
from ttsfleet_operator.cluster.client import KubernetesClient, Manifest
from ttsfleet_operator.cluster.kinds import (
    CHILDREN,
    CLAIMS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    GPU_PROFILES,
    MANAGED_SELECTOR,
    NODES,
    SERVICE_MONITORS,
    SERVICES_OF_USERS,
    WATCHED_CHILDREN,
    Kind,
)
from ttsfleet_operator.cluster.stores import ObjectKey, ObjectStore, ReducedStore, key_of, listed

N = TypeVar("N")
P = TypeVar("P")


class ClusterView(Generic[N, P]):
    """`changed(key)` is called for every TTSService that something concerns; `all_changed()` when it concerns all."""

    def __init__(
        self,
        namespaces: tuple[str, ...],
        read_node: Callable[[Manifest], N] | None,
        read_profile: Callable[[Manifest], P],
        changed: Callable[[ObjectKey], None],
        all_changed: Callable[[], None],
    ) -> None:
        self._namespaces = namespaces
        self._changed = changed
        self._all_changed = all_changed
        self.services = ObjectStore(SERVICES_OF_USERS, with_status=True, status_matters=False)
        self.children = {kind: _child_store(kind) for kind in CHILDREN}
        self.profiles = ReducedStore(GPU_PROFILES, read_profile)
        self.nodes = ReducedStore(NODES, read_node) if read_node is not None else None
        self.has_service_monitors = False
        self.api_servers: tuple[str, ...] = ()
        """The networks of single addresses on which the API server listens, as far as they may be read."""

    @property
    def watched(self) -> tuple[Kind, ...]:
        """The kinds that handlers deliver."""
        nodes = () if self.nodes is None else (NODES,)
        return (SERVICES_OF_USERS, *WATCHED_CHILDREN, GPU_PROFILES, *nodes)

    def versions(self, kind: Kind) -> Mapping[ObjectKey, int]:
        return self._store(kind).versions()

    def child(self, kind: Kind, key: ObjectKey) -> Manifest | None:
        return self.children[kind].get(key)

    def children_of(self, service: ObjectKey) -> list[tuple[Kind, Manifest]]:
        """All children that carry the service's label, ours or not."""
        return [(kind, manifest) for kind, store in self.children.items() for manifest in store.of_service(service)]

    def deliver(self, kind: Kind, event: str | None, manifest: Mapping[str, Any]) -> None:
        """Take a watch event."""
        if kind == SERVICES_OF_USERS:
            key = key_of(manifest)
            known = self.services.get(key) is not None
            before = self.services.meaning(key)
            self.services.deliver(event, manifest)
            if self.services.meaning(key) != before or (event == "DELETED" and known):
                self._changed(key)
            return
        store = self._store(kind)
        if isinstance(store, ReducedStore):
            if store.deliver(event, manifest):
                self._all_changed()
            return
        self._announce(store.deliver(event, manifest))

    async def prime(self, client: KubernetesClient) -> None:
        """Fill every store from lists. Nothing is announced: whoever primes enqueues all services."""
        for kind in self.watched:
            await self.relist(client, kind, announce=False)
        await self.refresh_service_monitors(client, announce=False)
        await self.refresh_api_servers(client, announce=False)

    async def relist(self, client: KubernetesClient, kind: Kind, *, announce: bool = True) -> None:
        """List a kind anew into its store."""
        selector = MANAGED_SELECTOR if kind in self.children else ""
        store = self._store(kind)
        before = self.services.meanings() if kind == SERVICES_OF_USERS else {}
        manifests, version = await listed(client, kind, self._namespaces, selector)
        changed = store.replace(manifests, version)
        if not announce:
            return
        if kind == SERVICES_OF_USERS:
            after = self.services.meanings()
            self._announce(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        elif isinstance(changed, bool):
            if changed:
                self._all_changed()
        else:
            self._announce(changed)

    async def refresh_service_monitors(self, client: KubernetesClient, *, announce: bool = True) -> None:
        """Find out whether ServiceMonitors exist here; list ours. The kind may come and go, so it is not watched."""
        had = self.has_service_monitors
        try:
            self.has_service_monitors = await client.serves(SERVICE_MONITORS)
            if self.has_service_monitors:
                await self.relist(client, SERVICE_MONITORS, announce=announce)
        except (ForbiddenError, NotFoundError):
            self.has_service_monitors = False
        if announce and had != self.has_service_monitors:
            self._all_changed()

    async def refresh_api_servers(self, client: KubernetesClient, *, announce: bool = True) -> None:
        """Read what is behind the Service `kubernetes`, which changes rarely. One that answers is always there."""
        try:
            found = await client.get(ENDPOINT_SLICES, "default", "kubernetes")
        except (ForbiddenError, NotFoundError):
            return
        addresses = [address for endpoint in found.get("endpoints") or () for address in endpoint["addresses"]]
        networks = tuple(str(ipaddress.ip_network(address)) for address in sorted(addresses))
        if networks and networks != self.api_servers:
            self.api_servers = networks
            if announce:
                self._all_changed()

    def _announce(self, keys: Iterable[ObjectKey]) -> None:
        for key in keys:
            self._changed(key)

    def _store(self, kind: Kind) -> ObjectStore | ReducedStore[N] | ReducedStore[P]:
        if kind == SERVICES_OF_USERS:
            return self.services
        if kind == GPU_PROFILES:
            return self.profiles
        if kind == NODES:
            assert self.nodes is not None
            return self.nodes
        return self.children[kind]


def _child_store(kind: Kind) -> ObjectStore:
    """Of the children only a Deployment's status counts, and a claim's is shown."""
    return ObjectStore(kind, with_status=kind in (DEPLOYMENTS, CLAIMS), status_matters=kind == DEPLOYMENTS)
