"""Every exit code as a named scenario, with the real program, and what may never happen on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from ttsfleet_runtime.fetch.failures import SENTENCES, Failure

SECRET = b"secret words of the server"


def archive_source(origin: Any, sha256: str = "a" * 64) -> dict[str, str]:
    return {"kind": "https", "url": f"{origin.url}/voice.tar", "sha256": sha256}


def answers(code: int, **headers: str) -> Callable[[Any], None]:
    return lambda handler: handler.status(code, {name.title(): value for name, value in headers.items()}, SECRET)


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        pytest.param(answers(401), Failure.DENIED, id="no valid token"),
        pytest.param(answers(403), Failure.DENIED, id="not allowed"),
        pytest.param(answers(404), Failure.NOT_FOUND, id="no such file"),
        pytest.param(answers(500), Failure.UNREACHABLE, id="a server that fails again and again"),
        pytest.param(answers(429), Failure.UNREACHABLE, id="a server that asks for patience"),
        pytest.param(answers(418), Failure.FAILED, id="a status that nobody expects"),
        pytest.param(answers(200), Failure.CHECKSUM_MISMATCH, id="another file than was meant"),
        pytest.param(answers(302, location="http://192.0.2.1/x"), Failure.UNSAFE_CONTENT, id="redirect to http"),
        pytest.param(
            answers(302, location="https://169.254.169.254/x"), Failure.UNSAFE_CONTENT, id="redirect to metadata"
        ),
        pytest.param(
            answers(302, location="https://[::ffff:169.254.169.254]/x"),
            Failure.UNSAFE_CONTENT,
            id="redirect to metadata in disguise",
        ),
        pytest.param(answers(302, location="ftp://example.com/x"), Failure.UNSAFE_CONTENT, id="redirect to ftp"),
        pytest.param(
            answers(302, location="https://user:pw@example.com/"), Failure.UNSAFE_CONTENT, id="redirect with password"
        ),
        pytest.param(answers(302, location="/voice.tar"), Failure.UNSAFE_CONTENT, id="redirects without end"),
    ],
)
def test_answer_becomes_an_exit_code_and_one_of_our_sentences(
    reply: Any, failure: Any, origin: Any, program: Any
) -> None:
    origin.replies["/voice.tar"] = [reply] * 9
    result = program.run(archive_source(origin))
    assert (result.code, result.message) == (failure, SENTENCES[failure]), result.log
    assert SECRET.decode() not in result.log + result.output
    assert not program.model_dir.exists()


def test_source_that_stops_sending(origin: Any, program: Any) -> None:
    origin.files["/voice.tar"] = bytes(100_000)
    origin.replies["/voice.tar"] = [origin.stop_at(50_000), origin.stop_at(60_000)]
    result = program.run(archive_source(origin), "--stall-seconds", "0.3", "--attempts", "2")
    assert (result.code, result.message) == (Failure.TIMEOUT, "the model's source stopped sending"), result.log
    assert len(origin.seen) == 2


def test_source_that_is_slow_but_sends_is_waited_for(origin: Any, program: Any) -> None:
    content = bytes(50_000)
    origin.files["/voice.tar"] = content
    origin.replies["/voice.tar"] = [lambda handler: handler.serve(until=20_000), answers(503, retry_after="0")]
    result = program.run(archive_source(origin, hashlib.sha256(content).hexdigest()))
    assert result.code == Failure.INVALID_SOURCE  # 50,000 zeros are no archive, but they are the right ones
    assert [seen.headers.get("range") for seen in origin.seen] == [None, "bytes=20000-", "bytes=20000-"]


def test_nobody_listens(origin: Any, program: Any, new_origin: Any) -> None:
    source = archive_source(origin) | {"url": "https://localhost:9/voice.tar"}
    assert program.run(source).code == Failure.UNREACHABLE


def test_name_that_nobody_knows(origin: Any, program: Any) -> None:
    source = archive_source(origin) | {"url": "https://models.invalid/voice.tar"}
    result = program.run(source, "--attempts", "1")
    assert (result.code, result.message) == (Failure.UNREACHABLE, "the model's source cannot be reached")


def test_certificate_of_an_unknown_authority_is_not_tried_twice(origin: Any, program: Any) -> None:
    result = program.run(archive_source(origin), ca_file="")
    assert result.code == Failure.UNREACHABLE
    assert "certificate is not trusted" in result.log
    assert "trying again" not in result.log
    assert origin.seen == []


def test_certificate_of_another_name(origin: Any, program: Any) -> None:
    source = archive_source(origin) | {"url": f"https://localhost.localdomain:{origin.port}/voice.tar"}
    assert program.run(source, "--attempts", "1").code == Failure.UNREACHABLE


@pytest.mark.parametrize(
    ("url", "flags"),
    [
        pytest.param("http://{host}/voice.tar", (), id="http"),
        pytest.param("https://{host}/voice.tar", (), id="loopback"),
        pytest.param("https://127.1:{port}/voice.tar", (), id="loopback in short"),
        pytest.param("https://2130706433:{port}/voice.tar", (), id="loopback as a number"),
        pytest.param("https://169.254.169.254/voice.tar", ("--allow-insecure-loopback",), id="metadata"),
        pytest.param("http://192.0.2.1/voice.tar", ("--allow-insecure-loopback",), id="http elsewhere"),
        pytest.param("https://user:password@{host}/voice.tar", ("--allow-insecure-loopback",), id="password"),
        pytest.param("file:///etc/passwd", ("--allow-insecure-loopback",), id="a file"),
    ],
)
def test_address_in_the_spec_that_no_fetch_may_use(url: str, flags: Any, origin: Any, program: Any) -> None:
    program.flags = flags
    host = f"localhost:{origin.port}"
    source = archive_source(origin) | {"url": url.format(host=host, port=origin.port)}
    result = program.run(source)
    assert (result.code, result.message) == (Failure.INVALID_SOURCE, SENTENCES[Failure.INVALID_SOURCE]), result.log
    assert origin.seen == []
    assert "password" not in result.log.replace("a user or password", "")


def test_http_on_this_machine_needs_the_flag(new_origin: Any, program: Any) -> None:
    plain = new_origin(tls=False)
    assert program.run(archive_source(plain)).code == Failure.NOT_FOUND


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"schema_version": 2}, id="a later schema"),
        pytest.param({"surprise": 1}, id="an unknown key"),
        pytest.param({"source": {"kind": "ftp"}}, id="an unknown kind"),
        pytest.param({"source": {"kind": "mounted", "path": "/"}}, id="an unknown key of the source"),
        pytest.param({"model_dir": "models/x"}, id="a relative directory"),
        pytest.param({"manifest_sha256": "A" * 64}, id="a pin in capitals"),
        pytest.param({"ca_file": "/nowhere/ca.crt"}, id="a CA that is not there"),
    ],
)
def test_configuration_that_is_refused(change: dict[str, Any], hub: Any, program: Any) -> None:
    result = program.run(change.get("source", hub.source), **{k: v for k, v in change.items() if k != "source"})
    assert (result.code, result.message) == (Failure.INVALID_SOURCE, SENTENCES[Failure.INVALID_SOURCE])
    assert hub.origin.seen == []


def test_model_that_is_larger_than_accepted(hub: Any, program: Any) -> None:
    result = program.run(hub.source, "--max-gib", "0.0001")
    assert (result.code, result.message) == (Failure.UNSAFE_CONTENT, SENTENCES[Failure.UNSAFE_CONTENT])
    assert hub.origin.requests_of(hub.route("llm.pt")) == []


def test_archive_that_is_larger_than_accepted_is_not_fetched_to_its_end(origin: Any, program: Any) -> None:
    origin.files["/voice.tar"] = bytes(3_000_000)

    def without_length(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.close_connection = True
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(bytes(100_000))
            origin.sent["/voice.tar"] += 100_000

    origin.replies["/voice.tar"] = [without_length]
    assert program.run(archive_source(origin), "--max-gib", "0.001").code == Failure.UNSAFE_CONTENT
    assert origin.sent["/voice.tar"] < 50_000_000


def test_listing_with_a_path_that_leaves_is_refused(hub: Any, program: Any) -> None:
    hub.files["../../outside.pt"] = b"x"
    hub.publish()
    result = program.run(hub.source)
    assert result.code == Failure.UNSAFE_CONTENT
    assert "'../../outside.pt'" in result.log


def test_hub_that_answers_nonsense(hub: Any, program: Any) -> None:
    hub.origin.files[f"/api/models/{hub.repo}/revision/main"] = SECRET
    result = program.run(hub.source)
    assert (result.code, result.message) == (Failure.FAILED, "the fetch failed; its log tells more")
    assert SECRET.decode() not in result.log


def test_volume_that_cannot_be_written_is_a_failure_with_its_reason(hub: Any, program: Any, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"")
    program.model_dir = tmp_path / "file" / "models" / "voice"
    result = program.run(hub.source)
    assert result.code == Failure.FAILED
    assert "Not a directory" in result.log


def test_every_failure_has_its_sentence() -> None:
    assert SENTENCES.keys() == set(Failure)
