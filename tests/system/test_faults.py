"""What clients see when a stage dies, when they leave, and when the pod must stop."""

from __future__ import annotations

import concurrent.futures
import os
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

LONG = "The quick brown fox jumps over the lazy dog near the river bank. " * 4


def _stream(service: Any, text: str = LONG) -> tuple[int, int, bool]:
    """(status, bytes, ended cleanly) of one streamed request."""
    received = 0
    try:
        body = {"input": text, "voice": "heart", "response_format": "pcm"}
        with httpx.stream("POST", f"{service.url}/v1/audio/speech", json=body, timeout=120) as response:
            for chunk in response.iter_bytes():
                received += len(chunk)
            return response.status_code, received, True
    except httpx.TransportError:
        return 0, received, False


@pytest.mark.parametrize("kind", ["encode", "llm", "decode"])
def test_a_killed_stage_harms_only_its_requests_and_comes_back(service: Any, kind: str) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(_stream, service) for _ in range(4)]
        service.wait_until(lambda: service.status()["requests_in_flight"] >= 3, "load was there", 30)
        pid = service.pid(kind)
        os.kill(pid, signal.SIGKILL)
        outcomes = [stream.result(timeout=120) for stream in streams]
    for status, _, clean in outcomes:
        # Answered well, refused with 503, or visibly cut: never a clean end of a partial body.
        assert (status, clean) in {(200, True), (503, True), (0, False)}, outcomes
    if kind == "encode":
        assert all(status == 200 and clean for status, _, clean in outcomes), "encode work is retried"
    service.wait_until(service.ready, f"ready again after {kind} was killed")
    assert service.pid(kind) != pid
    assert service.speak().status_code == 200
    service.wait_until(lambda: service.status()["requests_in_flight"] == 0, "nothing was left behind", 30)


def test_readiness_is_false_while_a_required_stage_is_dead(service: Any) -> None:
    os.kill(service.pid("llm"), signal.SIGKILL)
    service.wait_until(lambda: not service.ready(), "readiness fell", 5)
    service.wait_until(service.ready, "readiness came back")


def test_a_killed_http_worker_is_replaced_and_its_requests_are_cancelled(service: Any) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(_stream, service) for _ in range(2)]
        service.wait_until(lambda: service.status()["requests_in_flight"] == 2, "load was there", 30)
        os.kill(service.pid("http"), signal.SIGKILL)
        assert all(not stream.result(timeout=60)[2] for stream in streams)
    service.wait_until(lambda: service.status()["requests_in_flight"] == 0, "requests were cancelled", 10)
    service.wait_until(service.ready, "a new HTTP worker came")
    assert service.speak().status_code == 200


def test_an_http_worker_that_gets_sigterm_finishes_its_streams_and_is_replaced(service: Any) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(_stream, service) for _ in range(2)]
        service.wait_until(lambda: service.status()["requests_in_flight"] == 2, "load was there", 30)
        old = service.pid("http")
        os.kill(old, signal.SIGTERM)
        assert [stream.result(timeout=60)[2] for stream in streams] == [True, True]
    service.wait_until(lambda: old not in service.pids("http").values(), "the old worker went", 30)
    service.wait_until(service.ready, "a new HTTP worker came")
    assert service.speak().status_code == 200


def test_a_client_that_leaves_is_cancelled_in_all_stages(service: Any) -> None:
    body = {"input": LONG, "voice": "heart", "response_format": "pcm"}
    with httpx.stream("POST", f"{service.url}/v1/audio/speech", json=body, timeout=120) as response:
        next(response.iter_bytes())
    service.wait_until(lambda: service.status()["requests_in_flight"] == 0, "the request was cancelled", 10)

    # Of the last heartbeat, so a second late; published prefixes do not count among the used blocks.
    for gauge in ("llm_running", "llm_kv_blocks_used", "decode_active", "decode_queue_depth", "http_streams"):
        service.wait_until(lambda gauge=gauge: service.gauge(gauge) == 0, f"{gauge} fell to 0", 10)


def test_one_killed_llm_of_two_leaves_the_other_serving(pair: Any) -> None:
    assert sorted(pair.pids("decode")) == []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert [r.status_code for r in pool.map(lambda _: pair.speak(), range(4))] == [200] * 4
    os.kill(pair.pid("llm-0"), signal.SIGKILL)
    pair.wait_until(lambda: not pair.all_ready("llm-0"), "the router saw it", 5)
    assert pair.ready()
    assert pair.speak().status_code == 200


def test_stuck_llm_processes_are_killed_their_requests_get_503_and_the_service_recovers(pair: Any) -> None:
    pair.wait_until(lambda: pair.all_ready("llm"), "both workers were there")
    stuck = pair.pids("llm")
    for pid in stuck.values():
        os.kill(pid, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert [r.status_code for r in pool.map(lambda _: pair.speak(), range(2))] == [503, 503]
    pair.wait_until(pair.ready, "ready again")
    assert not set(stuck.values()) & set(pair.pids("llm").values())
    assert pair.speak().status_code == 200


def test_a_stuck_http_worker_is_killed_and_replaced(pair: Any) -> None:
    stuck = pair.pid("http")
    os.kill(stuck, signal.SIGSTOP)
    pair.wait_until(lambda: stuck not in pair.pids("http").values(), "the stuck worker was killed", 30)
    pair.wait_until(pair.ready, "a new HTTP worker came")
    assert pair.speak().status_code == 200


def test_sigterm_during_start_up_exits_at_once(starting: Any) -> None:
    starting.process.send_signal(signal.SIGTERM)
    assert starting.process.wait(5) == 0


def test_sigterm_lets_streams_finish_and_exits_0(start: Callable[..., Any]) -> None:
    service = start("--drain_seconds", "60")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(_stream, service) for _ in range(2)]
        service.wait_until(lambda: service.status()["requests_in_flight"] == 2, "load was there", 30)
        service.process.send_signal(signal.SIGTERM)
        service.wait_until(lambda: not service.accepts(), "new clients are refused, not kept waiting", 5)
        assert not service.ready()
        assert [stream.result(timeout=90)[2] for stream in streams] == [True, True]
    assert service.process.wait(30) == 0


def test_beyond_the_limits_clients_get_429_with_retry_after(start: Callable[..., Any]) -> None:
    service = start("--gpt_paral_num", "1", "--limits.queued_requests", "1")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: service.speak(), range(8)))
    codes = sorted(response.status_code for response in responses)
    assert set(codes) == {200, 429}, codes
    assert all(int(r.headers["retry-after"]) >= 1 for r in responses if r.status_code == 429)


def test_recycled_http_workers_cut_no_request(start: Callable[..., Any]) -> None:
    service = start("--max_requests", "3", "--max_requests_jitter", "1", "--httpserver_workers", "1")
    first = service.pid("http")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        codes = [response.status_code for response in pool.map(lambda _: service.speak(mode="sft"), range(12))]
    assert codes == [200] * 12
    # The first serves until its successor accepts, and that may be after the last answer.
    service.wait_until(lambda: first not in service.pids("http").values(), "the first worker was replaced", 60)
    assert service.speak(mode="sft").status_code == 200


def test_an_api_key_is_required_when_one_is_set(start: Callable[..., Any]) -> None:
    service = start("--api-key", "secret")
    assert service.speak().status_code == 401
    headers = {"authorization": "Bearer secret"}
    body = {"input": "Hello.", "voice": "heart", "response_format": "wav"}
    assert httpx.post(f"{service.url}/v1/audio/speech", json=body, headers=headers, timeout=60).status_code == 200
