"""What the API server can answer instead of what was asked, as types that callers tell apart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ttsfleet_operator.cluster.work_queue import RetryAfter

MAX_MESSAGE = 400


class APIError(Exception):
    """An answer that is not a success. `message` is the server's sentence, shortened."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.reason = reason
        self.message = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
        Exception.__init__(self, f"{status} {reason}: {self.message}")


class NotFoundError(APIError):
    """The object, or its whole kind, does not exist."""


class ConflictError(APIError):
    """The object was changed meanwhile, or another field manager owns a field that was not forced."""


class AlreadyExistsError(APIError):
    """An object of that name exists."""


class ExpiredError(APIError):
    """A continue token or resource version is too old (410)."""


class InvalidError(APIError):
    """The API server refuses the object as it is (400, 422): trying again is of no use."""


class ForbiddenError(APIError):
    """RBAC, an admission policy or a quota says no (401, 403)."""


class NamespaceEndsError(ForbiddenError):
    """The namespace is being deleted: nothing can be created in it, and nothing needs to be."""


class UnavailableError(APIError, RetryAfter):
    """No answer, a 5xx, or a 429: later, in `seconds` if the server said so."""

    def __init__(self, status: int, reason: str, message: str, seconds: float = 0.0) -> None:
        APIError.__init__(self, status, reason, message)
        self.seconds = seconds


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The typed error of an answer."""
    reason, message = _status_of(body)
    if status == 404:
        return NotFoundError(status, reason, message)
    if status == 409:
        kind = AlreadyExistsError if reason == "AlreadyExists" else ConflictError
        return kind(status, reason, message)
    if status == 410:
        return ExpiredError(status, reason, message)
    if status == 403 and "because it is being terminated" in message:
        return NamespaceEndsError(status, reason, message)
    if status in (401, 403):
        return ForbiddenError(status, reason, message)
    if status == 429 or status >= 500:
        return UnavailableError(status, reason, message, _seconds(headers.get("Retry-After", "")))
    return InvalidError(status, reason, message)


def _status_of(body: bytes) -> tuple[str, str]:
    try:
        status: Any = json.loads(body)
        return str(status.get("reason", "")), str(status.get("message", ""))
    except (ValueError, AttributeError):
        return "", body[:MAX_MESSAGE].decode(errors="replace")


def _seconds(header: str) -> float:
    return float(header) if header.isdigit() else 0.0
