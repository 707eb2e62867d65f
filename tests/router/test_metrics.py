"""Every metric changes when what it measures happens."""

from __future__ import annotations

import pytest

from ttsfleet_runtime.messages import Gauge, RequestReport
from ttsfleet_runtime.router.metrics import Metrics
from ttsfleet_runtime.router.voice_cache import VoiceCache


def _text(metrics: Metrics, *, ready: bool = True, in_flight: int = 0) -> str:
    return metrics.render(ready=ready, in_flight=in_flight, cache=VoiceCache(1))


def _report(outcome: str, status: int = 200) -> RequestReport:
    return RequestReport(
        key="k",
        route="/v1/audio/speech",
        status=status,
        outcome=outcome,
        latency_seconds=1.0,
        first_audio_seconds=0.25,
        audio_seconds=4.0,
        underruns=2,
    )


@pytest.mark.parametrize(
    ("outcome", "status", "line"),
    [
        ("ok", 200, 'lightllm_request_success_total{route="/v1/audio/speech"} 1.0'),
        ("ok", 200, 'lightllm_request_count_total{route="/v1/audio/speech"} 1.0'),
        ("ok", 200, 'lightllm_request_latency_seconds_sum{route="/v1/audio/speech"} 1.0'),
        ("ok", 200, 'ttsfleet_real_time_factor_sum{route="/v1/audio/speech"} 0.25'),
        ("ok", 200, 'ttsfleet_time_to_first_audio_seconds_sum{route="/v1/audio/speech"} 0.25'),
        ("ok", 200, "ttsfleet_audio_seconds_total 4.0"),
        ("ok", 200, "ttsfleet_underruns_total 2.0"),
        ("error", 503, 'lightllm_request_failure_total{route="/v1/audio/speech"} 1.0'),
        ("error", 503, 'ttsfleet_requests_total{outcome="error",route="/v1/audio/speech",status="503"} 1.0'),
        ("cancelled", 499, 'ttsfleet_requests_total{outcome="cancelled",route="/v1/audio/speech",status="499"} 1.0'),
    ],
)
def test_a_report_is_counted(outcome: str, status: int, line: str) -> None:
    metrics = Metrics()
    assert line not in _text(metrics)
    metrics.report(_report(outcome, status))
    assert line in _text(metrics)


def test_a_client_that_left_is_no_failure() -> None:
    metrics = Metrics()
    metrics.report(_report("cancelled"))
    assert "lightllm_request_failure_total{" not in _text(metrics)


def test_stage_gauges_appear_with_the_heartbeat_and_end_with_the_process() -> None:
    metrics = Metrics()
    metrics.process_up("llm-0-a")
    metrics.heartbeat("llm-0-a", [Gauge(name="llm_running", value=3), Gauge(name="gpu_memory_bytes", value=5)])
    text = _text(metrics)
    assert 'ttsfleet_stage{gauge="llm_running",process="llm-0-a"} 3.0' in text
    assert 'lightllm_gpu_memory_usage_bytes{process="llm-0-a"} 5.0' in text
    assert 'ttsfleet_process_up{process="llm-0-a"} 1.0' in text
    metrics.process_down("llm-0-a", gone=False)
    text = _text(metrics)
    assert "ttsfleet_stage{" not in text
    assert "lightllm_gpu_memory_usage_bytes{" not in text
    assert 'ttsfleet_process_up{process="llm-0-a"} 0.0' in text
    assert 'ttsfleet_process_restarts_total{kind="llm"} 1.0' in text


def test_levels_of_the_moment_are_rendered() -> None:
    metrics = Metrics()
    text = _text(metrics, ready=False, in_flight=7)
    assert "ttsfleet_ready 0.0" in text
    assert "ttsfleet_requests_in_flight 7.0" in text
    assert 'ttsfleet_voice_cache{what="entries"} 0.0' in text
