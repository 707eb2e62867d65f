"""Which paths a model's file may have, wherever the list of files comes from."""

from __future__ import annotations

from collections.abc import Iterable

from ttsfleet_runtime.fetch.failures import Failure, FetchError

MAX_PATH_BYTES = 1024
_MAX_NAME_BYTES = 255


def checked_path(path: str) -> str:
    """`path` in its plain form (`./a//b` is `a/b`). Raises FetchError for one that could leave its directory or that
    no file system would keep as it is."""
    fault = _fault(path)
    if fault:
        raise FetchError(Failure.UNSAFE_CONTENT, f"the path {path[:120]!r} is refused: {fault}")
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def is_hidden(path: str) -> bool:
    """Whether a part of the path begins with a dot: such files (`.gitattributes`, our own notes) are no part of a
    model, neither fetched nor counted into its digest."""
    return any(part.startswith(".") for part in path.split("/"))


def check_tree(paths: Iterable[str]) -> None:
    """Raises FetchError when two files have one path, or one is the folder of another."""
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        if path in files:
            raise FetchError(Failure.UNSAFE_CONTENT, f"two files have the path {path!r}")
        files.add(path)
        parts = path.split("/")
        folders.update("/".join(parts[:count]) for count in range(1, len(parts)))
    both = min(files & folders, default=None)
    if both is not None:
        raise FetchError(Failure.UNSAFE_CONTENT, f"{both!r} is a file and a folder")


def _fault(path: str) -> str:
    parts = path.split("/")
    if path.startswith("/"):
        return "it is absolute"
    if ".." in parts:
        return "it leaves its directory"
    if "\\" in path or (len(parts[0]) == 2 and parts[0][1] == ":"):
        return "it is written for another system"
    if not path.isprintable():
        return "it holds control characters"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if len(encoded) > MAX_PATH_BYTES or any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        return "it is too long"
    return "" if any(part not in ("", ".") for part in parts) else "it names no file"
