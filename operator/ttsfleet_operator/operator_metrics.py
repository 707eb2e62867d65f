"""The operator's own metrics. One registry per process, made at start; each metric has a test that sees it change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from ttsfleet_operator.cluster.stores import ObjectKey

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class OperatorMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._depth = Gauge("ttsfleet_queue_depth", "Services that wait for a worker", registry=self.registry)
        self._duration = Histogram(
            "ttsfleet_reconcile_duration_seconds", "Time of one reconcile", buckets=_SECONDS, registry=self.registry
        )
        self._errors = Counter(
            "ttsfleet_reconcile_errors_total",
            "Reconciles that failed and are retried, by the kind of failure",
            ["reason"],
            registry=self.registry,
        )
        self._writes = Counter(
            "ttsfleet_writes_total", "Write requests, by kind and verb", ["kind", "verb"], registry=self.registry
        )
        self._ready = Gauge(
            "ttsfleet_service_ready",
            "1 when the service's Ready condition is True",
            ["namespace", "service"],
            registry=self.registry,
        )
        self._replicas = Gauge(
            "ttsfleet_service_replicas",
            "Replicas of the service: wanted by the operator, and serving",
            ["namespace", "service", "state"],
            registry=self.registry,
        )
        self.leader = Gauge("ttsfleet_leader", "1 when this operator leads", registry=self.registry)
        self._watch = Gauge(
            "ttsfleet_watch_last_event_timestamp_seconds",
            "When the last event of a kind was delivered",
            ["kind"],
            registry=self.registry,
        )
        self._gaps = Counter(
            "ttsfleet_watch_gaps_total", "Probes that found undelivered changes", ["kind"], registry=self.registry
        )

    def measure_queue(self, depth: Callable[[], float]) -> None:
        self._depth.set_function(depth)

    @contextmanager
    def reconcile(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._duration.observe(time.perf_counter() - started)

    def failure(self, reason: str) -> None:
        self._errors.labels(reason).inc()

    def write(self, kind: str, verb: str) -> None:
        self._writes.labels(kind, verb).inc()

    def service(self, key: ObjectKey, ready: bool, desired: int, serving: int) -> None:
        self._ready.labels(key.namespace, key.name).set(ready)
        self._replicas.labels(key.namespace, key.name, "desired").set(desired)
        self._replicas.labels(key.namespace, key.name, "ready").set(serving)

    def forget(self, key: ObjectKey) -> None:
        """The service is gone: so are its series."""
        self._remove(self._ready, key.namespace, key.name)
        for state in ("desired", "ready"):
            self._remove(self._replicas, key.namespace, key.name, state)

    def event(self, kind: str) -> None:
        self._watch.labels(kind).set_to_current_time()

    def gap(self, kind: str) -> None:
        self._gaps.labels(kind).inc()

    @staticmethod
    def _remove(gauge: Gauge, *labels: str) -> None:
        try:
            gauge.remove(*labels)
        except KeyError:
            return
