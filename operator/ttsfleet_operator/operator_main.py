"""`python -m ttsfleet_operator.operator_main`: the operator's process, from settings to its end.

Order matters. The caches are filled from lists before kopf watches and before the queue opens, so that a restart
writes nothing that is already so. The queue opens when the Lease is won: a standby has warm caches and takes over at
once. A leader that loses its Lease ends the process on the spot, since another may already be writing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable

import kopf
import uvloop
from kubernetes.aio.config.config_exception import ConfigException

from ttsfleet_operator.cluster.api_errors import APIError
from ttsfleet_operator.cluster.client import KubernetesClient, Manifest, connect
from ttsfleet_operator.cluster.http_endpoint import HealthEndpoint
from ttsfleet_operator.cluster.kinds import MANAGED_SELECTOR, Kind
from ttsfleet_operator.cluster.lease import LeaderElection, LeaseSettings
from ttsfleet_operator.cluster.stores import ObjectKey
from ttsfleet_operator.cluster.view import ClusterView
from ttsfleet_operator.cluster.watch_probe import Watched, WatchProbe
from ttsfleet_operator.cluster.work_queue import WorkQueue
from ttsfleet_operator.errors import UsageError
from ttsfleet_operator.fleet.nodes import NodeFacts, read_node
from ttsfleet_operator.handlers import build_registry, kopf_settings
from ttsfleet_operator.observe import View
from ttsfleet_operator.operator_metrics import OperatorMetrics
from ttsfleet_operator.operator_settings import LEASE_NAME, OperatorSettings, read_settings
from ttsfleet_operator.profiles import ProfileObject, read_profile_object
from ttsfleet_operator.reconcile import Reconciler

logger = logging.getLogger(__name__)

EVENT_DELAY_SECONDS = 0.4
ALL_DELAY_SECONDS = 1.0
PRIME_AGAIN_SECONDS = 2.0
FIRST_PROBE_SECONDS = 5.0
GARBAGE_THRESHOLD = 20_000
EXIT_LOST_LEASE = 3


class Operator:
    """One process's parts and how they are joined."""

    def __init__(self, settings: OperatorSettings, client: KubernetesClient) -> None:
        self._settings = settings
        self._client = client
        self._metrics = OperatorMetrics()
        self._view: View = ClusterView[NodeFacts, ProfileObject](
            settings.namespaces,
            read_node if settings.read_nodes else None,
            _read_profile,
            lambda key: self._queue.add(key, EVENT_DELAY_SECONDS),
            lambda: self._enqueue_all(ALL_DELAY_SECONDS),
        )
        clock = asyncio.get_running_loop().time
        self._reconciler = Reconciler(client, self._view, settings, self._metrics, clock)
        self._queue: WorkQueue[ObjectKey] = WorkQueue(
            self._reconciler.reconcile, workers=settings.workers, on_failure=self._failed
        )
        self._metrics.measure_queue(lambda: len(self._queue))
        self._probe = WatchProbe(
            client,
            [self._watched(kind) for kind in self._view.watched],
            interval_seconds=settings.probe_seconds,
            on_round=lambda kind, gap: self._metrics.gap(kind.plural) if gap else None,
        )
        self._election = LeaderElection(
            LeaseSettings(settings.namespace, LEASE_NAME, settings.identity), client, self._lead, _end_at_once
        )
        self._unready = "the caches are not filled yet"
        registry = self._metrics.registry
        self._endpoints = [
            HealthEndpoint(address.host, address.port, registry, self._live, lambda: self._unready)
            for address in (settings.metrics, settings.health)
        ]

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, or until kopf ends."""
        background: list[asyncio.Task[None]] = []
        try:
            for endpoint in self._endpoints:
                await endpoint.start()
            await self._prime()
            self._queue.start()
            background = [asyncio.create_task(_guarded(job)) for job in self._jobs()]
            self._unready = ""
            await self._watch()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._queue.close()
            await self._election.release()
            for endpoint in self._endpoints:
                await endpoint.stop()
            await self._client.close()

    def _jobs(self) -> list[Callable[[], Awaitable[None]]]:
        jobs: list[Callable[[], Awaitable[None]]] = [lambda: self._probe.run(FIRST_PROBE_SECONDS), self._resync]
        return [*jobs, self._election.run if self._settings.leader_election else self._lead_alone]

    async def _watch(self) -> None:
        """kopf's watches. A namespaced operator names its namespaces."""
        namespaces = self._settings.watch_namespaces
        await kopf.operator(
            registry=build_registry(self._view.watched, self._deliver),
            settings=kopf_settings(),
            # kopf would ask for the name of the user, and a container's user has none. It does not export this type.
            identity=self._settings.identity,  # type: ignore[arg-type]
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
        )

    async def _prime(self) -> None:
        """Fill the caches, however long the API server or the definitions take to be there."""
        while True:
            try:
                await self._view.prime(self._client)
            except APIError as error:
                self._unready = f"the caches cannot be filled: {error}"
                logger.warning("%s; trying again", self._unready)
                await asyncio.sleep(PRIME_AGAIN_SECONDS)
            else:
                logger.info("caches filled: %d services", len(self._view.services))
                _spare_the_collector()
                return

    async def _resync(self) -> None:
        """Look at everything again now and then: for what is neither watched nor reported."""
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            with contextlib.suppress(APIError):
                await self._view.refresh_service_monitors(self._client)
                await self._view.refresh_api_servers(self._client)
            self._reconciler.recheck()
            self._enqueue_all(ALL_DELAY_SECONDS)

    def _deliver(self, kind: Kind, event: str | None, manifest: object) -> None:
        assert isinstance(manifest, dict)
        self._metrics.event(kind.plural)
        self._view.deliver(kind, event, manifest)

    def _lead(self) -> None:
        self._metrics.leader.set(1)
        self._enqueue_all(0.0)
        self._queue.open()

    async def _lead_alone(self) -> None:
        self._lead()

    def _enqueue_all(self, delay_seconds: float) -> None:
        for key in self._view.services:
            self._queue.add(key, delay_seconds)

    def _failed(self, key: ObjectKey, error: BaseException) -> None:
        if isinstance(error, APIError):
            self._metrics.failure(type(error).__name__.removesuffix("Error"))
            logger.warning("%s: %s; trying again", key, error)
        else:
            self._metrics.failure("Unexpected")
            logger.error("%s: %s", key, error, exc_info=error)

    def _live(self) -> str:
        frozen = self._probe.frozen
        return f"no watch events of {', '.join(frozen)}" if frozen else ""

    def _watched(self, kind: Kind) -> Watched:
        return Watched(
            kind=kind,
            selector=MANAGED_SELECTOR if kind in self._view.children else "",
            namespaces=self._settings.namespaces,
            versions=lambda: self._view.versions(kind),
            relist=lambda: self._view.relist(self._client, kind),
        )


