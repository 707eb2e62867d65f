"""Each kind of source, from real servers: what it lists, what is fetched, and where its secret goes."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ttsfleet_runtime.checkpoint import resolve_model_dir
from ttsfleet_runtime.checkpoint.directory import open_model_dir
from ttsfleet_runtime.fetch.config import S3Source
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.manifest import digest_files, hash_tree
from ttsfleet_runtime.fetch.sources.bucket import list_bucket
from ttsfleet_runtime.fetch.transport import Answer

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


def test_hub_gives_the_files_of_the_commit_and_keeps_the_rest(hub, program, model, model_digest) -> None:  # type: ignore[no-untyped-def]
    assert program.fetch(hub.source) == model_digest
    assert program.files == model
    assert hub.origin.requests_of(hub.route(".gitattributes")) == []


def test_token_goes_to_the_hub_and_never_to_where_it_redirects(  # type: ignore[no-untyped-def]
    hub, new_origin, program, model, token_file
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
def test_file_that_is_not_what_the_hub_lists_is_refused(path: str, hub, program, model) -> None:  # type: ignore[no-untyped-def]
    hub.origin.files[hub.route(path)] = bytes(len(hub.files[path]))
    with pytest.raises(FetchError) as caught:
        program.fetch(hub.source)
    assert caught.value.failure is Failure.CHECKSUM_MISMATCH
    assert not program.model_dir.exists()
    hub.publish()
    program.fetch(hub.source)
    assert program.files == model


def test_token_file_that_is_missing_or_empty_is_the_specs_fault(hub, program, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for path in (empty, tmp_path / "none"):
        with pytest.raises(FetchError, match="secret") as caught:
            program.fetch(hub.source | {"token_file": str(path)})
        assert caught.value.failure is Failure.INVALID_SOURCE
    assert hub.origin.seen == []


def test_model_scope_gives_its_files_by_query(origin, program, model, model_digest, token_file) -> None:  # type: ignore[no-untyped-def]
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


def test_archive_is_verified_unpacked_and_removed(origin, program, model, model_digest) -> None:  # type: ignore[no-untyped-def]
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


def test_archive_with_another_pin_is_not_fetched_twice(origin, program, model, model_digest) -> None:  # type: ignore[no-untyped-def]
    archive = tar_of(model)
    origin.files["/voice.tar.gz"] = archive
    source = {"kind": "https", "url": f"{origin.url}/voice.tar.gz", "sha256": hashlib.sha256(archive).hexdigest()}
    for pin in ("0" * 64, "1" * 64):
        with pytest.raises(FetchError, match="as manifest_sha256 asks"):
            program.fetch(source, manifest_sha256=pin)
    assert program.fetch(source, manifest_sha256=model_digest) == model_digest
    assert origin.sent["/voice.tar.gz"] == len(archive)


def test_archive_is_resumed_after_a_kill(origin, program, model) -> None:  # type: ignore[no-untyped-def]
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


@pytest.fixture(scope="session")
def store(certificates) -> Iterator[str]:  # type: ignore[no-untyped-def]
    """moto's S3 over https."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=certificates.server_context())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://localhost:{server.port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "AWS_ACCESS_KEY_ID").write_text("AKIDEXAMPLE")
    (folder / "AWS_SECRET_ACCESS_KEY").write_text("s3cr3tk3y\n")
    return folder


@pytest.fixture
def bucket(store: str, certificates, model) -> Iterator[Any]:  # type: ignore[no-untyped-def]
    import botocore.session

    session = botocore.session.Session()
    options = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    client = session.create_client("s3", endpoint_url=store, verify=str(certificates.ca), **options)
    client.create_bucket(Bucket="voices")
    for path, content in model.items():
        client.put_object(Bucket="voices", Key=f"cosy voice/v1+2/{path}", Body=content)
    client.put_object(Bucket="voices", Key="cosy voice/v1+2/", Body=b"")
    client.put_object(Bucket="voices", Key="cosy voice/v1+20/other.pt", Body=b"another model")
    yield client
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="voices"):
        for entry in page.get("Contents", ()):
            client.delete_object(Bucket="voices", Key=entry["Key"])
    client.delete_bucket(Bucket="voices")
    client.close()


