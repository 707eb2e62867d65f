"""The endpoints beside speech."""

from __future__ import annotations

import re
from typing import Any

import openai
import pytest

from ttsfleet_runtime.messages import RegisterVoice

PREFIXES = ["/v1/voices", "/v1/audio/voices"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_voice_is_registered_listed_shown_and_deleted(server: Any, prefix: str) -> None:
    with server.http() as client:
        created = client.post(
            prefix, data={"name": "ada", "transcript": "What I said."}, files={"file": ("a.wav", b"RIFFxx")}
        )
        assert created.status_code == 201
        assert created.json()["id"] == created.json()["name"] == "ada"
        sent = server.router.wait_for(RegisterVoice)
        assert (sent.name, sent.audio, sent.transcript) == ("ada", b"RIFFxx", "What I said.")
        listing = client.get(prefix).json()
        assert listing["voices"] == ["heart", "bella", "ada"]
        assert listing["data"][2]["kind"] == "registered"
        assert client.get(f"{prefix}/ada").json()["transcript"] == "What I said."
        assert client.delete(f"{prefix}/ada").json() == {"id": "ada", "object": "voice", "deleted": True}
        assert client.get(f"{prefix}/ada").status_code == 404
        assert client.delete(f"{prefix}/ada").status_code == 404


@pytest.mark.parametrize(("audio", "text"), [("audio", "transcript"), ("audio_sample", "ref_text")])
def test_other_spellings_of_the_form_are_taken(server: Any, audio: str, text: str) -> None:
    with server.http() as client:
        answer = client.post("/v1/voices", data={"name": "ada", text: "Words."}, files={audio: b"abc"})
    assert answer.status_code == 201
    sent = server.router.wait_for(RegisterVoice)
    assert (sent.audio, sent.transcript) == (b"abc", "Words.")


BAD_FORMS: list[tuple[str, dict[str, Any], int, str]] = [
    ("no form", {"json": {"name": "x"}}, 400, "multipart/form-data"),
    ("no name", {"files": {"file": b"abc"}}, 400, "`name` is required"),
    ("no file", {"data": {"name": "x"}, "files": {"other": b"abc"}}, 400, "`file` is required"),
    ("text as file", {"files": {"name": (None, "x"), "file": (None, "abc")}}, 400, "`file` is required"),
    ("file as name", {"files": {"name": ("n.txt", b"x")}}, 400, "must be text"),
    ("empty file", {"data": {"name": "x"}, "files": {"file": b""}}, 400, "empty"),
    ("large file", {"data": {"name": "x"}, "files": {"file": b"a" * 2000}}, 413, "limits.prompt_bytes"),
    ("two files", {"files": {"file": b"a", "audio": b"b"}}, 400, "Too many files"),
    ("known name", {"data": {"name": "heart"}, "files": {"file": b"abc"}}, 400, "exists"),
]


@pytest.mark.parametrize(("form", "status", "words"), [c[1:] for c in BAD_FORMS], ids=[c[0] for c in BAD_FORMS])
def test_a_bad_registration_is_told_what_is_wrong(
    start_server: Any, form: dict[str, Any], status: int, words: str
) -> None:
    with start_server(limits={"prompt_bytes": 1000}).http() as client:
        answer = client.post("/v1/voices", **form)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_a_form_that_is_cut_is_refused_in_shape(server: Any) -> None:
    with server.http() as client:
        answer = client.post("/v1/voices", content=b"junk", headers={"content-type": "multipart/form-data"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_models_list_styles_and_openai_names(server: Any) -> None:
    with server.openai() as client:
        names = [each.id for each in client.models.list()]
        assert names[:3] == ["tiny", "cosyvoice", "news"]
        assert {"tts-1", "tts-1-hd", "gpt-4o-mini-tts"} < set(names)
        assert client.models.retrieve("news").id == "news"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-5")


@pytest.mark.parametrize("path", ["/", "/status"])
def test_pages_are_self_contained(server: Any, path: str) -> None:
    with server.http() as client:
        page = client.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import""", page.text)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert page.text.count("<script>") == 1


def test_status_is_what_the_router_says(server: Any) -> None:
    with server.http() as client:
        assert client.get("/v1/status").json()["plan"] == {"device": "cpu"}


def test_metrics_are_the_routers_text(server: Any) -> None:
    with server.http() as client:
        answer = client.get("/metrics")
    assert answer.text == "ttsfleet_ready 1.0\n"
    assert answer.headers["content-type"].startswith("text/plain; version=")


def test_health_follows_readiness(server: Any) -> None:
    with server.http() as client:
        assert client.get("/health").json() == {"status": "ok"}
        server.router.status = {"ready": False, "problems": ["llm-0 is not ready"]}
        answer = client.get("/health")
        assert answer.status_code == 503
        assert "llm-0 is not ready" in answer.json()["error"]["message"]


def test_a_router_that_does_not_answer_makes_health_fail(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ttsfleet_runtime.server.pages._PROBE_SECONDS", 0.2)
    server.router.silent = True
    with server.http() as client:
        answer = client.get("/health")
    assert answer.status_code == 503
    assert "did not answer within 0.2 s" in answer.json()["error"]["message"]


def test_the_schema_documents_the_speech_body(server: Any) -> None:
    with server.http() as client:
        schema = client.get("/openapi.json").json()
    body = schema["paths"]["/v1/audio/speech"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"input", "voice", "seed", "ignore_eos", "ref_audio"} <= set(body["properties"])
    assert "$ref" not in str(body)
