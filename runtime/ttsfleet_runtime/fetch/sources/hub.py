"""Repositories of the Hugging Face hub and of ModelScope, and of mirrors that speak the same HTTP.

Spoken with our own transport and not with the hubs' libraries: those follow redirects to any address, bring retries
and caches of their own, and cannot be told where a token may go. Two requests suffice: the list of files with their
digests, then each file. Hidden files (`.gitattributes`) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from ttsfleet_runtime.fetch.config import HuggingFaceSource, ModelScopeSource, read_secret
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.paths import checked_path, is_hidden
from ttsfleet_runtime.fetch.sources.listing import Listing, RemoteFile
from ttsfleet_runtime.fetch.transport import Transport, shown

HUGGING_FACE = "https://huggingface.co"
MODEL_SCOPE = "https://www.modelscope.cn"
_HUGGING_FACE_BRANCH, _MODEL_SCOPE_BRANCH = "main", "master"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Document = TypeVar("Document")


class _LFS(msgspec.Struct):
    sha256: str
    size: int


class _Sibling(msgspec.Struct):
    rfilename: str
    size: int | None = None
    blobId: str | None = None
    lfs: _LFS | None = None


class _Repository(msgspec.Struct):
    sha: str
    siblings: tuple[_Sibling, ...] = ()


class _ScopeFile(msgspec.Struct, rename="pascal"):
    path: str
    type: str = "blob"
    size: int = 0
    sha256: str | None = None
    revision: str | None = None


class _ScopeFiles(msgspec.Struct, rename="pascal"):
    files: tuple[_ScopeFile, ...] = ()


class _ScopeAnswer(msgspec.Struct, rename="pascal"):
    code: int
    data: _ScopeFiles | None = None


def list_hugging_face(source: HuggingFaceSource, transport: Transport) -> Listing:
    """All files at the commit that the revision names now."""
    endpoint = (source.endpoint or HUGGING_FACE).rstrip("/")
    token = read_secret(Path(source.token_file)) if source.token_file else ""
    authorization = {"authorization": f"Bearer {token}"} if token else {}
    revision = quote(source.revision or _HUGGING_FACE_BRANCH, safe="")
    url = f"{endpoint}/api/models/{source.repo}/revision/{revision}?blobs=true"
    repository = _document(transport, url, authorization, _Repository)
    if not _COMMIT.fullmatch(repository.sha):
        raise FetchError(Failure.FAILED, f"{shown(url)} names no commit")
    base = f"{endpoint}/{source.repo}/resolve/{repository.sha}"
    return Listing(tuple(_siblings(repository, base)), authorization)


def _siblings(repository: _Repository, base: str) -> Iterator[RemoteFile]:
    for sibling in repository.siblings:
        path = checked_path(sibling.rfilename)
        if is_hidden(path):
            continue
        lfs = sibling.lfs
        sha256 = _digest(lfs.sha256) if lfs is not None else ""
        git = sibling.blobId or ""
        blob = git if lfs is None and _COMMIT.fullmatch(git) else ""
        yield RemoteFile(
            path,
            _fixed(f"{base}/{quote(sibling.rfilename)}"),
            tag=f"sha256:{sha256}" if sha256 else f"git:{git or repository.sha}",
            size=lfs.size if lfs is not None else sibling.size,
            sha256=sha256,
            git_sha1=blob,
        )


def list_model_scope(source: ModelScopeSource, transport: Transport) -> Listing:
    """All files of the revision. The token goes both ways that the hub's releases read it."""
    endpoint = (source.endpoint or MODEL_SCOPE).rstrip("/")
    token = read_secret(Path(source.token_file)) if source.token_file else ""
    authorization = {"authorization": f"Bearer {token}", "cookie": f"m_session_id={token}"} if token else {}
    revision = source.revision or _MODEL_SCOPE_BRANCH
    base = f"{endpoint}/api/v1/models/{source.repo}/repo"
    url = f"{base}/files?{urlencode({'Revision': revision, 'Recursive': 'true'})}"
    answer = _document(transport, url, authorization, _ScopeAnswer)
    if answer.code != 200 or answer.data is None:
        raise FetchError(Failure.NOT_FOUND, f"{shown(url)} lists no files (code {answer.code})")
    files = []
    for file in answer.data.files:
        path = checked_path(file.path)
        if file.type == "tree" or is_hidden(path):
            continue
        sha256 = _digest(file.sha256) if file.sha256 else ""
        files.append(
            RemoteFile(
                path,
                _fixed(f"{base}?{urlencode({'Revision': revision, 'FilePath': file.path})}"),
                tag=f"sha256:{sha256}" if sha256 else f"commit:{file.revision or revision}",
                size=file.size,
                sha256=sha256,
            )
        )
    return Listing(tuple(files), authorization)


def _fixed(url: str) -> Callable[[], str]:
    return lambda: url


def _digest(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise FetchError(Failure.FAILED, "the hub states a SHA-256 that is none")
    return text


def _document(transport: Transport, url: str, authorization: Mapping[str, str], kind: type[Document]) -> Document:
    answer = transport.get(url, {"accept": "application/json"}, authorization)
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except msgspec.MsgspecError as error:
        raise FetchError(Failure.FAILED, f"{shown(url)} does not answer as a hub does") from error