def test_bucket_gives_the_objects_below_the_prefix(  # type: ignore[no-untyped-def]
    store, bucket, program, model, model_digest, credentials
) -> None:
    source = {"kind": "s3", "bucket": "voices", "prefix": "cosy voice/v1+2", "endpoint": store}
    result = program.run(source | {"credentials_dir": str(credentials)})
    assert (result.code, result.message) == (0, f"sha256:{model_digest}"), result.log
    assert program.files == model
    assert "s3cr3tk3y" not in result.log
    assert "Signature" not in result.log


def test_bucket_of_many_pages_is_listed_in_whole(origin, program) -> None:  # type: ignore[no-untyped-def]
    first = _page("a.pt", b"aa", more="<NextContinuationToken>more</NextContinuationToken>")
    origin.replies["/voices"] = [lambda handler: handler.status(200, body=first)]
    origin.files |= {"/voices": _page("b.pt", b"b"), "/voices/a.pt": b"aa", "/voices/b.pt": b"b"}
    program.fetch({"kind": "s3", "bucket": "voices", "endpoint": origin.url})
    assert program.files == {"a.pt": b"aa", "b.pt": b"b"}
    assert "continuation-token=more" in origin.requests_of("/voices")[1].path


def _page(key: str, content: bytes, etag: str = "", more: str = "") -> bytes:
    etag = etag or hashlib.md5(content, usedforsecurity=False).hexdigest()
    return (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}<Contents><Key>{key}</Key>"
        f"<Size>{len(content)}</Size><ETag>&quot;{etag}&quot;</ETag></Contents></ListBucketResult>"
    ).encode()


def test_anonymous_bucket_gets_unsigned_requests(origin, program) -> None:  # type: ignore[no-untyped-def]
    source = {"kind": "s3", "bucket": "voices", "endpoint": origin.url, "region": "eu-central-1"}
    with pytest.raises(FetchError) as caught:
        program.fetch(source)
    assert caught.value.failure is Failure.NOT_FOUND
    (request,) = origin.seen
    assert request.path.startswith("/voices?list-type=2")
    assert "authorization" not in request.headers
    assert "Signature" not in request.path


def test_object_that_changes_after_the_listing_is_refused(origin, program) -> None:  # type: ignore[no-untyped-def]
    origin.files |= {"/voices": _page("llm.pt", b"news", etag="0ld"), "/voices/llm.pt": b"news"}
    with pytest.raises(FetchError, match="was changed") as caught:
        program.fetch({"kind": "s3", "bucket": "voices", "endpoint": origin.url})
    assert caught.value.failure is Failure.CHECKSUM_MISMATCH


def test_rest_of_an_object_is_taken_only_under_the_same_etag(origin, program) -> None:  # type: ignore[no-untyped-def]
    content = bytes(range(256)) * 500
    origin.files |= {"/voices": _page("llm.pt", content), "/voices/llm.pt": content}
    origin.replies["/voices/llm.pt"] = [lambda handler: handler.serve(until=60_000)]
    program.fetch({"kind": "s3", "bucket": "voices", "endpoint": origin.url})
    second = origin.requests_of("/voices/llm.pt")[1]
    etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert (second.headers["range"], second.headers["if-range"]) == ("bytes=60000-", f'"{etag}"')
    assert program.files == {"llm.pt": content}


def test_mounted_model_is_checked_and_left_as_it_is(program, model, model_digest) -> None:  # type: ignore[no-untyped-def]
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


