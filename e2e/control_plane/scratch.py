"""What a process of the tests writes outside the tree: temporary files and folders that carry its pid."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "ttsfleet-e2e-"
MEMORY = Path("/dev/shm")


def prefix() -> str:
    """How the names of this process's files begin."""
    return f"{PREFIX}{os.getpid()}-"


def left() -> list[Path]:
    """What this process has written and not removed."""
    return _found(prefix())


def remove_abandoned() -> None:
    """Removes what processes left that are no more."""
    for path in _found(PREFIX):
        owner = path.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _found(prefix: str) -> list[Path]:
    return [path for folder in (Path(tempfile.gettempdir()), MEMORY) for path in folder.glob(f"{prefix}*")]
