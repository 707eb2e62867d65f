"""What can go wrong with a request, and that each way ends in an answer that cannot be mistaken for success."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from ttsfleet_runtime.errors import ErrorInfo
from ttsfleet_runtime.messages import Cancel, RequestReport, SegmentConsumed, SpeechRequest

DIED = ErrorInfo(code="unavailable", message="the process llm-0 died", status=503, retry_after_seconds=1)


def silent(_router: Any, _request: Any) -> None:
    """Leave the request unanswered."""


def one_chunk(router: Any, request: Any) -> None:
    router.chunk(request, 0, 0, num_segments=1, num_chunks=2)


def chunk_then_failure(router: Any, request: Any) -> None:
    router.fail_after_first_chunk(request, DIED)


def raw_request(server: Any, **fields: Any) -> socket.socket:
    """A speech request on a bare socket."""
    body = json.dumps({"input": "Hello.", "voice": "heart", **fields}).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(head + body)
    return connection


def read_all(connection: socket.socket) -> bytes:
    with connection:
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stream_format": "sse"}], ids=["whole", "raw", "sse"])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DIED, openai.InternalServerError),
        (ErrorInfo(code="overloaded", message="full", status=429, retry_after_seconds=2.2), openai.RateLimitError),
        (ErrorInfo(code="not_found", message="no such voice", status=404, param="voice"), openai.NotFoundError),
        (ErrorInfo(code="invalid_request", message="no", status=400), openai.BadRequestError),
    ],
    ids=lambda value: value.code if isinstance(value, ErrorInfo) else "",
)
def test_a_failure_before_audio_is_a_json_error(
    server: Any, fields: dict[str, Any], error: ErrorInfo, kind: type[openai.APIStatusError]
) -> None:
    server.router.behaviours["Hello."] = lambda router, request: router.fail(request, error)
    with server.openai() as client, pytest.raises(kind) as caught:
        client.audio.speech.create(model="tts-1", voice="heart", input="Hello.", extra_body=fields)
    assert caught.value.status_code == error.status
    assert caught.value.code == error.code
    assert error.message in caught.value.message
    wanted = {503: "1", 429: "3"}.get(error.status)
    assert caught.value.response.headers.get("retry-after") == wanted


def test_a_failure_after_audio_aborts_a_raw_body(server: Any) -> None:
    server.router.behaviours["Hello."] = chunk_then_failure
    received = read_all(raw_request(server, stream=True))
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"transfer-encoding: chunked" in head
    assert body
    assert not body.endswith(b"0\r\n\r\n")
    report = server.router.wait_for(RequestReport)
    assert (report.status, report.outcome) == (503, "error")


def test_an_aborted_body_is_an_error_to_the_client_library(server: Any) -> None:
    server.router.behaviours["Hello."] = chunk_then_failure
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        server.speak(stream=True)


@pytest.mark.parametrize("fields", [{}, {"stream": True}], ids=["whole", "streamed"])
def test_a_client_that_leaves_before_audio_cancels_its_request(server: Any, fields: dict[str, Any]) -> None:
    server.router.behaviours["Hello."] = silent
    connection = raw_request(server, **fields)
    request = server.router.wait_for(SpeechRequest)
    connection.close()
    assert server.router.wait_for(Cancel).key == request.key
    report = server.router.wait_for(RequestReport)
    assert (report.status, report.outcome, report.key) == (499, "cancelled", request.key)
    assert server.client.num_streams == 0


@pytest.mark.parametrize("fields", [{"stream": True}, {"stream_format": "sse"}], ids=["raw", "sse"])
def test_a_client_that_leaves_midway_cancels_its_request(server: Any, fields: dict[str, Any]) -> None:
    server.router.behaviours["Hello."] = one_chunk
    connection = raw_request(server, **fields)
    assert connection.recv(100).startswith(b"HTTP/1.1 200")
    connection.close()
    request = server.router.wait_for(SpeechRequest)
    assert server.router.wait_for(Cancel).key == request.key
    report = server.router.wait_for(RequestReport)
    assert report.outcome == "cancelled"
    assert report.audio_seconds == pytest.approx(0.2)


def test_a_request_that_ended_well_is_not_cancelled(server: Any) -> None:
    server.speak(stream=True)
    server.router.wait_for(RequestReport)
    assert server.router.count(Cancel) == 0


def test_the_deadline_before_audio_is_504(start_server: Any) -> None:
    server = start_server(server={"timeout": 0.3})
    server.router.behaviours["Hello."] = silent
    answer = server.speak()
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert "server.timeout (0.3 s)" in answer.json()["error"]["message"]
    server.router.wait_for(Cancel)
    assert server.router.wait_for(RequestReport).outcome == "timeout"


def test_the_deadline_after_audio_ends_events_with_an_error(start_server: Any) -> None:
    server = start_server(server={"timeout": 0.3})
    server.router.behaviours["Hello."] = one_chunk
    answer = server.speak(stream_format="sse")
    assert answer.text.rstrip().rpartition("\n\n")[2].startswith("event: error\ndata: ")
    assert "deadline_exceeded" in answer.text
    server.router.wait_for(Cancel)
    assert server.router.wait_for(RequestReport).outcome == "timeout"


def test_the_deadline_after_audio_aborts_a_raw_body(start_server: Any) -> None:
    server = start_server(server={"timeout": 0.3})
    server.router.behaviours["Hello."] = one_chunk
    with pytest.raises(httpx.RemoteProtocolError):
        server.speak(stream=True)


def test_a_client_that_reads_nothing_holds_back_the_segments_to_come(start_server: Any) -> None:
    server = start_server(server={"timeout": 1.5})
    chunks = 2000  # 19 MB: more than the kernel buffers of both ends

    def flood(router: Any, request: Any) -> None:
        router.speak(request, num_segments=2, num_chunks=chunks)

    server.router.behaviours["Hello."] = flood
    connection = raw_request(server, response_format="pcm")
    report = server.router.wait_for(RequestReport)
    connection.close()
    assert report.outcome == "timeout"
    assert server.router.count(SegmentConsumed) == 1


def test_chunks_that_come_out_of_order_are_played_in_order(server: Any) -> None:
    positions = [(1, 1), (0, 2), (2, 0), (0, 0), (1, 0), (2, 1), (0, 1), (1, 2), (2, 2)]

    def shuffled(router: Any, request: Any) -> None:
        for segment, index in positions:
            router.chunk(request, segment, index, num_segments=3, num_chunks=3)

    def in_order(router: Any, request: Any) -> None:
        router.speak(request, num_segments=3, num_chunks=3)

    server.router.behaviours.update({"Shuffled.": shuffled, "In order.": in_order})
    bodies = [server.speak(text, response_format="pcm").content for text in ("Shuffled.", "In order.")]
    assert len(bodies[0]) == 9 * 4800 * 2
    np.testing.assert_array_equal(np.frombuffer(bodies[0], "<i2"), np.frombuffer(bodies[1], "<i2"))


def test_a_chunk_sent_twice_is_played_once(server: Any) -> None:
    def stutter(router: Any, request: Any) -> None:
        one_chunk(router, request)
        router.speak(request, num_segments=1, num_chunks=2)

    server.router.behaviours["Hello."] = stutter
    assert len(server.speak(response_format="pcm").content) == 2 * 4800 * 2


def test_when_the_router_goes_what_waits_fails_at_once(server: Any) -> None:
    server.router.behaviours["Hello."] = silent
    connection = raw_request(server)
    server.router.wait_for(SpeechRequest)
    started = time.monotonic()
    server.router.close()
    head = connection.recv(65536)
    connection.close()
    assert head.startswith(b"HTTP/1.1 503")
    assert time.monotonic() - started < 2.0
    answer = server.speak()
    assert answer.status_code == 503
    assert "router" in answer.json()["error"]["message"]
    assert int(answer.headers["retry-after"]) >= 1


def test_a_bug_of_ours_is_a_json_500_that_names_the_request(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    def wrong_rate(router: Any, request: Any) -> None:
        from ttsfleet_runtime.messages import AudioChunk, StageTimes, encode_messages

        chunk = AudioChunk(
            key=request.key,
            segment=0,
            index=0,
            pcm=b"\0\0",
            sample_rate=-1,
            tokens=[],
            last=True,
            last_segment=True,
            times=StageTimes(),
        )
        router._peer(request.reply_to).send(encode_messages([chunk]))

    server.router.behaviours["Hello."] = wrong_rate
    answer = server.speak()
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert answer.headers["x-request-id"] in caplog.text
    assert server.speak("Next.").status_code == 200


def test_a_crowd_of_which_some_leave_is_answered_and_leaves_nothing_behind(server: Any) -> None:
    server.router.behaviours["Silent."] = silent

    def visit(number: int) -> int:
        if number % 4 == 0:
            connection = raw_request(server, input="Silent." if number % 8 else "Hello.", stream=True)
            connection.close()
            return 200
        fields = [{}, {"stream": True}, {"stream_format": "sse"}, {"response_format": "pcm"}][number % 4]
        return server.speak(**fields).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(visit, range(120))) == {200}
    server.router.wait_for(RequestReport, 120)
    assert (server.client.num_streams, server.load.running) == (0, 0)
