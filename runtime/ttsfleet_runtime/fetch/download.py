"""One file: fetched, resumed where an earlier attempt or process stopped, verified.

What arrives is appended to `<part>`; `<part>.json` says what it is. A second attempt asks for the rest only. Where
the source states a digest, that proves the pieces to be one file, and a sum that is wrong after a resumption gets one
more try from the first byte. Where it states none, the rest is taken only under the same strong ETag (If-Range) and
within the same boot of this machine: after a crash a part may hold bytes that never reached the disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import httpx
import msgspec

from ttsfleet_runtime.fetch.config import Limits
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.files import check_space, write_atomically
from ttsfleet_runtime.fetch.manifest import ModelFile
from ttsfleet_runtime.fetch.progress import Progress
from ttsfleet_runtime.fetch.sources.listing import RemoteFile
from ttsfleet_runtime.fetch.transport import Transport

_PROGRESS_BYTES = 1 << 20  # an attempt that brought this much does not count as a failed one
_READ_BYTES = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

logger = logging.getLogger(__name__)


class _PartNote(msgspec.Struct, frozen=True):
    """What a part holds."""

    tag: str
    etag: str = ""
    boot: str = ""
    total: int | None = None


class _StartAgainError(Exception):
    """What is there does not go with what the source sends."""


@dataclass
class _Sums:
    """Digests of what is in the part. Git's covers the size too, so that it needs to be known."""

    sha256: hashlib._Hash = field(default_factory=hashlib.sha256)
    git: hashlib._Hash | None = None

    @classmethod
    def of(cls, remote: RemoteFile) -> _Sums:
        if not remote.git_sha1 or remote.size is None:
            return cls()
        return cls(git=hashlib.sha1(f"blob {remote.size}\0".encode(), usedforsecurity=False))

    def update(self, piece: bytes) -> None:
        self.sha256.update(piece)
        if self.git is not None:
            self.git.update(piece)


def part_bytes(remote: RemoteFile, part: Path) -> int:
    """How much of the file is there and can be kept."""
    return _kept(remote, part)[0]


