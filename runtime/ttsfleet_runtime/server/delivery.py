"""Brings the chunks of one request to the client: whole, as a raw stream, or as server-sent events.

Nothing is sent before the first audio, so that every earlier error is an answer of its own. Afterwards an error ends
server-sent events with an error event, and leaves a raw body unfinished: the server then closes the connection
without the terminating chunk, which no client can take for the end of the audio.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from starlette.types import Send

from ttsfleet_runtime.audio.encoders import AudioEncoder, encode_file
from ttsfleet_runtime.audio.formats import AudioFormat, content_type, pcm_seconds
from ttsfleet_runtime.errors import TTSFleetError
from ttsfleet_runtime.messages import AudioChunk, StageTimes
from ttsfleet_runtime.server.errors import error_object
from ttsfleet_runtime.server.playback import Playback
from ttsfleet_runtime.server.request_log import RequestLog, server_timing, stage_durations_ms
from ttsfleet_runtime.server.speech_stream import SpeechStream

_INLINE_SECONDS = 1.0
"""Audio encoded on the event loop in one go: 11 ms in aac, the slowest (x86 core, 2026-11). More goes to a thread."""

_FAREWELL_SECONDS = 1.0


class Delivery(ABC):
    """One request's answer. `run` once; if it raises and `started` is true, then `fail` in place of an answer."""

    def __init__(self, send: Send, log: RequestLog, audio_format: AudioFormat, headers: dict[str, str]) -> None:
        self.started = False
        self._send = send
        self._log = log
        self._format = audio_format
        self._headers = headers
        self._playback = Playback()
        self._tokens: list[int] = []
        self._text_tokens: dict[int, int] = {}
        self._first_times: StageTimes | None = None

    @abstractmethod
    async def run(self, stream: SpeechStream) -> None:
        """Send everything. Raises TTSFleetError when the request fails."""

    @abstractmethod
    async def fail(self, error: TTSFleetError) -> None:
        """End an answer that has begun, so that nobody takes it for complete."""

    def _account(self, chunk: AudioChunk) -> None:
        """Keep the log up to date: it must be right at whatever chunk the request ends."""
        self._tokens += chunk.tokens
        self._text_tokens[chunk.segment] = max(self._text_tokens.get(chunk.segment, 0), chunk.num_text_tokens)
        self._playback.chunk(time.monotonic(), pcm_seconds(len(chunk.pcm), chunk.sample_rate))
        self._first_times = self._first_times or chunk.times
        self._log.audio_seconds = self._playback.audio_seconds
        self._log.timings_ms = stage_durations_ms(self._first_times, chunk.times)

    async def _start(self, media_type: str, length: int | None) -> None:
        headers = {
            "content-type": media_type,
            "cache-control": "no-store",
            "server-timing": server_timing(self._log.timings_ms),
            **self._headers,
        }
        if length is not None:
            headers["content-length"] = str(length)
        self.started = True
        self._log.first_audio_seconds = time.monotonic() - self._log.received
        await self._send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            }
        )

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


class WholeDelivery(Delivery):
    """All audio in one body with its Content-Length."""

    async def run(self, stream: SpeechStream) -> None:
        pieces: list[bytes] = []
        sample_rate = 0
        async for chunk in stream:
            self._account(chunk)
            pieces.append(chunk.pcm)
            sample_rate = chunk.sample_rate
        body = await asyncio.to_thread(encode_file, self._format, b"".join(pieces), sample_rate)
        self._headers["x-speech-tokens-sha256"] = tokens_digest(self._tokens)
        await self._start(content_type(self._format, sample_rate), len(body))
        await self._send_body(body, more=False)

    async def fail(self, error: TTSFleetError) -> None:
        """The body is shorter than its Content-Length."""


class StreamDelivery(Delivery):
    """Chunks as they come, as a raw body."""

    async def run(self, stream: SpeechStream) -> None:
        encoder: AudioEncoder | None = None
        async for chunk in stream:
            self._account(chunk)
            self._log.underruns = self._playback.underruns
            if encoder is None:
                encoder = AudioEncoder.for_format(self._format, chunk.sample_rate)
                await self._start(self._media_type(chunk.sample_rate), None)
            await self._send_audio(await _encoded(encoder.push, chunk))
            # After `send`, so a client that does not read holds back the segments to come.
            stream.consumed(chunk.segment)
        assert encoder is not None, "a stream ends with its last chunk, so it has one"
        await self._send_audio(encoder.finish())
        await self._finish()

    async def fail(self, error: TTSFleetError) -> None:
        """The body lacks its terminating chunk."""

    def _media_type(self, sample_rate: int) -> str:
        return content_type(self._format, sample_rate)

    async def _send_audio(self, data: bytes) -> None:
        if data:
            await self._send_body(data, more=True)

    async def _finish(self) -> None:
        await self._send_body(b"", more=False)


class EventDelivery(StreamDelivery):
    """OpenAI's server-sent events: `speech.audio.delta` with base64 audio, then `speech.audio.done` with usage."""

    def __init__(self, *arguments: Any, return_tokens: bool) -> None:
        super().__init__(*arguments)
        self._return_tokens = return_tokens

    async def fail(self, error: TTSFleetError) -> None:
        """An error event, then the end. A client that does not read gets neither."""
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._send_body(_event(error_object(error.info()), name="error"), more=False)
        except TimeoutError:
            return

    def _media_type(self, sample_rate: int) -> str:
        return "text/event-stream; charset=utf-8"

    async def _send_audio(self, data: bytes) -> None:
        if data:
            delta = {"type": "speech.audio.delta", "audio": base64.b64encode(data).decode("ascii")}
            await self._send_body(_event(delta), more=True)

    async def _finish(self) -> None:
        num_input, num_output = sum(self._text_tokens.values()), len(self._tokens)
        done: dict[str, Any] = {
            "type": "speech.audio.done",
            "usage": {
                "input_tokens": num_input,
                "output_tokens": num_output,
                "total_tokens": num_input + num_output,
            },
        }
        if self._return_tokens:
            done["speech_tokens"] = self._tokens
        await self._send_body(_event(done), more=False)


def tokens_digest(tokens: list[int]) -> str:
    """SHA-256, hex, of the speech token ids as little-endian int32: equal digests, equal speech."""
    return hashlib.sha256(struct.pack(f"<{len(tokens)}i", *tokens)).hexdigest()


async def _encoded(push: Callable[[bytes], bytes], chunk: AudioChunk) -> bytes:
    if pcm_seconds(len(chunk.pcm), chunk.sample_rate) <= _INLINE_SECONDS:
        return push(chunk.pcm)
    return await asyncio.to_thread(push, chunk.pcm)


def _event(data: dict[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
