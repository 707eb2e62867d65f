"""Each kind of source, from real servers: what it lists, what is fetched, and where its secret goes."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ttsfleet_runtime.checkpoint import resolve_model_dir
from ttsfleet_runtime.checkpoint.directory import open_model_dir
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.manifest import digest_files, hash_tree

TOKEN = "hf_s3cr3tt0ken"


def tar_of(files: dict[str, bytes], top: str = "model/") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(f"{top}{path}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def test_hub_gives_the_files_of_the_commit_and_keeps_the_rest(
    hub: Any, program: Any, model: Any, model_digest: Any
) -> None:
    assert program.fetch(hub.source) == model_digest
    assert program.files == model
    assert hub.origin.requests_of(hub.route(".gitattributes")) == []


def test_token_goes_to_the_hub_and_never_to_where_it_redirects(
    hub: Any, new_origin: Any, program: Any, model: Any, token_file: Any
) -> None:
    hub.cdn = new_origin()
    hub.publish()
    result = program.run(hub.source | {"token_file": str(token_file)})
    assert result.code == 0, result.log
    assert program.files == model
    assert {seen.headers.get("authorization") for seen in hub.origin.seen} == {f"Bearer {TOKEN}"}
    assert hub.cdn.seen
    assert not [seen for seen in hub.cdn.seen if "authorization" in seen.headers]
    assert TOKEN not in result.log + result.output + result.message
    assert "s3cr3t" not in result.log  # nor a signature in a redirect


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("llm.pt", id="by its SHA-256"),
        pytest.param("cosyvoice2.yaml", id="by its git blob"),
    ],
)
def test_file_that_is_not_what_the_hub_lists_is_refused(path: str, hub: Any, program: Any, model: Any) -> None:
    hub.origin.files[hub.route(path)] = bytes(len(hub.files[path]))
    with pytest.raises(FetchError) as caught:
        program.fetch(hub.source)
    assert caught.value.failure is Failure.CHECKSUM_MISMATCH
    assert not program.model_dir.exists()
    hub.publish()
    program.fetch(hub.source)
    assert program.files == model


def test_token_file_that_is_missing_or_empty_is_the_specs_fault(hub: Any, program: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for path in (empty, tmp_path / "none"):
        with pytest.raises(FetchError, match="secret") as caught:
            program.fetch(hub.source | {"token_file": str(path)})
        assert caught.value.failure is Failure.INVALID_SOURCE
    assert hub.origin.seen == []


def test_model_scope_gives_its_files_by_query(
    origin: Any, program: Any, model: Any, model_digest: Any, token_file: Any
) -> None:
    base = "/api/v1/models/iic/model/repo"
    entries = [{"Path": "styles", "Type": "tree", "Size": 0}] + [
        {
            "Path": path,
            "Type": "blob",
            "Size": len(content),
            "Sha256": hashlib.sha256(content).hexdigest(),
            "Revision": "abc",
        }
        for path, content in model.items()
    ]
    origin.files[f"{base}/files"] = json.dumps({"Code": 200, "Data": {"Files": entries}, "Success": True}).encode()

    def by_query(handler: Any) -> None:
        (path,) = parse_qs(urlsplit(handler.path).query)["FilePath"]
        origin.files[base] = model[path]
        handler.serve()

    origin.replies[base] = [by_query] * len(model)
    source = {"kind": "modelScope", "repo": "iic/model", "endpoint": origin.url, "token_file": str(token_file)}
    assert program.fetch(source) == model_digest
    assert program.files == model
    assert parse_qs(urlsplit(origin.seen[0].path).query)["Revision"] == ["master"]
    assert {seen.headers["cookie"] for seen in origin.seen} == {f"m_session_id={TOKEN}"}


def test_archive_is_verified_unpacked_and_removed(origin: Any, program: Any, model: Any, model_digest: Any) -> None:
    archive = tar_of(model)
    origin.files["/voice.tar.gz"] = archive
    source = {"kind": "https", "url": f"{origin.url}/voice.tar.gz", "sha256": hashlib.sha256(archive).hexdigest()}
    assert program.fetch(source) == model_digest
    assert program.files == model
    origin.seen.clear()
    assert program.fetch(source | {"url": "https://mirror.invalid/voice.tar.gz"}) == model_digest
    with pytest.raises(FetchError) as caught:
        program.fetch(source, manifest_sha256="0" * 64)
    assert caught.value.failure is Failure.CHECKSUM_MISMATCH
    assert origin.seen == []


def test_archive_with_another_pin_is_not_fetched_twice(
    origin: Any, program: Any, model: Any, model_digest: Any
) -> None:
    archive = tar_of(model)
    origin.files["/voice.tar.gz"] = archive
    source = {"kind": "https", "url": f"{origin.url}/voice.tar.gz", "sha256": hashlib.sha256(archive).hexdigest()}
    for pin in ("0" * 64, "1" * 64):
        with pytest.raises(FetchError, match="as manifest_sha256 asks"):
            program.fetch(source, manifest_sha256=pin)
    assert program.fetch(source, manifest_sha256=model_digest) == model_digest
    assert origin.sent["/voice.tar.gz"] == len(archive)


def test_archive_is_resumed_after_a_kill(origin: Any, program: Any, model: Any) -> None:
    archive = tar_of(model | {"flow.pt": bytes(range(255)) * 999})
    origin.files["/voice.tar.gz"] = archive
    origin.replies["/voice.tar.gz"] = [origin.stop_at(len(archive) - 100)]
    source = {"kind": "https", "url": f"{origin.url}/voice.tar.gz", "sha256": hashlib.sha256(archive).hexdigest()}
    process = program.start(source)
    program.wait_for_part(len(archive) - 100)
    process.kill()
    process.communicate()
    assert program.run(source).code == 0
    (second,) = origin.requests_of("/voice.tar.gz")[1:]
    assert second.headers["range"] == f"bytes={len(archive) - 100}-"


def test_mounted_model_is_checked_and_left_as_it_is(program: Any, model: Any, model_digest: Any) -> None:
    for path, content in model.items():
        (program.model_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (program.model_dir / path).write_bytes(content)
    (program.model_dir / ".git").mkdir()
    (program.model_dir / ".git" / "HEAD").write_bytes(b"ref: main\n")
    before = {path: path.stat().st_mtime_ns for path in program.model_dir.rglob("*")}
    mounted = {"kind": "mounted"}
    result = program.run(mounted, manifest_sha256=model_digest)
    assert (result.code, result.message) == (0, f"sha256:{model_digest}")
    assert program.run(mounted, manifest_sha256="0" * 64).code == Failure.CHECKSUM_MISMATCH
    assert {path: path.stat().st_mtime_ns for path in program.model_dir.rglob("*")} == before
    printed = subprocess.run(
        [sys.executable, "-m", "ttsfleet_runtime.cli", "fetch", "--print-digest", str(program.model_dir)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout == f"{model_digest}\n"


def test_styles_must_be_in_the_model(hub: Any, program: Any) -> None:
    news = {"name": "news", "path": "styles/news"}
    program.fetch(hub.source, styles=[news, {"name": "file", "path": "styles/news/llm.pt"}])
    for path in ("styles/new", "styles/news/llm.pt/x"):
        with pytest.raises(FetchError, match="style 'other'") as caught:
            program.fetch(hub.source, styles=[news, {"name": "other", "path": path}])
        assert caught.value.failure is Failure.INVALID_SOURCE


def test_missing_style_is_told_before_anything_is_fetched(hub: Any, program: Any) -> None:
    result = program.run(hub.source, styles=[{"name": "other", "path": "styles/other"}])
    assert result.code == Failure.INVALID_SOURCE
    assert hub.origin.requests_of(hub.route("llm.pt")) == []


def test_archive_that_could_not_be_unpacked_is_not_fetched_again(origin: Any, program: Any, model: Any) -> None:
    archive = tar_of(model)
    origin.files["/voice.tar.gz"] = archive
    source = {"kind": "https", "url": f"{origin.url}/voice.tar.gz", "sha256": hashlib.sha256(archive).hexdigest()}
    with pytest.raises(FetchError, match="accepted"):
        program.fetch(source, limits={"max_files": 1})
    program.fetch(source)
    assert program.files == model
    assert len(origin.seen) == 1


def test_voice_that_ships_is_readable_after_a_fetch(origin: Any, program: Any) -> None:
    voice = resolve_model_dir("builtin:tiny-en")
    archive = tar_of({str(path.relative_to(voice)): path.read_bytes() for path in voice.rglob("*") if path.is_file()})
    origin.files["/voice.tar.gz"] = archive
    source = {"kind": "https", "url": f"{origin.url}/voice.tar.gz", "sha256": hashlib.sha256(archive).hexdigest()}
    digest = program.fetch(source)
    assert digest == digest_files(hash_tree(voice))
    assert open_model_dir(program.model_dir).version == 2
