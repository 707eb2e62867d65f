"""Who may enter, under which name, and what every answer carries."""

from __future__ import annotations

import re
import socket
from typing import Any

import openai
import pytest

from ttsfleet_runtime.messages import RequestReport, SpeechRequest

KEY = "sk-secret"
LOCKED = [
    ("POST", "/v1/audio/speech"),
    ("GET", "/v1/models"),
    ("GET", "/v1/voices"),
    ("DELETE", "/v1/voices/x"),
    ("GET", "/v1/status"),
    ("GET", "/nothing"),
]
OPEN = ["/", "/status", "/health", "/metrics"]
WRONG_KEYS = [
    {},
    {"authorization": KEY},
    {"authorization": "Bearer"},
    {"authorization": "Bearer sk-other"},
    {"authorization": f"Bearer {KEY}x"},
    {"authorization": f"Basic {KEY}"},
]


@pytest.mark.parametrize(("method", "path"), LOCKED)
def test_the_api_needs_the_key(start_server: Any, method: str, path: str) -> None:
    with start_server(api_key=KEY).http() as client:
        for headers in WRONG_KEYS:
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_pages_need_no_key(start_server: Any, path: str) -> None:
    with start_server(api_key=KEY).http() as client:
        assert client.get(path).status_code == 200


def test_the_openai_client_enters_with_the_key(start_server: Any) -> None:
    server = start_server(api_key=KEY)
    with server.openai(api_key=KEY) as client:
        assert client.audio.speech.create(model="tts-1", voice="heart", input="Hi.").content
    with server.openai(api_key="sk-other") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_without_a_key_everyone_enters(server: Any) -> None:
    with server.http() as client:
        assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-123", True),
        ("5f0c:7.a_b", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("<b>", False),
        ("", False),
    ],
)
def test_a_plain_request_id_is_echoed_and_another_replaced(server: Any, given: str, kept: bool) -> None:
    with server.http() as client:
        answer = client.get("/v1/models", headers={"x-request-id": given})
    if kept:
        assert answer.headers["x-request-id"] == given
    else:
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nothing", 404, "not_found"), ("GET", "/v1/audio/speech", 405, "method_not_allowed")],
)
def test_framework_errors_have_openai_shape(server: Any, method: str, path: str, status: int, code: str) -> None:
    with server.http() as client:
        answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert path in answer.json()["error"]["message"]
    report = server.router.wait_for(RequestReport)
    assert (report.status, report.outcome) == (status, "error")
    assert report.route == ("other" if status == 404 else path)


def test_requests_beyond_worker_connections_are_429(start_server: Any) -> None:
    server = start_server(server={"worker_connections": 1})
    server.router.behaviours["Wait."] = lambda router, request: None
    with server.http() as slow, server.http() as other:
        request = slow.build_request("POST", "/v1/audio/speech", json={"input": "Wait.", "voice": "heart"})
        import threading

        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(slow.send(request)))
        thread.start()
        waiting = server.router.wait_for(SpeechRequest)
        refused = other.get("/v1/models")
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert "server.worker_connections" in refused.json()["error"]["message"]
        assert other.get("/health").status_code == 200
        server.router.do(lambda: server.router.speak(waiting))
        thread.join(10)
        assert answers[0].status_code == 200
        assert other.get("/v1/models").status_code == 200


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
def test_a_body_that_no_recording_needs_is_413(start_server: Any, declared: bool) -> None:
    server = start_server(limits={"prompt_bytes": 1000})
    body = b"x" * (2 * 2**20)
    content: Any = body if declared else iter([body[: 2**20], body[2**20 :]])
    with server.http() as client:
        answer = client.post("/v1/audio/speech", content=content)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_a_body_that_does_not_come_is_408(start_server: Any) -> None:
    server = start_server(server={"timeout": 0.2})
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")


def test_a_connection_that_never_sends_a_request_is_closed(start_server: Any) -> None:
    server = start_server(server={"keepalive": 1})
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        assert connection.recv(1) == b""


def test_cors_lets_the_configured_origins_in_even_to_errors(start_server: Any) -> None:
    server = start_server(api_key=KEY, server={"cors_origins": ["https://app.example"]})
    origin = {"origin": "https://app.example"}
    with server.http() as client:
        preflight = client.options(
            "/v1/audio/speech",
            headers={
                **origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        refused = client.post("/v1/audio/speech", headers=origin, json={})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://app.example"
        assert "X-Request-Id" in refused.headers["access-control-expose-headers"]
        other = client.get("/v1/models", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_without_configured_origins_there_is_no_cors(server: Any) -> None:
    with server.http() as client:
        answer = client.get("/v1/models", headers={"origin": "https://app.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_probes_are_not_reported_and_other_requests_are(server: Any) -> None:
    with server.http() as client:
        client.get("/health")
        client.get("/metrics")
        client.get("/v1/models/tts-1")
    assert server.router.wait_for(RequestReport).route == "/v1/models/{model_id:path}"
    assert server.router.count(RequestReport) == 1


def test_each_request_has_one_log_line(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="ttsfleet_runtime.server"):
        server.speak(stream=True)
        report = server.router.wait_for(RequestReport)
    lines = [r.getMessage() for r in caplog.records if r.name == "ttsfleet_runtime.server"]
    assert len(lines) == 1
    assert lines[0].startswith("POST /v1/audio/speech 200 ok id=")
    assert f"key={report.key}" in lines[0]
    for name in ("total=", "first_audio=", "queue=", "encode=", "llm=", "decode=", "audio=1.20s", "underruns=0"):
        assert name in lines[0]
