"""The Kubernetes API in plain dicts, over the asyncio client of the official package.

Only its transport, configuration and credentials are used: the generated models would cost seconds of import and a
copy of every object. Writes are server-side applies, except for Leases (optimistic updates), Events and deletions.
"""

from __future__ import annotations

import urllib.request
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import msgspec
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

from ttsfleet_operator.cluster.api_errors import ExpiredError, NotFoundError, UnavailableError, error_of
from ttsfleet_operator.cluster.kinds import Kind

Manifest: TypeAlias = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
CHUNK = 500
REQUEST_SECONDS = 30.0
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


async def connect(kubeconfig: str = "", user_agent: str = "ttsfleet-operator") -> KubernetesClient:
    """A client from the pod's service account, or from a kubeconfig. Raises ConfigException without either."""
    configuration = Configuration()
    try:
        if kubeconfig:
            raise ConfigException("a kubeconfig was named")
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException:
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig or None, client_configuration=configuration
        )
    return KubernetesClient(configuration, user_agent)


def environment_proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL.

    Asked once: a session that trusts the environment asks, and reads .netrc, in a thread for every request, which is
    a third of what a request costs.
    """
    address = urlsplit(url)
    if urllib.request.proxy_bypass(address.hostname or ""):
        return None
    return urllib.request.getproxies().get(address.scheme)


class KubernetesClient:
    """One connection pool. Every method raises an `APIError` of api_errors."""

    def __init__(self, configuration: Configuration, user_agent: str = "ttsfleet-operator") -> None:
        configuration.proxy = configuration.proxy or environment_proxy(configuration.host)
        configuration.client_session_kwargs = {"trust_env": False}
        self._api = ApiClient(configuration)
        self._api.user_agent = user_agent

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: Kind, namespace: str, name: str, *, metadata_only: bool = False) -> Manifest:
        accept = _METADATA_ONLY if metadata_only else "application/json"
        return await self.request("GET", kind.path(namespace, name), accept=accept)

    async def find(self, kind: Kind, namespace: str, name: str, *, metadata_only: bool = False) -> Manifest | None:
        """As `get`; None when there is none."""
        try:
            return await self.get(kind, namespace, name, metadata_only=metadata_only)
        except NotFoundError:
            return None

    async def list_chunks(
        self, kind: Kind, namespace: str = "", selector: str = "", *, metadata_only: bool = False
    ) -> AsyncIterator[tuple[list[Manifest], str]]:
        """Chunks of objects with the list's resource version. Begins again (a new version) when a token expires."""
        token, version = "", ""
        while True:
            query = {"limit": str(CHUNK), "labelSelector": selector, "continue": token}
            accept = _METADATA_LIST if metadata_only else "application/json"
            try:
                answer = await self.request("GET", kind.path(namespace), query=query, accept=accept)
            except ExpiredError:
                if not token:
                    raise
                token = ""
                continue
            version = answer["metadata"].get("resourceVersion", version)
            items: list[Manifest] = answer.get("items") or []
            if not metadata_only:
                for item in items:
                    item.setdefault("apiVersion", kind.api_version)
                    item.setdefault("kind", kind.name)
            yield items, version
            token = answer["metadata"].get("continue") or ""
            if not token:
                return

    async def list_all(self, kind: Kind, namespace: str = "", selector: str = "") -> list[Manifest]:
        found: list[Manifest] = []
        async for items, _ in self.list_chunks(kind, namespace, selector):
            found += items
        return found

    async def apply(
        self, kind: Kind, manifest: Manifest, manager: str, *, force: bool = True, subresource: str = ""
    ) -> Manifest:
        """Server-side apply; the answer is the whole object."""
        metadata = manifest["metadata"]
        path = kind.path(metadata.get("namespace", ""), metadata["name"], subresource)
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self.request("PATCH", path, query=query, body=manifest, content=APPLY)

    async def create(self, kind: Kind, manifest: Manifest, manager: str = "") -> Manifest:
        path = kind.path(manifest["metadata"].get("namespace", ""))
        return await self.request("POST", path, query={"fieldManager": manager}, body=manifest)

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        """An optimistic update: Conflict when the resource version is not the current one."""
        metadata = manifest["metadata"]
        return await self.request("PUT", kind.path(metadata.get("namespace", ""), metadata["name"]), body=manifest)

    async def merge(self, kind: Kind, namespace: str, name: str, body: Manifest, manager: str = "") -> Manifest:
        query = {"fieldManager": manager}
        return await self.request("PATCH", kind.path(namespace, name), query=query, body=body, content=MERGE)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str, resource_version: str = "") -> None:
        """Delete this very object, its dependants in the background. One that is gone is fine."""
        conditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        body = {"preconditions": conditions, "propagationPolicy": "Background"}
        try:
            await self.request("DELETE", kind.path(namespace, name), body=body)
        except NotFoundError:
            return

    async def serves(self, kind: Kind) -> bool:
        """Whether the API server knows the kind."""
        root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.api_version}"
        try:
            answer = await self.request("GET", root)
        except NotFoundError:
            return False
        return any(resource["name"] == kind.plural for resource in answer.get("resources", []))

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        accept: str = "application/json",
        content: str = "application/json",
    ) -> Manifest:
        """One request and its decoded answer."""
        given = [(name, value) for name, value in (query or {}).items() if value]
        headers = {"Accept": accept, "Content-Type": content}
        _, url, headers, _, _ = await self._api.param_serialize(
            method, path, query_params=given, header_params=headers, auth_settings=["BearerToken"]
        )
        try:
            response = await self._api.rest_client.request(  # type: ignore[no-untyped-call]
                method, url, headers=headers, body=body, _request_timeout=REQUEST_SECONDS
            )
            answer: bytes = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(0, "NoAnswer", str(error) or type(error).__name__) from error
        if response.status >= 400:
            raise error_of(response.status, response.headers, answer)
        decoded: Manifest = msgspec.json.decode(answer) if answer else {}
        return decoded
