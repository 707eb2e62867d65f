"""stream_format sse: OpenAI's events, and errors in the midst of them."""

from __future__ import annotations

import base64
import json
from typing import Any

import openai
import pytest
from openai._streaming import Stream

from ttsfleet_runtime.errors import ErrorInfo
from ttsfleet_runtime.messages import RequestReport

PCM_BYTES_PER_REQUEST = 6 * 4800 * 2
FAILURE = ErrorInfo(code="unavailable", message="the decoder died", status=503)


def events(server: Any, text: str = "Hello.", **fields: Any) -> list[tuple[str, dict[str, Any]]]:
    """(event name, data) of each event, by the letter of the format."""
    answer = server.speak(text, stream_format="sse", response_format="pcm", **fields)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    blocks = answer.text.split("\n\n")
    assert blocks.pop() == ""
    parsed = []
    for block in blocks:
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        parsed.append((lines.get("event", ""), json.loads(lines["data"])))
    return parsed


def speak_then_fail(router: Any, request: Any) -> None:
    router.fail_after_first_chunk(request, FAILURE)


def test_deltas_carry_the_audio_and_done_the_usage(server: Any) -> None:
    *deltas, (_, done) = events(server)
    assert all(name == "" and data["type"] == "speech.audio.delta" for name, data in deltas)
    audio = b"".join(base64.b64decode(data["audio"]) for _, data in deltas)
    assert len(audio) == PCM_BYTES_PER_REQUEST
    assert done == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 14, "output_tokens": 30, "total_tokens": 44},
    }


def test_token_ids_come_with_done_when_asked_for(server: Any) -> None:
    _, done = events(server, return_tokens=True)[-1]
    assert done["speech_tokens"] == [s * 100 + i for s in range(2) for i in range(3) for _ in range(5)]


def test_a_failure_after_audio_is_an_error_event_and_the_end(server: Any) -> None:
    server.router.behaviours["Fail."] = speak_then_fail
    *deltas, (name, data) = events(server, "Fail.")
    assert len(deltas) == 1
    assert name == "error"
    assert data["error"] == {
        "message": "the decoder died",
        "type": "server_error",
        "param": None,
        "code": "unavailable",
    }
    report = server.router.wait_for(RequestReport)
    assert (report.status, report.outcome) == (503, "error")


@pytest.mark.parametrize("fails", [False, True])
def test_the_openai_package_reads_the_events(server: Any, fails: bool) -> None:
    if fails:
        server.router.behaviours["Hello."] = speak_then_fail
    with server.openai() as client:
        body = {"input": "Hello.", "voice": "heart", "stream_format": "sse"}
        stream = client.post("/audio/speech", body=body, cast_to=dict, stream=True, stream_cls=Stream[dict[str, Any]])
        if fails:
            with pytest.raises(openai.APIError, match="the decoder died"):
                list(stream)
        else:
            kinds = [event["type"] for event in stream]
            assert kinds[-1] == "speech.audio.done"
            assert set(kinds[:-1]) == {"speech.audio.delta"}
