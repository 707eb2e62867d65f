"""fetch.yaml, as the operator renders it, and the limits that flags set. Unknown keys are refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
import yaml

from ttsfleet_runtime.fetch.failures import Failure, FetchError

_SHA256 = r"\A[0-9a-f]{64}\Z"
_REPOSITORY = r"\A[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*\Z"
_REVISION = r"\A[A-Za-z0-9._/-]*\Z"
_BUCKET = r"\A[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z"
_REGION = r"\A[a-z0-9-]*\Z"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern=_SHA256)]
Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mapping of fetch.yaml."""


class HttpsSource(_Part, frozen=True, tag_field="kind", tag="https"):
    """An archive behind a URL."""

    url: Text
    sha256: Sha256


class S3Source(_Part, frozen=True, tag_field="kind", tag="s3"):
    """A folder of a bucket. `credentials_dir` holds a file per key; "" = the pod's identity, else anonymous."""

    bucket: Annotated[str, msgspec.Meta(pattern=_BUCKET)]
    prefix: str = ""
    endpoint: str = ""
    region: Annotated[str, msgspec.Meta(pattern=_REGION)] = ""
    credentials_dir: str = ""


class HuggingFaceSource(_Part, frozen=True, tag_field="kind", tag="huggingFace"):
    """A repository of the Hugging Face hub or of a mirror; "" = the default branch, the public hub, anonymous."""

    repo: Annotated[str, msgspec.Meta(pattern=_REPOSITORY)]
    revision: Annotated[str, msgspec.Meta(pattern=_REVISION)] = ""
    endpoint: str = ""
    token_file: str = ""


class ModelScopeSource(_Part, frozen=True, tag_field="kind", tag="modelScope"):
    """A repository of ModelScope or of a mirror; empty values as in HuggingFaceSource."""

    repo: Annotated[str, msgspec.Meta(pattern=_REPOSITORY)]
    revision: Annotated[str, msgspec.Meta(pattern=_REVISION)] = ""
    endpoint: str = ""
    token_file: str = ""


class MountedSource(_Part, frozen=True, tag_field="kind", tag="mounted"):
    """A model that is there already: it is only checked."""


Source: TypeAlias = HttpsSource | S3Source | HuggingFaceSource | ModelScopeSource | MountedSource


class Style(_Part, frozen=True):
    """A folder or file that the model must have."""

    name: Text
    path: Text


class FetchConfig(_Part, frozen=True):
    """What is fetched, to where, and what it must be."""

    schema_version: Literal[1]
    model_dir: Annotated[str, msgspec.Meta(pattern=r"\A/.*[^/]\Z")]
    source: Source
    manifest_sha256: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")] = ""
    styles: tuple[Style, ...] = ()
    ca_file: str = ""


@dataclass(frozen=True)
class Limits:
    """What the flags set. `allow_loopback` also admits http there: for tests and stores in the same pod."""

    stall_seconds: float = 60.0
    connect_seconds: float = 15.0
    lock_seconds: float = 3600.0
    attempts: int = 5
    backoff_seconds: float = 1.0
    max_bytes: int = 200 << 30
    max_files: int = 10_000
    allow_loopback: bool = False


def read_config(path: Path) -> FetchConfig:
    """Parse fetch.yaml. Raises FetchError that names the field."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
        return msgspec.convert(values, FetchConfig)
    except msgspec.ValidationError as error:
        raise FetchError(Failure.INVALID_SOURCE, f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FetchError(Failure.INVALID_SOURCE, f"{path} cannot be read: {error}") from error


def identity(source: Source) -> dict[str, str]:
    """What tells one model from another: the source without hubs' endpoints and without credentials."""
    if isinstance(source, HttpsSource):
        return {"kind": "https", "sha256": source.sha256}
    if isinstance(source, S3Source):
        return {"kind": "s3", "bucket": source.bucket, "prefix": source.prefix, "endpoint": source.endpoint}
    if isinstance(source, MountedSource):
        return {"kind": "mounted"}
    kind = "huggingFace" if isinstance(source, HuggingFaceSource) else "modelScope"
    return {"kind": kind, "repo": source.repo, "revision": source.revision}


def read_secret(path: Path) -> str:
    """One line of text from a mounted secret. Raises FetchError without its content."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FetchError(
            Failure.INVALID_SOURCE,
            f"the secret {path} cannot be read ({type(error).__name__}); check the Secret's keys",
        ) from error
    if not text or not text.isascii() or not text.isprintable():
        raise FetchError(Failure.INVALID_SOURCE, f"the secret {path} is empty or no single line of ASCII text")
    return text
