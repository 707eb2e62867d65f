"""The one metrics registry of a pod: the guide's names, and `ttsfleet_*` beside them.

HTTP workers report each request once; stages report their gauges with the heartbeat; the router counts the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client import Gauge as PrometheusGauge

from ttsfleet_runtime.messages import Gauge, RequestReport
from ttsfleet_runtime.router.voice_cache import VoiceCache

_SECONDS = (0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_RATIO = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 3.0, 10.0)


class Metrics:
    """Owns the registry; every metric here has a test that sees it change."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reported: defaultdict[str, set[str]] = defaultdict(set)  # process -> gauges that it has
        registry = self.registry
        self._latency = Histogram(
            "lightllm_request_latency_seconds",
            "Seconds from a request's arrival to its last byte",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._count = Counter("lightllm_request_count", "Requests that ended", ["route"], registry=registry)
        self._success = Counter("lightllm_request_success", "Requests answered well", ["route"], registry=registry)
        self._failure = Counter("lightllm_request_failure", "Requests that failed", ["route"], registry=registry)
        self._gpu_memory = PrometheusGauge(
            "lightllm_gpu_memory_usage_bytes", "GPU memory held by a process", ["process"], registry=registry
        )
        self._outcomes = Counter(
            "ttsfleet_requests", "Requests by outcome and status", ["route", "outcome", "status"], registry=registry
        )
        self._first_audio = Histogram(
            "ttsfleet_time_to_first_audio_seconds",
            "Seconds from a request's arrival to its first audio byte",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._rtf = Histogram(
            "ttsfleet_real_time_factor",
            "Latency over seconds of audio",
            ["route"],
            buckets=_RATIO,
            registry=registry,
        )
        self._audio_seconds = Counter("ttsfleet_audio_seconds", "Seconds of audio delivered", registry=registry)
        self._underruns = Counter(
            "ttsfleet_underruns", "Streamed chunks that came after playback had run dry", registry=registry
        )
        self._in_flight = PrometheusGauge(
            "ttsfleet_requests_in_flight", "Requests that the router holds", registry=registry
        )
        self._stage = PrometheusGauge(
            "ttsfleet_stage", "A level that a stage process reports", ["process", "gauge"], registry=registry
        )
        self._up = PrometheusGauge(
            "ttsfleet_process_up", "1 while the process is ready", ["process"], registry=registry
        )
        self._restarts = Counter("ttsfleet_process_restarts", "Exits of a process", ["kind"], registry=registry)
        self._ready = PrometheusGauge("ttsfleet_ready", "1 while the pod can serve", registry=registry)
        self._cache = PrometheusGauge(
            "ttsfleet_voice_cache", "Voice cache: entries, hits, misses, evictions", ["what"], registry=registry
        )

    def report(self, report: RequestReport) -> None:
        """Count one ended request."""
        route = report.route
        self._count.labels(route).inc()
        self._outcomes.labels(route, report.outcome, str(report.status)).inc()
        if report.outcome == "ok":
            self._success.labels(route).inc()
            self._latency.labels(route).observe(report.latency_seconds)
            if report.audio_seconds > 0:
                self._rtf.labels(route).observe(report.latency_seconds / report.audio_seconds)
        elif report.outcome != "cancelled":
            self._failure.labels(route).inc()
        if report.first_audio_seconds is not None:
            self._first_audio.labels(route).observe(report.first_audio_seconds)
        self._audio_seconds.inc(report.audio_seconds)
        self._underruns.inc(report.underruns)

    def heartbeat(self, identity: str, gauges: Iterable[Gauge]) -> None:
        """Take over what a stage process reported."""
        for gauge in gauges:
            if gauge.name == "gpu_memory_bytes":
                self._gpu_memory.labels(identity).set(gauge.value)
            else:
                self._stage.labels(identity, gauge.name).set(gauge.value)
            self._reported[identity].add(gauge.name)

    def process_up(self, identity: str) -> None:
        self._up.labels(identity).set(1)

    def process_down(self, identity: str, *, gone: bool) -> None:
        """A process exited; `gone` = it will not come back under this name, so its series end."""
        self._restarts.labels(identity.split("-")[0]).inc()
        self._up.labels(identity).set(0)
        for name in self._reported.pop(identity, set()):
            if name == "gpu_memory_bytes":
                self._gpu_memory.remove(identity)
            else:
                self._stage.remove(identity, name)
        if gone:
            self._up.remove(identity)

    def render(self, *, ready: bool, in_flight: int, cache: VoiceCache) -> str:
        """The exposition text, with the levels of this moment."""
        self._ready.set(1 if ready else 0)
        self._in_flight.set(in_flight)
        for what, value in (
            ("entries", len(cache)),
            ("hits", cache.hits),
            ("misses", cache.misses),
            ("evictions", cache.evictions),
        ):
            self._cache.labels(what).set(value)
        return generate_latest(self.registry).decode()
