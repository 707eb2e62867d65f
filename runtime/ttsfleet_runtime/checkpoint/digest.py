"""Content identity of a model directory, cheap on the second call. No torch.

The digest is SHA-256 over the names and content hashes of the files that matter (`ModelDirectory.files`), so it is
the same on every machine and survives a copy. Content hashes are remembered in `<cache>/digests.json` under
(path, size, mtime, inode): 2.5 GB cost seconds to hash, a stat costs nothing. A file written within the last two
seconds is not remembered, since a second write could leave its size and mtime as they were.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from ttsfleet_runtime.checkpoint.directory import ModelDirectory
from ttsfleet_runtime.errors import CheckpointError

_MEMO = "digests.json"
_SETTLED_SECONDS = 2.0


def model_digest(directory: ModelDirectory, cache_dir: Path) -> str:
    """Hex digest (40 characters). Raises CheckpointError when a file cannot be read."""
    memo = _read_memo(cache_dir)
    fresh: dict[str, str] = {}
    whole = hashlib.sha256()
    for path in directory.files():
        try:
            key = _identity(path)
            content = memo.get(key) or _hash(path)
            settled = time.time() - path.stat().st_mtime > _SETTLED_SECONDS
        except OSError as error:
            raise CheckpointError(f"{path}: {error}") from error
        if settled and key not in memo:
            fresh[key] = content
        whole.update(f"{os.path.relpath(path, directory.root)}\0{content}\n".encode())
    if directory.named:
        for style, path in directory.llm.items():
            whole.update(f"style {style}\0{os.path.relpath(path, directory.root)}\n".encode())
    if fresh:
        _write_memo(cache_dir, memo | fresh)
    return whole.hexdigest()[:40]


def _identity(path: Path) -> str:
    stat = path.stat()
    return f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_memo(cache_dir: Path) -> dict[str, str]:
    """What was hashed before; an unreadable memo only costs time."""
    try:
        memo = json.loads((cache_dir / _MEMO).read_text())
    except (OSError, ValueError):
        return {}
    return memo if isinstance(memo, dict) else {}


def _write_memo(cache_dir: Path, memo: dict[str, str]) -> None:
    """Atomic; of two writers at once one wins, and the other's files are hashed once more."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    temporary = cache_dir / f"{_MEMO}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(memo))
    os.replace(temporary, cache_dir / _MEMO)
