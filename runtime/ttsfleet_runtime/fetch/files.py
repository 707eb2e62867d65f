"""Files and folders that are on the disk when a call returns, and how much of it is left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ttsfleet_runtime.fetch.failures import Failure, FetchError

# Kept free beside what is fetched: the notes and folders of the file system itself.
_MARGIN_BYTES = 1 << 20


def sync_path(path: Path) -> None:
    """fsync of a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """fsync of every folder below `root`, and of `root`. Files are synced by who writes them."""
    for folder, _, _ in os.walk(root, topdown=False):
        sync_path(Path(folder))


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by a file that is on the disk."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_path(path.parent)


def link_or_copy(source: Path, target: Path) -> None:
    """The content of `source` as `target` too, at no cost where the volume knows hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
        sync_path(target)


def check_space(folder: Path, needed_bytes: int) -> None:
    """Raises FetchError when the volume of `folder` has not that much room."""
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize
    if needed_bytes + _MARGIN_BYTES > free:
        raise FetchError(
            Failure.NO_SPACE,
            f"{folder}: {needed_bytes / 1e6:,.1f} MB are to be written and {free / 1e6:,.1f} MB are free; "
            "enlarge the volume",
        )
