"""The files of a source before they are fetched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ttsfleet_runtime.fetch.config import Limits
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.paths import check_tree


@dataclass(frozen=True)
class RemoteFile:
    """One file. `url` is asked for each request, since a signed one is short-lived.

    `tag` names the content in the source's terms: the same tag is the same content. Of `sha256`, `git_sha1` (of the
    git blob) and `etag` those are set that the source states; `size` is None where it states none.
    """

    path: str
    url: Callable[[], str]
    tag: str
    size: int | None = None
    sha256: str = ""
    git_sha1: str = ""
    etag: str = ""

    @property
    def has_digest(self) -> bool:
        return bool(self.sha256 or (self.git_sha1 and self.size is not None))


@dataclass(frozen=True)
class Listing:
    """All files of a model, and what the requests for them must carry to the source's own host."""

    files: tuple[RemoteFile, ...]
    authorization: Mapping[str, str] = field(default_factory=dict)


def checked_listing(listing: Listing, limits: Limits) -> Listing:
    """Raises FetchError for a listing that is empty, too long or too large, or whose paths contradict each other."""
    if not listing.files:
        raise FetchError(Failure.NOT_FOUND, "the source holds no files")
    check_tree(file.path for file in listing.files)
    check_amount(len(listing.files), sum(file.size or 0 for file in listing.files), limits)
    return listing


def check_amount(count: int, total_bytes: int, limits: Limits) -> None:
    if count > limits.max_files:
        raise FetchError(
            Failure.UNSAFE_CONTENT, f"the source holds {count} files; at most {limits.max_files} are accepted"
        )
    if total_bytes > limits.max_bytes:
        raise FetchError(
            Failure.UNSAFE_CONTENT,
            f"the source holds {total_bytes} bytes; at most {limits.max_bytes} are accepted (--max-gib)",
        )
