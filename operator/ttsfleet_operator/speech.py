"""A small client of any OpenAI-compatible speech server, with the clock beside every byte.

`say`, `demo` and `bench` use it. It never retries: a benchmark must see failures, and a person wants the reason.
"""

from __future__ import annotations

import json
import re
import time
import wave
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from io import BytesIO

import httpx

from ttsfleet_operator.errors import SpeechError

PCM_SAMPLE_RATE_HZ = 24000  # OpenAI's pcm: signed 16-bit little-endian mono at 24 kHz
BYTES_PER_SAMPLE = 2
FORMATS = ("wav", "mp3", "opus", "flac", "aac", "pcm")


@dataclass(frozen=True)
class SpeechOrder:
    """What to ask for. None and "" are left out of the request, so any server takes it."""

    text: str
    voice: str
    model: str = "tts-1"
    response_format: str = "wav"
    speed: float | None = None
    seed: int | None = None
    instructions: str = ""
    extra: dict[str, object] = field(default_factory=dict)

    def body(self) -> dict[str, object]:
        body: dict[str, object] = {
            "model": self.model,
            "input": self.text,
            "voice": self.voice,
            "response_format": self.response_format,
        }
        optional = {"speed": self.speed, "seed": self.seed, "instructions": self.instructions or None}
        return body | {name: value for name, value in optional.items() if value is not None} | self.extra


@dataclass
class Delivery:
    """How an answer arrived; times are `time.perf_counter` seconds, the arrival of each piece beside its size."""

    started: float
    status: int = 0
    content_type: str = ""
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    ended: float = 0.0

    @property
    def first_audio_seconds(self) -> float | None:
        return self.arrivals[0][0] - self.started if self.arrivals else None

    @property
    def total_seconds(self) -> float:
        return self.ended - self.started

    @property
    def num_bytes(self) -> int:
        return sum(size for _, size in self.arrivals)

    @property
    def sample_rate_hz(self) -> int:
        """Of pcm: the `rate` parameter of the content type, else OpenAI's 24 kHz."""
        match = re.search(r"rate=(\d+)", self.content_type)
        return int(match[1]) if match else PCM_SAMPLE_RATE_HZ


async def stream_speech(
    client: httpx.AsyncClient,
    url: str,
    order: SpeechOrder,
    delivery: Delivery,
    clock: Callable[[], float] = time.perf_counter,
) -> AsyncIterator[bytes]:
    """Ask `url` (the server's root) for speech and yield the body as it comes, filling `delivery`.

    Raises SpeechError with the server's own message when it refuses, and httpx.HTTPError when the connection fails
    or the body breaks off.
    """
    async with client.stream("POST", f"{api_root(url)}/v1/audio/speech", json=order.body()) as response:
        delivery.status = response.status_code
        delivery.content_type = response.headers.get("content-type", "")
        if response.status_code != 200:
            raise SpeechError(_refusal(response.status_code, await response.aread()))
        async for piece in response.aiter_raw():
            if piece:
                delivery.arrivals.append((clock(), len(piece)))
                yield piece
    delivery.ended = clock()


async def fetch_speech(client: httpx.AsyncClient, url: str, order: SpeechOrder) -> tuple[bytes, Delivery]:
    """The whole answer at once. Raises as `stream_speech`, and SpeechError for an empty body."""
    delivery = Delivery(started=time.perf_counter())
    body = b"".join([piece async for piece in stream_speech(client, url, order, delivery)])
    if not body:
        raise SpeechError(f"{url} answered without audio")
    return body, delivery


def api_root(url: str) -> str:
    """The server's root, however much of the path was given."""
    return url.rstrip("/").removesuffix("/v1/audio/speech").removesuffix("/v1")


def speech_client(api_key: str = "", timeout_seconds: float = 300.0) -> httpx.AsyncClient:
    """A client without a connection limit (a benchmark sets its own load) that ignores proxies of the environment."""
    headers = {"Accept-Encoding": "identity"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    return httpx.AsyncClient(
        headers=headers,
        timeout=httpx.Timeout(timeout_seconds, connect=10.0),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        trust_env=False,
    )


def pcm_seconds(num_bytes: int, sample_rate_hz: int = PCM_SAMPLE_RATE_HZ) -> float:
    return num_bytes / BYTES_PER_SAMPLE / sample_rate_hz


def wav_seconds(body: bytes) -> float:
    """Seconds of audio of a WAV body; a streamed one may declare an unknown length, so its bytes are counted.

    Raises SpeechError when it is no PCM WAV.
    """
    try:
        with wave.open(BytesIO(body)) as reader:
            frame_bytes = reader.getnchannels() * reader.getsampwidth()
            declared, rate = int(reader.getnframes()), int(reader.getframerate())
    except (wave.Error, EOFError) as error:
        raise SpeechError(f"the server's answer is not a WAV file: {error}") from error
    return float(min(declared, len(body) // frame_bytes) / rate)


def _refusal(status: int, body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        message = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode(errors="replace").strip() or "no message"
    return f"the server answered {status}: {message}"