def _spare_the_collector() -> None:
    """Reference counts free almost all that a reconcile makes; looking for cycles so often costs a tenth of it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


def _read_profile(raw: Manifest) -> ProfileObject:
    result = read_profile_object(raw)
    if result.error:
        logger.warning("%s; the row is left out", result.error)
    return result


async def _guarded(job: Callable[[], Awaitable[None]]) -> None:
    """A background job that fails ends the process: half an operator looks like a whole one."""
    try:
        await job()
    except Exception:
        logger.exception("a background job failed")
        _end_at_once()


def _end_at_once() -> None:
    sys.stderr.flush()
    os._exit(EXIT_LOST_LEASE)


class _JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def _configure_logging(settings: OperatorSettings) -> None:
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JSONFormatter() if settings.log_format == "json" else text)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    for noisy in ("kopf.objects", "kopf._core", "kopf.activities", "asyncio", "aiohttp"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level.upper())))


async def _main(settings: OperatorSettings) -> None:
    client = await connect(settings.kubeconfig, user_agent=f"ttsfleet-operator/{settings.fleet.release}")
    await Operator(settings, client).run()


def main() -> int:
    """The process's entry. The exit code is 0 after a signal."""
    try:
        settings = read_settings(os.environ)
        _configure_logging(settings)
        uvloop.run(_main(settings))
    except UsageError as error:
        sys.stderr.write(f"ttsfleet-operator: {error}\n")
        return 2
    except ConfigException as error:
        sys.stderr.write(
            f"ttsfleet-operator: no cluster: {error}; run it in a pod, or name a kubeconfig in KUBECONFIG\n"
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
