"""Settings of the HTTP side and of the limits that protect it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from ttsfleet_runtime.config.parameter import Parameter, Settings


def _as_tuple(value: object) -> object:
    """A YAML list, or the comma-separated text of a flag, as a tuple."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


class ServerSettings(Settings):
    """Server: HTTP, WebSocket, management"""

    host: Annotated[
        str | None,
        Parameter(meaning="address that the API listens on", default="0.0.0.0", acts_on="server"),
    ] = None
    port: Annotated[
        int | None,
        Field(ge=0, le=65_535),
        Parameter(meaning="port of the API; 0 takes a free one", default="8080", acts_on="server", guide="8080"),
    ] = None
    management_host: Annotated[
        str | None,
        Parameter(
            meaning="address of /livez, /readyz and /metrics; what changes state there answers loopback only",
            default="0.0.0.0",
            acts_on="router",
        ),
    ] = None
    management_port: Annotated[
        int | None,
        Field(ge=0, le=65_535),
        Parameter(meaning="port of the management API; 0 takes a free one", default="8081", acts_on="router"),
    ] = None
    httpserver_workers: Annotated[
        int | None,
        Field(ge=1, le=64),
        Parameter(
            meaning="HTTP processes; they hold no engine state",
            default="1",
            acts_on="server",
            unit="processes",
            guide="gunicorn's workers: 3",
            recommended=(1, 8),
            reason="one serves hundreds of streams; more take cores from the stages",
        ),
    ] = None
    worker_connections: Annotated[
        int | None,
        Field(ge=1, le=100_000),
        Parameter(
            meaning="open requests per HTTP process; beyond them 429",
            default="1000",
            acts_on="server",
            unit="requests",
            guide="1000",
        ),
    ] = None
    max_requests: Annotated[
        int | None,
        Field(ge=0, le=1_000_000_000),
        Parameter(
            meaning="requests after which an HTTP process is replaced, without cutting a stream; 0 never",
            default="10000",
            acts_on="server",
            unit="requests",
            guide="10000",
        ),
    ] = None
    max_requests_jitter: Annotated[
        int | None,
        Field(ge=0, le=1_000_000),
        Parameter(
            meaning="random addition to max_requests, so that processes are not replaced together",
            default="1000",
            acts_on="server",
            unit="requests",
            guide="1000",
        ),
    ] = None
    timeout: Annotated[
        float | None,
        Field(ge=1, le=86_400),
        Parameter(
            meaning="deadline of a request, from arrival to the last byte",
            default="300",
            acts_on="server, router",
            unit="seconds",
            guide="300",
            recommended=(10, 3600),
            reason="short deadlines cut long texts, long ones keep abandoned work",
        ),
    ] = None
    keepalive: Annotated[
        float | None,
        Field(ge=0, le=3600),
        Parameter(
            meaning="time that an idle connection stays open",
            default="2",
            acts_on="server",
            unit="seconds",
            guide="2",
        ),
    ] = None
    ws_max_size: Annotated[
        int | None,
        Field(ge=1024, le=1_073_741_824),
        Parameter(
            meaning="largest WebSocket message",
            default="16777216",
            acts_on="server",
            unit="bytes",
            guide="16777216",
        ),
    ] = None
    ws_ping_interval: Annotated[
        float | None,
        Field(ge=1, le=3600),
        Parameter(meaning="time between WebSocket pings", default="20", acts_on="server", unit="seconds", guide="20"),
    ] = None
    ws_ping_timeout: Annotated[
        float | None,
        Field(ge=1, le=3600),
        Parameter(
            meaning="wait for a WebSocket pong before the connection is given up",
            default="20",
            acts_on="server",
            unit="seconds",
            guide="20",
        ),
    ] = None
    ws_max_queue: Annotated[
        int | None,
        Field(ge=1, le=65_536),
        Parameter(
            meaning="incoming WebSocket messages that wait",
            default="1024",
            acts_on="server",
            unit="messages",
            guide="1024",
        ),
    ] = None
    cors_origins: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(_as_tuple),
        Parameter(
            meaning="origins whose pages may call the API; `*` for any",
            default="none",
            allowed="a list of origins",
            acts_on="server",
        ),
    ] = None
    drain_seconds: Annotated[
        float | None,
        Field(ge=0, le=86_400),
        Parameter(
            meaning="time that running streams get to finish after SIGTERM",
            default="30",
            acts_on="router",
            unit="seconds",
        ),
    ] = None
    stage_timeout_seconds: Annotated[
        float | None,
        Field(ge=1, le=3600),
        Parameter(
            meaning="silence after which a stage process counts as stuck and is replaced",
            default="60",
            acts_on="router",
            unit="seconds",
        ),
    ] = None


class LimitSettings(Settings):
    """Limits: what a client may send"""

    input_chars: Annotated[
        int | None,
        Field(ge=1, le=1_000_000),
        Parameter(meaning="length of a request's text", default="4096", acts_on="server", unit="characters"),
    ] = None
    prompt_seconds: Annotated[
        float | None,
        Field(ge=1, le=30),
        Parameter(
            meaning="length of prompt audio; the speech tokenizer hears 30 s at most",
            default="30",
            acts_on="encode",
            unit="seconds",
        ),
    ] = None
    prompt_bytes: Annotated[
        int | None,
        Field(ge=1024, le=1 << 30),
        Parameter(meaning="size of an audio upload or download", default="10485760", acts_on="server", unit="bytes"),
    ] = None
    prompt_text_chars: Annotated[
        int | None,
        Field(ge=1, le=100_000),
        Parameter(
            meaning="length of a prompt's transcript or of instructions",
            default="1024",
            acts_on="server",
            unit="characters",
        ),
    ] = None
    registered_voices: Annotated[
        int | None,
        Field(ge=0, le=1_000_000),
        Parameter(meaning="voices that clients may register", default="1000", acts_on="router", unit="voices"),
    ] = None
    queued_requests: Annotated[
        int | None,
        Field(ge=1, le=100_000),
        Parameter(
            meaning="requests that wait beyond workers x gpt_paral_num that run; more get 429 with Retry-After",
            default="256",
            acts_on="router",
            unit="requests",
        ),
    ] = None
    allow_private_ref_audio: Annotated[
        bool | None,
        Parameter(
            meaning="fetch reference audio from loopback and private addresses too",
            default="false",
            acts_on="server",
        ),
    ] = None
