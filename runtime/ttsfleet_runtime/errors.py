"""The error tree of the runtime and its wire form.

Every error that a user can cause says what was wrong, the value, what is allowed and the remedy. `status` is
the HTTP status that the server answers with; `code` is the machine-readable reason (OpenAI's `error.code`).
Bugs of ours are plain exceptions and become `internal_error`.
"""

from __future__ import annotations

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An error as it travels between processes and, in OpenAI's shape, to the client."""

    code: str
    message: str
    status: int = 500
    param: str | None = None
    retry_after_seconds: float | None = None


class TTSFleetError(Exception):
    """Base of all errors with a message for a user. Subclasses fix `code` and `status`."""

    code = "internal_error"
    status = 500

    def __init__(self, message: str, *, param: str | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def info(self) -> ErrorInfo:
        return ErrorInfo(
            code=self.code,
            message=self.message,
            status=self.status,
            param=self.param,
            retry_after_seconds=self.retry_after_seconds,
        )


class InvalidRequestError(TTSFleetError):
    """The request can never succeed as it is."""

    code = "invalid_request"
    status = 400


class NotFoundError(TTSFleetError):
    """A voice, a model or a style that does not exist."""

    code = "not_found"
    status = 404


class UnauthorizedError(TTSFleetError):
    code = "invalid_api_key"
    status = 401


class TooLargeError(TTSFleetError):
    code = "too_large"
    status = 413


class OverloadedError(TTSFleetError):
    """The queues are full; `retry_after_seconds` says when to come back."""

    code = "overloaded"
    status = 429


class UnavailableError(TTSFleetError):
    """A stage died or is starting; the same request may succeed a moment later."""

    code = "unavailable"
    status = 503


class DeadlineError(TTSFleetError):
    code = "deadline_exceeded"
    status = 504


class CheckpointError(TTSFleetError):
    """A model directory that cannot be loaded: names the file and, where there is one, the key."""

    code = "bad_checkpoint"
    status = 500


class ConfigError(TTSFleetError):
    """A configuration value that is refused: names the field, the value and what is allowed."""

    code = "bad_config"
    status = 500
