"""The outermost layer of the HTTP app: request ids, admission to this worker, the API key, body size, log, report.

Plain ASGI, since it must see a disconnect and pass streams through untouched. One `RequestLog` per request lies in
the ASGI state, where the endpoints find it.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.errors import ErrorInfo, OverloadedError, TooLargeError, TTSFleetError, UnauthorizedError
from ttsfleet_runtime.messages import RequestReport
from ttsfleet_runtime.server.errors import INTERNAL_ERROR, error_response
from ttsfleet_runtime.server.request_log import RequestLog, request_id_from

logger = logging.getLogger("ttsfleet_runtime.server")

PROBES = frozenset({"/health", "/metrics"})
"""Neither counted nor logged nor limited: they must answer when the server is busiest."""

OPEN_PATHS = frozenset({"/", "/status", *PROBES})
"""Need no key: probes, and pages that hold no data themselves. Everything else does."""

_BASE64_OVERHEAD = 4 / 3
_BODY_MARGIN_BYTES = 2**20


class WorkerLoad:
    """Requests of this worker: how many run, how many have ended, and who wants to know."""

    def __init__(self) -> None:
        self.running = 0
        self.ended = 0
        self.retiring = False
        self.on_ended: Callable[[int], None] = lambda ended: None

    def begin(self) -> None:
        self.running += 1

    def end(self) -> None:
        self.running -= 1
        self.ended += 1
        self.on_ended(self.ended)


class AccessLayer:
    """ASGI middleware; see the module docstring."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        plan: EnginePlan,
        api_key: Callable[[], str] | None,
        load: WorkerLoad,
        report: Callable[[RequestReport], None],
    ) -> None:
        self._app = app
        self._max_running = plan.server.worker_connections
        self._max_body_bytes = int(plan.limits.prompt_bytes * _BASE64_OVERHEAD) + _BODY_MARGIN_BYTES
        self._api_key = api_key
        self._load = load
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        log = RequestLog(request_id_from(headers.get("x-request-id")), time.monotonic())
        scope.setdefault("state", {})["log"] = log
        answer = _Answer(send, log, self._load)
        if scope["path"] in PROBES:
            await self._run(scope, receive, answer, log)
            return
        refusal = self._refusal(scope, headers)
        self._load.begin()
        try:
            if refusal is not None:
                log.failed(refusal)
                await error_response(refusal)(scope, receive, answer)
            else:
                await self._run(scope, self._limited(receive), answer, log)
        finally:
            self._load.end()
            self._finish(scope, log)

    async def _run(self, scope: Scope, receive: Receive, answer: _Answer, log: RequestLog) -> None:
        """The app, with an answer even for our own bugs: JSON before the first byte, an aborted body after it."""
        try:
            await self._app(scope, receive, answer)
        except Exception:
            logger.exception("request %s failed", log.request_id)
            log.failed(INTERNAL_ERROR)
            if not answer.started:
                await error_response(INTERNAL_ERROR)(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: Headers) -> ErrorInfo | None:
        try:
            if self._load.running >= self._max_running:
                raise OverloadedError(
                    f"this server process handles {self._max_running} requests at once (server.worker_connections) "
                    "and all are taken; try again",
                    retry_after_seconds=1.0,
                )
            self._check_key(scope, headers)
            if int(headers.get("content-length") or 0) > self._max_body_bytes:
                raise self._too_large()
        except TTSFleetError as error:
            return error.info()
        return None

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        if self._api_key is None or scope["path"] in OPEN_PATHS:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self._api_key().encode()):
            problem = "the API key is wrong" if key else "an API key is required"
            raise UnauthorizedError(f"{problem}: send the header `Authorization: Bearer <key>`")

    def _too_large(self) -> TooLargeError:
        return TooLargeError(
            f"the body is larger than {self._max_body_bytes} bytes, which is what the largest recording needs "
            "(limits.prompt_bytes)"
        )

    def _limited(self, receive: Receive) -> Receive:
        """`receive` that refuses a body growing past the limit, whatever its Content-Length said."""
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise self._too_large()
            return message

        return limited

    def _finish(self, scope: Scope, log: RequestLog) -> None:
        if not log.status:
            log.cancelled()
        report = log.report(_route_of(scope), time.monotonic())
        level = logging.WARNING if report.status >= 500 else logging.INFO
        logger.log(level, "%s", log.line(scope["method"], report))
        self._report(report)


class _Answer:
    """`send` that adds the request id, notes the status, and closes connections while the worker retires."""

    def __init__(self, send: Callable[[Message], Awaitable[None]], log: RequestLog, load: WorkerLoad) -> None:
        self._send = send
        self._log = log
        self._load = load
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._log.status = self._log.status or message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._log.request_id
            if self._load.retiring:
                headers["connection"] = "close"
        await self._send(message)


def _route_of(scope: dict[str, Any] | Scope) -> str:
    """The path's template, so that metrics have few labels; `other` for what matched nothing."""
    return getattr(scope.get("route"), "path", "other")
