"""The list of a model's files, its digest, and the file that keeps it beside them.

The digest is the SHA-256 of this text: for each file, sorted by the bytes of its path, the line
`<sha256> <size> <path>\n`. It depends on nothing but paths and contents, so it is the same whatever the model came
from. Files with a part of their path that begins with a dot are left out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.files import write_atomically
from ttsfleet_runtime.fetch.paths import checked_path, is_hidden

MANIFEST_NAME = ".ttsfleet-model.json"
_SCHEMA_VERSION = 1


class ModelFile(msgspec.Struct, frozen=True):
    """A file that was verified: its content, and what its source called that content (`tag`, "" = nothing)."""

    path: str
    size: int
    sha256: str
    tag: str = ""
    mtime_ns: int = 0


class Manifest(msgspec.Struct, frozen=True):
    """A whole model. `source` says where it was fetched from, without endpoint and credentials."""

    source: dict[str, str]
    digest: str
    files: tuple[ModelFile, ...]
    schema_version: int = _SCHEMA_VERSION


def digest_files(files: Iterable[ModelFile]) -> str:
    """The model's digest, 64 hexadecimal digits."""
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path.encode()):
        whole.update(f"{file.sha256} {file.size} {file.path}\n".encode())
    return whole.hexdigest()


def walk_files(root: Path) -> Iterator[str]:
    """Paths of the model files below `root`, relative to it. Links count as what they lead to, if it is a file.

    Raises FetchError for what is neither file nor folder, and for a folder behind a link.
    """
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            for path in walk_files(Path(entry.path)):
                yield f"{entry.name}/{path}"
        elif entry.is_file():
            yield checked_path(entry.name)
        else:
            raise FetchError(Failure.UNSAFE_CONTENT, f"{entry.path}: neither a file nor a folder")


def hash_tree(root: Path) -> tuple[ModelFile, ...]:
    """Every model file below `root`, read in full."""
    return tuple(hash_file(root, path) for path in walk_files(root))


def hash_file(root: Path, path: str) -> ModelFile:
    with (root / path).open("rb") as file:
        stat = os.fstat(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ModelFile(path, stat.st_size, sha256, mtime_ns=stat.st_mtime_ns)


def is_unchanged(root: Path, file: ModelFile) -> bool:
    """Whether size and time of modification are as they were when the file was verified. Reads no content."""
    try:
        stat = os.stat(root / file.path)
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (file.size, file.mtime_ns)


def read_manifest(root: Path) -> Manifest | None:
    """The manifest beside the files; None when there is none that this release can read."""
    try:
        manifest = msgspec.json.decode((root / MANIFEST_NAME).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None
    usable = manifest.schema_version == _SCHEMA_VERSION and all(not is_hidden(file.path) for file in manifest.files)
    return manifest if usable else None


def write_manifest(root: Path, manifest: Manifest) -> None:
    """On the disk when this returns."""
    write_atomically(root / MANIFEST_NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
