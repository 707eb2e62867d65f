"""Where the commands of the system are: those for root are often not on the PATH."""

from __future__ import annotations

import os
import shutil

from control_plane.errors import StartFailed

SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"


def find(name: str) -> str | None:
    """The path of a command, or None when it is not installed."""
    return shutil.which(name, path=SEARCH_PATH)


def path_of(name: str) -> str:
    """The path of a command.

    Raises:
        StartFailed: it is not installed.
    """
    path = find(name)
    if not path:
        raise StartFailed(f"the command {name} is not installed")
    return path
