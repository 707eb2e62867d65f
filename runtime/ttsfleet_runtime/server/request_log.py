"""What the server remembers of one request, for its log line and its `RequestReport`. Pure."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field

from ttsfleet_runtime.errors import DeadlineError, ErrorInfo
from ttsfleet_runtime.messages import RequestReport, StageTimes
from ttsfleet_runtime.server.errors import CLIENT_CLOSED_REQUEST

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


_LOGGED_CHARACTERS = 300


def request_id_from(given: str | None) -> str:
    """The client's X-Request-Id when it is short and plain, else a new one: it ends in headers and log lines."""
    return given if given is not None and _SANE_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


@dataclass
class RequestLog:
    """Filled by the speech endpoint as the request goes on, read once at its end by the access layer.

    `key` is the request's name inside the server; `status` is what the request came to, which after a failure
    midway is not what went over the wire.
    """

    request_id: str
    received: float
    key: str = ""
    status: int = 0
    error: str = ""
    first_audio_seconds: float | None = None
    audio_seconds: float = 0.0
    underruns: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict)

    def cancelled(self) -> None:
        """The client left."""
        self.status = CLIENT_CLOSED_REQUEST

    def failed(self, error: ErrorInfo) -> None:
        """The request failed, perhaps after its answer had begun, when the status on the wire no longer tells."""
        self.status = error.status
        self.error = f"{error.code}: {error.message}"

    def report(self, route: str, now: float) -> RequestReport:
        """The last word on this request."""
        return RequestReport(
            key=self.key,
            route=route,
            status=self.status,
            outcome=_outcome(self.status),
            latency_seconds=now - self.received,
            first_audio_seconds=self.first_audio_seconds,
            audio_seconds=self.audio_seconds,
            underruns=self.underruns,
        )

    def line(self, method: str, report: RequestReport) -> str:
        """One log line: names, outcome, then durations in milliseconds."""
        parts = [
            f"{method} {report.route} {report.status} {report.outcome}",
            f"id={self.request_id}",
            *([f"key={self.key}"] if self.key else []),
            f"total={report.latency_seconds * 1000:.1f}ms",
        ]
        if self.first_audio_seconds is not None:
            parts.append(f"first_audio={self.first_audio_seconds * 1000:.1f}ms")
        parts += [f"{stage}={duration:.1f}ms" for stage, duration in self.timings_ms.items()]
        if self.audio_seconds:
            parts += [f"audio={self.audio_seconds:.2f}s", f"underruns={self.underruns}"]
        if self.error:
            parts.append(f"error={self.error[:_LOGGED_CHARACTERS]!r}")
        return " ".join(parts)


def stage_durations_ms(first: StageTimes, last: StageTimes) -> dict[str, float]:
    """Milliseconds spent per stage, from the times of the first and the last chunk (one chunk at first audio).

    queue: from arrival to the LLM's admission, less the encoding; encode: arrival to encoded; llm: admission of the
    first segment to the last token (or, while it still speaks, to the start of decoding); decode: its start to the
    last chunk. A stage whose times are not known is left out.
    """
    spans = {
        "queue": (first.encoded, first.llm_admitted),
        "encode": (first.received, first.encoded),
        "llm": (first.llm_admitted, last.llm_finished or last.decode_started),
        "decode": (first.decode_started, last.decoded),
    }
    return {
        stage: max(0.0, (end - start) * 1000) for stage, (start, end) in spans.items() if start > 0.0 and end > 0.0
    }


def server_timing(durations_ms: dict[str, float]) -> str:
    """Value of a Server-Timing header."""
    return ", ".join(f"{stage};dur={duration:.1f}" for stage, duration in durations_ms.items())


def _outcome(status: int) -> str:
    if status == CLIENT_CLOSED_REQUEST:
        return "cancelled"
    if status == DeadlineError.status:
        return "timeout"
    return "ok" if status < 400 else "error"
