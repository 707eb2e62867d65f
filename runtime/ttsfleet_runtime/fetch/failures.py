"""Why a fetch failed: the exit codes that the operator knows, and what the termination message may say.

The termination message becomes part of the pod's status, which many may read: it is one of the sentences here, never
what a server answered. The log says more, without secrets.
"""

from __future__ import annotations

import enum
import errno

from ttsfleet_runtime.errors import TTSFleetError


class Failure(enum.IntEnum):
    """Exit codes of the program. The operator's `fetch_codes` names the same reasons."""

    INVALID_SOURCE = 10
    DENIED = 11
    NOT_FOUND = 12
    CHECKSUM_MISMATCH = 13
    NO_SPACE = 14
    TIMEOUT = 15
    UNREACHABLE = 16
    UNSAFE_CONTENT = 17
    LOCK_TIMEOUT = 18
    FAILED = 19


SENTENCES = {
    Failure.INVALID_SOURCE: "the configuration of the fetch or its secret is refused",
    Failure.DENIED: "the model's source denies access",
    Failure.NOT_FOUND: "the model's source has no such repository, revision, bucket or file",
    Failure.CHECKSUM_MISMATCH: "the model does not have the checksum that was asked for",
    Failure.NO_SPACE: "the model's volume is full",
    Failure.TIMEOUT: "the model's source stopped sending",
    Failure.UNREACHABLE: "the model's source cannot be reached",
    Failure.UNSAFE_CONTENT: "the model's source holds paths, links, redirects or sizes that are refused",
    Failure.LOCK_TIMEOUT: "another process holds the lock of the model's directory and does not finish",
    Failure.FAILED: "the fetch failed; its log tells more",
}
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class FetchError(TTSFleetError):
    """A fetch that cannot go on. `is_transient`: the same request may succeed a moment later."""

    code = "fetch_failed"

    def __init__(
        self,
        failure: Failure,
        message: str,
        *,
        is_transient: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.failure = failure
        self.is_transient = is_transient


def failure_of_os_error(error: OSError) -> Failure:
    """A full disk or an exhausted quota, or any other fault of the volume."""
    return Failure.NO_SPACE if error.errno in _DISK_FULL else Failure.FAILED