class Download:
    """Fetches `remote` into `part`, at most `max_bytes` of it."""

    def __init__(
        self,
        transport: Transport,
        limits: Limits,
        remote: RemoteFile,
        part: Path,
        *,
        authorization: Mapping[str, str],
        progress: Progress,
    ) -> None:
        self._transport = transport
        self._max_bytes = limits.max_bytes
        self._remote = remote
        self._part = part
        self._authorization = authorization
        self._progress = progress
        self._position = 0
        self._total = remote.size
        self._etag = ""
        self._sums = _Sums.of(remote)
        self._resumed = False

    def run(self) -> ModelFile:
        """The verified file, on the disk as `part`. Raises FetchError."""
        self._part.parent.mkdir(parents=True, exist_ok=True)
        for is_last in (False, True):
            with self._part.open("ab+", buffering=0) as file:
                self._recall(file)
                self._complete(file)
                os.fsync(file.fileno())
                stat = os.fstat(file.fileno())
            fault = self._fault()
            if not fault:
                return ModelFile(
                    self._remote.path, stat.st_size, self._sums.sha256.hexdigest(), self._remote.tag, stat.st_mtime_ns
                )
            self._part.unlink()
            if is_last or not self._resumed:
                raise FetchError(Failure.CHECKSUM_MISMATCH, f"{self._remote.path}: {fault}")
            logger.warning("%s: %s after a resumption; fetching it again in whole", self._remote.path, fault)
            self._progress.advance(-self._position)
        raise AssertionError("the last attempt ends above")

    def _complete(self, file: BinaryIO) -> None:
        """Attempt by attempt until everything is there."""
        reached = self._position

        def made_progress() -> bool:
            nonlocal reached
            gained = self._position - reached
            reached = self._position
            return gained >= _PROGRESS_BYTES

        while self._total is None or self._position < self._total:
            try:
                self._transport.retried(lambda: self._attempt(file), made_progress)
                return
            except _StartAgainError as reason:
                logger.info("%s: %s; starting at its first byte", self._remote.path, reason)
                self._forget(file)

    def _recall(self, file: BinaryIO) -> None:
        """Continue behind what an earlier process left, if that can be kept."""
        kept, note = _kept(self._remote, self._part)
        self._position, self._etag = 0, note.etag
        self._total = self._remote.size if self._remote.size is not None else note.total
        self._sums, self._resumed = _Sums.of(self._remote), kept > 0
        if not kept:
            self._forget(file)
            return
        file.seek(0)
        while piece := file.read(_READ_BYTES):
            self._sums.update(piece)
            self._position += len(piece)
        self._progress.advance(self._position)
        logger.info("%s: %d bytes are there already", self._remote.path, self._position)

    def _forget(self, file: BinaryIO) -> None:
        file.truncate(0)
        self._progress.advance(-self._position)
        self._position, self._total, self._etag = 0, self._remote.size, ""
        self._sums, self._resumed = _Sums.of(self._remote), False

    def _attempt(self, file: BinaryIO) -> None:
        """One request for what is missing."""
        if self._position and not self._remote.has_digest and not self._etag:
            self._forget(file)
        headers: dict[str, str] = {}
        if self._position:
            headers["range"] = f"bytes={self._position}-"
            self._resumed = True
            if not self._remote.has_digest:
                headers["if-range"] = self._etag
        with self._transport.stream(
            self._remote.url(), headers, self._authorization, accept=frozenset({412, 416})
        ) as response:
            self._begin(response, file)
            for piece in response.iter_raw():
                self._append(piece, file)
        if self._total is not None and self._position < self._total:
            raise FetchError(
                Failure.UNREACHABLE, f"{self._remote.path}: the connection ended early", is_transient=True
            )

    def _begin(self, response: httpx.Response, file: BinaryIO) -> None:
        """Check what the answer is a part of, and whether there is room for it."""
        if response.status_code in (412, 416):
            if not self._position:
                raise FetchError(Failure.FAILED, f"{self._remote.path}: the source refuses a plain request")
            raise _StartAgainError("the source has no such rest")
        etag = response.headers.get("etag", "")
        if self._remote.etag and etag and etag != self._remote.etag:
            raise FetchError(Failure.CHECKSUM_MISMATCH, f"{self._remote.path} was changed while it was listed")
        if response.status_code == 206:
            if not self._position:
                raise FetchError(Failure.FAILED, f"{self._remote.path}: the source answers a plain request by a part")
            self._check_range(response, etag)
        elif self._position:
            logger.info("%s: the source does not resume", self._remote.path)
            self._forget(file)
        length = response.headers.get("content-length", "")
        if length.isdecimal():
            self._expect(self._position + int(length))
        self._etag = etag if etag.startswith('"') else ""
        note = _PartNote(self._remote.tag, self._etag, _boot_id(), self._total)
        write_atomically(_note_path(self._part), msgspec.json.encode(note))

    def _check_range(self, response: httpx.Response, etag: str) -> None:
        found = _RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != self._position:
            raise _StartAgainError("the source sends another range than was asked for")
        if not self._remote.has_digest and etag != self._etag:
            raise _StartAgainError("the file has changed")
        if found[2] != "*":
            self._expect(int(found[2]))

    def _expect(self, total: int) -> None:
        """The answer says that the file has `total` bytes."""
        if self._remote.size is not None and total != self._remote.size:
            raise FetchError(
                Failure.CHECKSUM_MISMATCH,
                f"{self._remote.path} has {total} bytes; {self._remote.size} were announced",
            )
        self._check_size(total)
        check_space(self._part.parent, total - self._position)
        if self._remote.size is None and self._total != total:
            self._progress.expect(total, self._position)
        self._total = total

    def _append(self, piece: bytes, file: BinaryIO) -> None:
        end = self._position + len(piece)
        if self._total is not None and end > self._total:
            raise FetchError(
                Failure.CHECKSUM_MISMATCH, f"{self._remote.path} has more than the {self._total} bytes announced"
            )
        self._check_size(end)
        view = memoryview(piece)
        while view:
            view = view[file.write(view) :]
        self._sums.update(piece)
        self._position = end
        self._progress.advance(len(piece))

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise FetchError(
                Failure.UNSAFE_CONTENT,
                f"{self._remote.path} has more than the {self._max_bytes} bytes that are accepted (--max-gib)",
            )

    def _fault(self) -> str:
        """What is wrong with the whole file, "" = nothing."""
        sha256 = self._sums.sha256.hexdigest()
        if self._remote.sha256 and sha256 != self._remote.sha256:
            return f"its SHA-256 is {sha256}, not {self._remote.sha256}"
        if self._sums.git is not None and self._sums.git.hexdigest() != self._remote.git_sha1:
            return f"its git blob is {self._sums.git.hexdigest()}, not {self._remote.git_sha1}"
        return ""


def _kept(remote: RemoteFile, part: Path) -> tuple[int, _PartNote]:
    """How much of a part can be kept, and its note."""
    nothing = 0, _PartNote(remote.tag)
    try:
        size = part.stat().st_size
        note = msgspec.json.decode(_note_path(part).read_bytes(), type=_PartNote)
    except (OSError, msgspec.MsgspecError):
        return nothing
    if note.tag != remote.tag or (remote.size is not None and size > remote.size):
        return nothing
    if not remote.has_digest and not (note.etag and note.boot and note.boot == _boot_id()):
        return nothing
    return size, note


def _note_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
