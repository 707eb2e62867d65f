"""A model's directory on its volume: whether it is whole, the unfinished one beside it, and the swap of the two.

    models/<name>/                       the finished directory, with `.ttsfleet-model.json`; appears by rename
    models/.<name>.lock                  held while a process works on the others
    models/.<name>.partial/model/        verified files on their way
    models/.<name>.partial/journal       a line per verified file
    models/.<name>.partial/incoming/     files that are not whole yet

Whatever ends a process, each of these is either valid or ignored by the next one.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.files import link_or_copy, sync_path, sync_tree
from ttsfleet_runtime.fetch.manifest import (
    Manifest,
    ModelFile,
    hash_file,
    is_unchanged,
    read_manifest,
    walk_files,
    write_manifest,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What lies in a finished directory: its manifest, the files that are as it says, and whether that is all."""

    manifest: Manifest
    intact: dict[str, ModelFile]
    is_whole: bool


def inspect(root: Path, source: dict[str, str], *, full: bool) -> Found | None:
    """Look at the finished directory; None when there is none. `full` reads every file again.

    Raises FetchError for a directory that another source, or no fetch at all, has filled: it is not ours to replace.
    """
    manifest = read_manifest(root)
    if manifest is None:
        if root.is_dir() and any(root.iterdir()):
            raise FetchError(
                Failure.INVALID_SOURCE, f"{root} holds files that no fetch wrote; empty it or name another model_dir"
            )
        return None
    if manifest.source != source:
        raise FetchError(Failure.INVALID_SOURCE, f"{root} holds the model of another source; name another model_dir")
    files = tuple(_refreshed(root, file, full=full) for file in manifest.files)
    intact = {file.path: file for file in files if file is not None}
    whole = len(intact) == len(manifest.files) and set(walk_files(root)) == intact.keys()
    if whole and tuple(intact.values()) != manifest.files:
        _remember_times(root, Manifest(manifest.source, manifest.digest, tuple(intact.values())))
    return Found(manifest, intact, whole)


def _refreshed(root: Path, file: ModelFile, *, full: bool) -> ModelFile | None:
    """The file with its present time of modification; None when it is missing or has another content."""
    if not full and is_unchanged(root, file):
        return file
    try:
        present = hash_file(root, file.path)
    except OSError as error:
        logger.warning("%s: %s", file.path, error.strerror)
        return None
    if present.sha256 != file.sha256:
        logger.warning("%s is not as it was fetched", file.path)
        return None
    return msgspec.structs.replace(file, mtime_ns=present.mtime_ns)


def _remember_times(root: Path, manifest: Manifest) -> None:
    """So that the next start need not read the files. A volume that refuses costs only time."""
    try:
        write_manifest(root, manifest)
    except OSError as error:
        logger.info("%s: times are not kept (%s)", root, error.strerror)


class Workplace:
    """The unfinished directory of `target`. Used under the lock."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._root = target.with_name(f".{target.name}.partial")
        self._old = target.with_name(f".{target.name}.old")
        self._journal = self._root / "journal"
        self.model = self._root / "model"
        self.incoming = self._root / "incoming"

    @staticmethod
    def lock_path(target: Path) -> Path:
        return target.with_name(f".{target.name}.lock")

    def prepare(self) -> dict[str, ModelFile]:
        """Make the folders. Returns what an earlier process has verified and nothing has touched since."""
        self.model.mkdir(parents=True, exist_ok=True)
        self.incoming.mkdir(exist_ok=True)
        return {file.path: file for file in self._entries() if is_unchanged(self.model, file)}

    def accept(self, part: Path, file: ModelFile) -> None:
        """Move a verified file to its place. Noted first: without the note it would be fetched again, while a note
        without the file costs nothing."""
        self.note(file)
        place = self.model / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, place)
        part.with_name(f"{part.name}.json").unlink(missing_ok=True)

    def reuse(self, file: ModelFile) -> None:
        """Take a verified file of the finished directory over, without a copy where the volume can."""
        link_or_copy(self._target / file.path, self.model / file.path)
        self.note(file)

    def note(self, *files: ModelFile) -> None:
        """Remember verified files. Written before they are synced by `publish`, and checked by `prepare`."""
        with self._journal.open("ab") as journal:
            journal.write(b"".join(msgspec.json.encode(file) + b"\n" for file in files))
            journal.flush()
            os.fsync(journal.fileno())

    def empty_model(self) -> None:
        shutil.rmtree(self.model)
        self.model.mkdir()

    def publish(self, manifest: Manifest) -> None:
        """Make the model of `manifest`, all of whose files are here, the finished directory."""
        wanted = {file.path for file in manifest.files}
        for path in set(walk_files(self.model)) - wanted:
            (self.model / path).unlink()
        write_manifest(self.model, manifest)
        sync_tree(self.model)
        if self._target.exists():
            shutil.rmtree(self._old, ignore_errors=True)
            os.rename(self._target, self._old)
        os.rename(self.model, self._target)
        sync_path(self._target.parent)
        self.discard()

    def is_there(self) -> bool:
        """Whether a process has left something, perhaps in the moment after `publish` renamed."""
        return self._root.exists() or self._old.exists()

    def discard(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.rmtree(self._old, ignore_errors=True)

    def _entries(self) -> list[ModelFile]:
        """The journal; a last line that was cut off is left out."""
        try:
            lines = self._journal.read_bytes().split(b"\n")[:-1]
            return [msgspec.json.decode(line, type=ModelFile) for line in lines]
        except FileNotFoundError:
            return []
        except msgspec.MsgspecError:
            logger.warning("%s is damaged; the files beside it are fetched again", self._journal)
            self._journal.unlink()
            return []
