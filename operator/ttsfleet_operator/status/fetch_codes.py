"""The exit codes of the pod's fetch step, and the reasons that they stand for.

The codes are the contract with the fetch program of the runtime image: it never writes what a server answered where
the status could pick it up. On success its termination message is the model's digest, `sha256:<64 hex digits>`.
"""

from __future__ import annotations

import re

from ttsfleet_operator.status.reasons import Reason

FETCH_CONTAINER = "fetch"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

FETCH_REASONS: dict[int, Reason] = {
    10: Reason.FETCH_INVALID_SOURCE,
    11: Reason.FETCH_DENIED,
    12: Reason.FETCH_NOT_FOUND,
    13: Reason.FETCH_CHECKSUM_MISMATCH,
    14: Reason.FETCH_NO_SPACE,
    15: Reason.FETCH_TIMEOUT,
    16: Reason.FETCH_UNREACHABLE,
    17: Reason.FETCH_UNSAFE_CONTENT,
    18: Reason.FETCH_LOCK_TIMEOUT,
    19: Reason.FETCH_FAILED,
}


def fetch_reason(exit_code: int) -> Reason:
    """The reason of an exit code of the fetch step; an unknown one is just a failure."""
    return FETCH_REASONS.get(exit_code, Reason.FETCH_FAILED)


def digest_of(termination_message: str) -> str:
    """The digest that a successful fetch left, or "": anything else in its place is not repeated."""
    text = termination_message.strip()
    return text if DIGEST.fullmatch(text) else ""
