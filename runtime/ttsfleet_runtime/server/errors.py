"""Errors as an OpenAI client expects them: `{"error": {message, type, param, code}}`, the status, Retry-After.

Every way an answer can be an error ends in `error_response` or, once a stream has begun, in `error_object`. Typed
errors of the runtime pass through; FastAPI's own (unknown path, wrong method, malformed multipart) are translated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from ttsfleet_runtime.errors import ErrorInfo, InvalidRequestError, TTSFleetError

CLIENT_CLOSED_REQUEST = 499
"""Status for the log and the metrics when the client left; nobody receives it."""

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}
_SHOWN_CHARACTERS = 80


class SlowRequestError(TTSFleetError):
    """The client did not send its request in time."""

    code = "request_timeout"
    status = 408


INTERNAL_ERROR = ErrorInfo(
    code="internal_error",
    message="the server failed to handle the request; its log has the cause under this answer's X-Request-Id",
)


def error_from_info(info: ErrorInfo) -> TTSFleetError:
    """The exception form of an error that came over the wire."""
    error = TTSFleetError(info.message, param=info.param, retry_after_seconds=info.retry_after_seconds)
    error.code = info.code
    error.status = info.status
    return error


def error_object(info: ErrorInfo) -> dict[str, Any]:
    """OpenAI's error object."""
    return {
        "error": {"message": info.message, "type": _error_type(info.status), "param": info.param, "code": info.code}
    }


def error_response(info: ErrorInfo, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The whole answer. 429 and 503 always tell when to come back."""
    all_headers = dict(headers or {})
    retry_after = info.retry_after_seconds
    if retry_after is None and info.status in (429, 503):
        retry_after = 1.0
    if retry_after is not None:
        all_headers["retry-after"] = str(max(1, math.ceil(retry_after)))
    if info.status == 401:
        all_headers["www-authenticate"] = "Bearer"
    return JSONResponse(error_object(info), status_code=info.status, headers=all_headers)


def invalid_request(error: ValidationError | RequestValidationError) -> InvalidRequestError:
    """The first problem that pydantic found, as a sentence that names the field and the value."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"] if part != "body"]
    name = ".".join(location)
    if first["type"] == "json_invalid":
        return InvalidRequestError(f"the body is not valid JSON: {first['msg']}")
    if first["type"] == "missing":
        return InvalidRequestError(f"`{name}` is required", param=name)
    if first["type"] == "extra_forbidden":
        return InvalidRequestError(f"`{name}` is not a field of this request; docs/api.md lists them", param=name)
    shown = repr(first["input"])
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS] + "…"
    message = str(first["msg"]).removeprefix("Value error, ")
    if not name:
        return InvalidRequestError(f"the body is refused: {message} (got {shown})")
    return InvalidRequestError(f"`{name}` is refused: {message} (got {shown})", param=name)


def install_error_handlers(app: FastAPI) -> None:
    """Make every error answer of `app` OpenAI-shaped."""
    app.add_exception_handler(TTSFleetError, _on_typed_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)


def _error_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def _answer(request: Request, info: ErrorInfo, headers: Mapping[str, str] | None = None) -> Response:
    """The answer, noted in the request's log."""
    log = getattr(request.state, "log", None)
    if log is not None:
        log.failed(info)
    return error_response(info, headers)


def _on_typed_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TTSFleetError)
    return _answer(request, error.info())


def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(request, invalid_request(error).info())


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = str(error.detail)
    if error.status_code in (404, 405):
        message = f"{request.method} {request.url.path}: {message}; docs/api.md lists the paths"
    code = _CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal_error")
    info = ErrorInfo(code=code, message=message, status=error.status_code)
    return _answer(request, info, error.headers)


def _on_client_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