def test_styles_must_be_in_the_model(hub, program) -> None:  # type: ignore[no-untyped-def]
    news = {"name": "news", "path": "styles/news"}
    program.fetch(hub.source, styles=[news, {"name": "file", "path": "styles/news/llm.pt"}])
    for path in ("styles/new", "styles/news/llm.pt/x"):
        with pytest.raises(FetchError, match="style 'other'") as caught:
            program.fetch(hub.source, styles=[news, {"name": "other", "path": path}])
        assert caught.value.failure is Failure.INVALID_SOURCE


def test_missing_style_is_told_before_anything_is_fetched(hub, program) -> None:  # type: ignore[no-untyped-def]
    result = program.run(hub.source, styles=[{"name": "other", "path": "styles/other"}])
    assert result.code == Failure.INVALID_SOURCE
    assert hub.origin.requests_of(hub.route("llm.pt")) == []


def test_bucket_of_another_region_is_signed_for_that_region(credentials) -> None:  # type: ignore[no-untyped-def]
    class AWS:
        """Leads a listing to the bucket's region, as AWS does."""

        def __init__(self) -> None:
            self.urls: list[str] = []

        def get(self, url: str, headers: Any, authorization: Any, *, accept: Any) -> Answer:
            self.urls.append(url)
            there = httpx.Headers({"x-amz-bucket-region": "eu-west-1"})
            if "eu-west-1" in url:
                assert "/eu-west-1/s3/" in authorization["authorization"]
                return Answer(200, there, _page("v1/llm +.pt", b"news"))
            return Answer(301, there, b"<Error><Code>PermanentRedirect</Code></Error>")

    aws = AWS()
    source = S3Source(bucket="voices", prefix="v1", credentials_dir=str(credentials))
    (file,) = list_bucket(source, aws, {}).files  # type: ignore[arg-type]
    assert [urlsplit(url).hostname for url in aws.urls] == [
        "voices.s3.amazonaws.com",
        "voices.s3.eu-west-1.amazonaws.com",
    ]
    signed = urlsplit(file.url())
    assert (signed.hostname, signed.path) == ("voices.s3.eu-west-1.amazonaws.com", "/v1/llm%20%2B.pt")
    assert "/eu-west-1/s3/aws4_request" in parse_qs(signed.query)["X-Amz-Credential"][0]


def test_identity_of_the_pod_signs_where_there_are_no_credentials(  # type: ignore[no-untyped-def]
    store, bucket, program, model, monkeypatch, tmp_path: Path
) -> None:
    (tmp_path / "identity").write_text("a token of the cluster")
    for name, value in {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "identity"),
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/voices",
        "AWS_ENDPOINT_URL_STS": store,
    }.items():
        monkeypatch.setenv(name, value)
    result = program.run({"kind": "s3", "bucket": "voices", "prefix": "cosy voice/v1+2", "endpoint": store})
    assert result.code == 0, result.log
    assert program.files == model


def test_archive_that_could_not_be_unpacked_is_not_fetched_again(origin, program, model) -> None:  # type: ignore[no-untyped-def]
    archive = tar_of(model)
    origin.files["/voice.tar.gz"] = archive
    source = {"kind": "https", "url": f"{origin.url}/voice.tar.gz", "sha256": hashlib.sha256(archive).hexdigest()}
    with pytest.raises(FetchError, match="accepted"):
        program.fetch(source, limits={"max_files": 1})
    program.fetch(source)
    assert program.files == model
    assert len(origin.seen) == 1


def test_voice_that_ships_is_readable_after_a_fetch(origin, program) -> None:  # type: ignore[no-untyped-def]
    voice = resolve_model_dir("builtin:tiny-en")
    archive = tar_of({str(path.relative_to(voice)): path.read_bytes() for path in voice.rglob("*") if path.is_file()})
    origin.files["/voice.tar.gz"] = archive
    source = {"kind": "https", "url": f"{origin.url}/voice.tar.gz", "sha256": hashlib.sha256(archive).hexdigest()}
    digest = program.fetch(source)
    assert digest == digest_files(hash_tree(voice))
    assert open_model_dir(program.model_dir).version == 2
