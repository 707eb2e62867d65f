"""Folders of S3 buckets: from moto's store over https, and from replies where a store must behave in its own way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ttsfleet_runtime.fetch.config import S3Source
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.sources.bucket import list_bucket
from ttsfleet_runtime.fetch.transport import Answer


@pytest.fixture(scope="session")
def store(certificates: Any) -> Iterator[str]:
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
def bucket(store: str, certificates: Any, model: Any) -> Iterator[Any]:
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


def test_bucket_gives_the_objects_below_the_prefix(
    store: Any, bucket: Any, program: Any, model: Any, model_digest: Any, credentials: Any
) -> None:
    source = {"kind": "s3", "bucket": "voices", "prefix": "cosy voice/v1+2", "endpoint": store}
    result = program.run(source | {"credentials_dir": str(credentials)})
    assert (result.code, result.message) == (0, f"sha256:{model_digest}"), result.log
    assert program.files == model
    assert "s3cr3tk3y" not in result.log
    assert "Signature" not in result.log


def test_bucket_of_many_pages_is_listed_in_whole(origin: Any, program: Any) -> None:
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


def test_anonymous_bucket_gets_unsigned_requests(origin: Any, program: Any) -> None:
    source = {"kind": "s3", "bucket": "voices", "endpoint": origin.url, "region": "eu-central-1"}
    with pytest.raises(FetchError) as caught:
        program.fetch(source)
    assert caught.value.failure is Failure.NOT_FOUND
    (request,) = origin.seen
    assert request.path.startswith("/voices?list-type=2")
    assert "authorization" not in request.headers
    assert "Signature" not in request.path


def test_object_that_changes_after_the_listing_is_refused(origin: Any, program: Any) -> None:
    origin.files |= {"/voices": _page("llm.pt", b"news", etag="0ld"), "/voices/llm.pt": b"news"}
    with pytest.raises(FetchError, match="was changed") as caught:
        program.fetch({"kind": "s3", "bucket": "voices", "endpoint": origin.url})
    assert caught.value.failure is Failure.CHECKSUM_MISMATCH


def test_rest_of_an_object_is_taken_only_under_the_same_etag(origin: Any, program: Any) -> None:
    content = bytes(range(256)) * 500
    origin.files |= {"/voices": _page("llm.pt", content), "/voices/llm.pt": content}
    origin.replies["/voices/llm.pt"] = [lambda handler: handler.serve(until=60_000)]
    program.fetch({"kind": "s3", "bucket": "voices", "endpoint": origin.url})
    second = origin.requests_of("/voices/llm.pt")[1]
    etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert (second.headers["range"], second.headers["if-range"]) == ("bytes=60000-", f'"{etag}"')
    assert program.files == {"llm.pt": content}


def test_bucket_of_another_region_is_signed_for_that_region(credentials: Any) -> None:
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


def test_object_without_a_strong_etag_is_fetched_again_in_whole(origin: Any, program: Any) -> None:
    content = bytes(range(256)) * 500
    origin.files |= {"/voices": _page("llm.pt", content).replace(b"&quot;", b""), "/voices/llm.pt": content}
    origin.etags["/voices/llm.pt"] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    origin.replies["/voices/llm.pt"] = [lambda handler: handler.serve(until=60_000)]
    program.fetch({"kind": "s3", "bucket": "voices", "endpoint": origin.url})
    assert "range" not in origin.requests_of("/voices/llm.pt")[1].headers
    assert program.files == {"llm.pt": content}


def test_identity_of_the_pod_signs_where_there_are_no_credentials(
    store: Any, bucket: Any, program: Any, model: Any, monkeypatch: Any, tmp_path: Path
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
