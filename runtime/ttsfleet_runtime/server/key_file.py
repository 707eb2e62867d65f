"""The API key that clients must send, as a file that may be rotated while the server runs.

A mounted Secret is replaced by a rename, so its file changes at once and never by halves. Looking at it costs one
`stat` a request; its content is read only when the file is another one.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeAlias

from ttsfleet_runtime.errors import ConfigError

logger = logging.getLogger(__name__)

_Version: TypeAlias = tuple[int, int, int]


class KeyFile:
    """The key in `path`. Raises ConfigError for one that no client could send, and OSError without a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = self._look()
        self._key = read_api_key(path)

    def current(self) -> str:
        """The key as the file has it now. A file that cannot be used changes nothing: the last key stays valid."""
        try:
            version = self._look()
            if version != self._version:
                self._version = version
                self._key = read_api_key(self._path)
                logger.info("the API key was read again from %s", self._path)
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            if self._version != (0, 0, 0):
                logger.warning("the API key stays as it was: %s", error)
            self._version = (0, 0, 0)
        return self._key

    def _look(self) -> _Version:
        found = self._path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size


def read_api_key(path: Path) -> str:
    """The key in a file. Raises ConfigError for one that no client could send."""
    return usable_key(path.read_text(encoding="utf-8"))


def usable_key(text: str) -> str:
    """`text` without white space around it. Raises ConfigError for an empty key or one that no client could send."""
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError("the API key must be one line of printable ASCII characters", param="api_key")
    return key
