"""Unpacks a verified archive (.tar, .tar.gz, .zip, told by content) into files, after looking at all of its names.

Nothing is written before every entry is accepted: relative paths inside the archive, files, folders and links only.
Links must lead to a file of the archive and become that file, so that a model holds no links. Hidden files are left
out, and a single folder around everything is stripped. Sizes are bounded by what the entries state, which both
formats' readers keep to.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeAlias

from ttsfleet_runtime.fetch.config import Limits
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.files import check_space, link_or_copy
from ttsfleet_runtime.fetch.manifest import ModelFile
from ttsfleet_runtime.fetch.paths import check_tree, checked_path, is_hidden
from ttsfleet_runtime.fetch.progress import Progress
from ttsfleet_runtime.fetch.sources.listing import check_amount

_GZIP_MAGIC, _ZIP_MAGIC = b"\x1f\x8b", b"PK"
_MAX_LINK_BYTES = 1024
_MAX_LINK_HOPS = 8
_READ_BYTES = 1 << 20
_Contents: TypeAlias = Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class _Entry:
    """A file, with how to read it, or a link, with the path of what it leads to."""

    path: str
    size: int
    contents: _Contents | None = None
    target: str = ""


def unpack(archive: Path, root: Path, tag: str, limits: Limits, progress: Progress) -> tuple[ModelFile, ...]:
    """Extract into the empty folder `root`. Raises FetchError; what was written before stays."""
    try:
        with _entries(archive) as entries:
            plan = _checked(entries, limits)
            total = sum(entry.size for entry in plan if not entry.target)
            check_space(root.parent, total)
            progress.expect(total)
            return _extract(plan, root, tag, progress)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _unreadable(error) from error
    except OSError as error:
        if error.errno is None:  # gzip's own error
            raise _unreadable(error) from error
        raise


def _unreadable(error: Exception) -> FetchError:
    return FetchError(
        Failure.INVALID_SOURCE, f"the archive is no readable .tar, .tar.gz or .zip ({type(error).__name__})"
    )


@contextmanager
def _entries(archive: Path) -> Iterator[list[_Entry]]:
    """All files and links, readable until the context ends."""
    with archive.open("rb") as file:
        magic = file.read(2)
        file.seek(0)
        if magic == _ZIP_MAGIC:
            with zipfile.ZipFile(file) as opened:
                yield [entry for info in opened.infolist() if (entry := _of_zip(opened, info)) is not None]
            return
        reader = tarfile.open(fileobj=file, mode="r:gz" if magic == _GZIP_MAGIC else "r:")  # noqa: SIM115
        with reader:
            yield [entry for info in reader if (entry := _of_tar(reader, info)) is not None]


def _of_tar(archive: tarfile.TarFile, info: tarfile.TarInfo) -> _Entry | None:
    if info.isdir():
        _folder(info.name)
        return None
    path = checked_path(info.name)
    if info.issym():
        return _Entry(path, 0, target=_resolved(path, info.linkname))
    if info.islnk():
        return _Entry(path, 0, target=checked_path(info.linkname))
    if not info.isreg():
        raise FetchError(Failure.UNSAFE_CONTENT, f"{path!r} is neither a file, a folder nor a link")

    def contents() -> IO[bytes]:
        opened = archive.extractfile(info)
        assert opened is not None
        return opened

    return _Entry(path, info.size, contents)


def _of_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry | None:
    mode = info.external_attr >> 16
    if info.is_dir() or stat.S_ISDIR(mode):
        _folder(info.filename)
        return None
    path = checked_path(info.filename)
    if info.flag_bits & 1:
        raise FetchError(Failure.UNSAFE_CONTENT, f"{path!r} is encrypted")
    if stat.S_ISLNK(mode):
        if info.file_size > _MAX_LINK_BYTES:
            raise FetchError(Failure.UNSAFE_CONTENT, f"{path!r} is a link of {info.file_size} bytes")
        return _Entry(path, 0, target=_resolved(path, archive.read(info).decode("utf-8", "surrogateescape")))
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise FetchError(Failure.UNSAFE_CONTENT, f"{path!r} is neither a file, a folder nor a link")
    return _Entry(path, info.file_size, lambda: archive.open(info))


def _folder(name: str) -> None:
    """Folders come with their files; one that could leave is refused all the same."""
    plain = name.rstrip("/")
    if plain not in ("", ".") or name.startswith("/"):
        checked_path(plain or name)


def _resolved(path: str, target: str) -> str:
    """Where a symbolic link at `path` leads, relative to the archive; refused when that is outside."""
    return checked_path(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))


def _checked(entries: list[_Entry], limits: Limits) -> list[_Entry]:
    """The entries to extract, files before links, without the folder around everything."""
    kept = [entry for entry in entries if not is_hidden(entry.path)]
    if not kept:
        raise FetchError(Failure.INVALID_SOURCE, "the archive holds no files")
    check_tree(entry.path for entry in kept)
    check_amount(len(kept), sum(entry.size for entry in kept), limits)
    by_path = {entry.path: entry for entry in kept}
    kept = [replace(entry, target=_final(entry, by_path)) if entry.target else entry for entry in kept]
    tops = {entry.path.partition("/")[0] for entry in kept}
    if len(tops) == 1 and all("/" in entry.path for entry in kept):
        kept = [
            replace(entry, path=entry.path.partition("/")[2], target=entry.target.partition("/")[2]) for entry in kept
        ]
    return sorted(kept, key=lambda entry: bool(entry.target))


def _final(link: _Entry, by_path: dict[str, _Entry]) -> str:
    """The file at the end of a chain of links."""
    entry = link
    for _ in range(_MAX_LINK_HOPS):
        if entry.target not in by_path:
            break
        entry = by_path[entry.target]
        if not entry.target:
            return entry.path
    raise FetchError(Failure.UNSAFE_CONTENT, f"the link {link.path!r} leads to no file of the archive")


def _extract(plan: list[_Entry], root: Path, tag: str, progress: Progress) -> tuple[ModelFile, ...]:
    done: dict[str, ModelFile] = {}
    for entry in plan:
        progress.begin(entry.path)
        target = root / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.target:
            link_or_copy(root / entry.target, target)
            done[entry.path] = replace_path(done[entry.target], entry.path, target)
            continue
        done[entry.path] = _extract_file(entry, target, tag, progress)
    return tuple(done.values())


def replace_path(file: ModelFile, path: str, place: Path) -> ModelFile:
    """The same content under another path."""
    return ModelFile(path, file.size, file.sha256, file.tag, place.stat().st_mtime_ns)


def _extract_file(entry: _Entry, target: Path, tag: str, progress: Progress) -> ModelFile:
    assert entry.contents is not None
    sha256 = hashlib.sha256()
    size = 0
    with entry.contents() as source, target.open("wb", buffering=0) as file:
        while piece := source.read(_READ_BYTES):
            file.write(piece)
            sha256.update(piece)
            size += len(piece)
            progress.advance(len(piece))
        os.fsync(file.fileno())
        mtime_ns = os.fstat(file.fileno()).st_mtime_ns
    if size != entry.size:
        raise EOFError(entry.path)
    return ModelFile(entry.path, size, sha256.hexdigest(), tag, mtime_ns)
