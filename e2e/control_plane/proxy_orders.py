"""What a test can ask the proxy to do to requests, and what the proxy tells of them. Pure but for the waiting."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from control_plane.api_request import ApiRequest
from control_plane.errors import NeverHappened

Filter = Callable[[ApiRequest], bool]
NOT_COUNTED = frozenset({"leases", "events"})


def counted_write(request: ApiRequest) -> bool:
    """The writes that are counted unless a test says otherwise: all but Leases and Events."""
    return request.is_write and request.resource not in NOT_COUNTED


@dataclass(frozen=True)
class Answered:
    """A request and the status that the API server (or the proxy) answered.

    `begun` and `ended` are of a monotonic clock: when its head was read, and when the head of its answer was.
    """

    request: ApiRequest
    status: int
    begun: float
    ended: float
    retry_after_seconds: int = 0


@dataclass
class Kill:
    """A kill that was asked for. `at` is the write that it happened at, once it has."""

    pid: int
    after: int
    counts: Filter
    at: ApiRequest | None = None
    happened: threading.Event = field(default_factory=threading.Event)

    def wait(self, within: float = 30.0) -> ApiRequest:
        """The write after whose answer the process was killed.

        Raises:
            NeverHappened: fewer writes came in that time (seconds).
        """
        if not self.happened.wait(within) or self.at is None:
            raise NeverHappened(f"{self.after} more writes and the kill after them: not within {within:g} s")
        return self.at


@dataclass
class Refusal:
    """Requests that are answered by the proxy. `left` is how many more; None means until `proxy.answer_all`."""

    matches: Filter
    status: int
    retry_after_seconds: int
    left: int | None
    given: int = 0


def refused(refusal: Refusal) -> bytes:
    """The whole HTTP answer, as the API server would write it."""
    reason = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}.get(refusal.status, "Unknown")
    content = json.dumps(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "refused by the proxy of the tests",
            "reason": reason,
            "details": {"retryAfterSeconds": refusal.retry_after_seconds},
            "code": refusal.status,
        }
    ).encode()
    fields = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    fields += f"Retry-After: {refusal.retry_after_seconds}\r\n"
    return f"HTTP/1.1 {refusal.status} {reason}\r\n{fields}\r\n".encode() + content
