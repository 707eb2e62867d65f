"""Writes many objects with parallel writers and notes, from a watch, when each is as wanted. IO.

A watch costs the API server and this process little: lists of a thousand objects every second would be measured too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.kube_config import load_kube_config

from control_plane.errors import NeverHappened
from ttsfleet_operator.cluster.client import KubernetesClient, connect
from ttsfleet_operator.cluster.kinds import Kind
from ttsfleet_operator.cluster.stores import ObjectKey, key_of

T = TypeVar("T")

Check = Callable[[Mapping[str, Any]], bool]
Told = Callable[[int], None]


def untold(count: int) -> None:
    """For who does not want to be told."""


@dataclass
class Arrivals:
    """When each object was first seen as wanted, in seconds since `started` (a monotonic clock)."""

    started: float = field(default_factory=time.monotonic)
    seconds: dict[ObjectKey, float] = field(default_factory=dict)

    def note(self, key: ObjectKey) -> None:
        self.seconds.setdefault(key, time.monotonic() - self.started)


async def in_parallel(writers: int, items: Iterable[T], write: Callable[[T], Awaitable[object]]) -> None:
    """Each item once, by so many writers that each take the next."""
    left = iter(items)

    async def writer() -> None:
        for item in left:
            await write(item)

    await asyncio.gather(*(writer() for _ in range(writers)))


class Load:
    """A client of the API server with its kubeconfig; `async with Load.connected(path) as load`."""

    def __init__(self, client: KubernetesClient, configuration: Configuration) -> None:
        self.client = client
        self._host = configuration.host
        self._tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        assert configuration.cert_file is not None, "the kubeconfig has a client certificate"
        self._tls.load_cert_chain(configuration.cert_file, configuration.key_file)

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, kubeconfig: Path) -> AsyncIterator[Load]:
        configuration = Configuration()
        await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(kubeconfig), client_configuration=configuration
        )
        client = await connect(str(kubeconfig), user_agent="ttsfleet-scale")
        try:
            yield cls(client, configuration)
        finally:
            await client.close()

    async def write_and_wait(
        self,
        kind: Kind,
        keys: Iterable[ObjectKey],
        check: Check,
        write: Callable[[], Awaitable[object]],
        within: float,
        told: Told = untold,
    ) -> Arrivals:
        """Runs `write` and waits until the check held once for every key. `told` gets how many.

        Raises:
            NeverHappened: the deadline (seconds) passed, with how many are missing.
        """
        missing = set(keys)
        arrivals = Arrivals()

        async def watch() -> None:
            async for raw in self._watch(kind):
                key = key_of(raw)
                if key in missing and check(raw):
                    missing.discard(key)
                    arrivals.note(key)
                    told(len(arrivals.seconds))
                    if not missing:
                        return

        watching = asyncio.create_task(watch())
        try:
            async with asyncio.timeout(within):
                await write()
                await watching
        except TimeoutError:
            some = ", ".join(str(key) for key in sorted(missing)[:5])
            raise NeverHappened(
                f"{len(missing)} {kind.plural} are not as wanted after {within:g} s: {some}"
            ) from None
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return arrivals

    async def _watch(self, kind: Kind) -> AsyncIterator[Mapping[str, Any]]:
        """All objects of a kind as they are and become, for ever.

        The API server ends a watch whose reader is slower than a burst; the next one begins with all objects.
        """
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(ssl=self._tls)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while True:
                async with session.get(f"{self._host}{kind.path()}", params={"watch": "true"}) as answer:
                    answer.raise_for_status()
                    async for raw in _objects(answer):
                        yield raw


async def _objects(answer: aiohttp.ClientResponse) -> AsyncIterator[Mapping[str, Any]]:
    """The objects of a watch's events, one line each, until it ends."""
    held = b""
    async for data in answer.content.iter_any():
        *lines, held = (held + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["type"] in ("ADDED", "MODIFIED"):
                yield event["object"]
