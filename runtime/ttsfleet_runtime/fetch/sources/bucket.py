"""Folders of an S3 bucket or of a compatible store.

botocore decides on credentials, addresses and signatures; every request goes through our transport: the listing by
botocore's `before-send` event, the objects by signed URLs. Without `credentials_dir` the pod's own identity is used
where the cluster gives it one (web identity, EKS pod identity), never the node's; else requests are anonymous.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import msgspec
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ttsfleet_runtime.fetch.config import S3Source, read_secret
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.paths import checked_path, is_hidden
from ttsfleet_runtime.fetch.sources.listing import Listing, RemoteFile
from ttsfleet_runtime.fetch.transport import Transport

_SIGNED_URL_SECONDS = 3600
_DEFAULT_REGION = "us-east-1"
# Set in a pod whose service account has an identity.
_IDENTITY_VARIABLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)
_SECRET_HEADERS = frozenset({"authorization", "x-amz-security-token"})
_ANSWERED = frozenset(range(300, 500)) - {408, 425, 429}


def list_bucket(
    source: S3Source, transport: Transport, environment: Mapping[str, str], ca_bundle: str = ""
) -> Listing:
    """All objects below the prefix. An object is known by its ETag: one that changes meanwhile is refused.

    `ca_bundle` is for the one connection that botocore makes itself: to the service that knows the pod's identity.
    """
    prefix = f"{source.prefix.strip('/')}/" if source.prefix.strip("/") else ""
    sender = _Sender(transport)
    client = _client(source, sender, environment, ca_bundle)
    entries: dict[str, Mapping[str, Any]] = {}
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=source.bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                name = str(entry["Key"])[len(prefix) :]
                if name and not name.endswith("/"):
                    entries[checked_path(name)] = entry
    except ClientError as error:
        raise _refused(error, source.bucket) from error
    except BotoCoreError as error:
        raise FetchError(
            Failure.FAILED, f"the bucket {source.bucket} cannot be listed ({type(error).__name__})"
        ) from error
    if not source.endpoint and sender.region not in ("", client.meta.region_name):
        # The listing was led to the bucket's region; URLs are signed for it only by a client of it.
        found = msgspec.structs.replace(source, region=sender.region)
        client = _client(found, sender, environment, ca_bundle)
    return Listing(
        tuple(_object(client, source.bucket, entry, path) for path, entry in entries.items() if not is_hidden(path))
    )


def _object(client: Any, bucket: str, entry: Mapping[str, Any], path: str) -> RemoteFile:
    key, etag = str(entry["Key"]), str(entry["ETag"])
    return RemoteFile(path, _signed(client, bucket, key), tag=f"etag:{etag}", size=int(entry["Size"]), etag=etag)


def _signed(client: Any, bucket: str, key: str) -> Callable[[], str]:
    def url() -> str:
        try:
            return str(
                client.generate_presigned_url(
                    "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=_SIGNED_URL_SECONDS
                )
            )
        except BotoCoreError as error:
            raise FetchError(
                Failure.DENIED, f"the pod's identity gives no credentials ({type(error).__name__})"
            ) from error

    return url


def _client(source: S3Source, sender: _Sender, environment: Mapping[str, str], ca_bundle: str) -> Any:
    session = botocore.session.Session()
    if ca_bundle:
        session.set_config_variable("ca_bundle", ca_bundle)
    options: dict[str, Any] = {}
    if source.credentials_dir:
        options = _credentials(Path(source.credentials_dir))
    anonymous = not options and not any(environment.get(name) for name in _IDENTITY_VARIABLES)
    config = Config(
        signature_version=UNSIGNED if anonymous else "s3v4",
        # Compatible stores rarely have a name per bucket. With AWS, "auto" would sign URLs for the global host.
        s3={"addressing_style": "path" if source.endpoint else "virtual"},
        retries={"total_max_attempts": 1},
        response_checksum_validation="when_required",
    )
    try:
        client = session.create_client(
            "s3",
            region_name=source.region or _DEFAULT_REGION,
            endpoint_url=source.endpoint or None,
            config=config,
            **options,
        )
    except (BotoCoreError, ValueError) as error:
        raise FetchError(Failure.INVALID_SOURCE, f"the bucket's endpoint or region is refused: {error}") from error
    client.meta.events.register("before-send.s3", sender)
    return client


def _credentials(folder: Path) -> dict[str, str]:
    options = {
        "aws_access_key_id": read_secret(folder / "AWS_ACCESS_KEY_ID"),
        "aws_secret_access_key": read_secret(folder / "AWS_SECRET_ACCESS_KEY"),
    }
    if (folder / "AWS_SESSION_TOKEN").exists():
        options["aws_session_token"] = read_secret(folder / "AWS_SESSION_TOKEN")
    return options


class _Sender:
    """Sends botocore's requests, and remembers the region that the bucket names as its own. Only for a bucket that
    names none there is a request that is no GET."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.region = ""

    def __call__(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        if request.method != "GET":
            raise FetchError(Failure.INVALID_SOURCE, "the bucket lies in another region; give its region")
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        authorization = {name: headers.pop(name) for name in list(headers) if name in _SECRET_HEADERS}
        answer = self._transport.get(request.url, headers, authorization, accept=_ANSWERED)
        self.region = answer.headers.get("x-amz-bucket-region", self.region)
        return AWSResponse(request.url, answer.status, dict(answer.headers), _Body(answer.body))


class _Body:
    """The shape in which botocore reads a body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: object, **__: object) -> Any:
        yield self._body


def _text(value: object) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _refused(error: ClientError, bucket: str) -> FetchError:
    """By status alone: S3's own words stay out of messages."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    failures = {401: Failure.DENIED, 403: Failure.DENIED, 404: Failure.NOT_FOUND, 400: Failure.INVALID_SOURCE}
    return FetchError(failures.get(status, Failure.FAILED), f"the bucket {bucket} answers with status {status}")
