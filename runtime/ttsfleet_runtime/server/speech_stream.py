"""One request's audio on its way from the decoders: chunks in any order in, chunks in playing order out.

Segments are decoded side by side, so a chunk of segment k+1 may arrive before the last one of segment k; it waits
here. The router bounds how far ahead segments are prepared, which bounds what waits. No sockets: `RouterClient` feeds
this object and passes on what it has to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from ttsfleet_runtime.errors import ErrorInfo
from ttsfleet_runtime.messages import AnyMessage, AudioChunk, Cancel, SegmentConsumed
from ttsfleet_runtime.server.errors import error_from_info


class SpeechStream(AsyncIterator[AudioChunk]):
    """Async iterator over the chunks of one request, strictly in (segment, index) order.

    Ends after the last chunk of the last segment. Raises TTSFleetError as soon as the request has failed, even when
    earlier chunks still wait. `close` must be called in the end; it cancels what has not ended.
    """

    def __init__(
        self, key: str, send: Callable[[AnyMessage], None], on_close: Callable[[SpeechStream], None]
    ) -> None:
        self.key = key
        self._send = send
        self._on_close = on_close
        self._waiting: dict[tuple[int, int], AudioChunk] = {}
        self._next = (0, 0)
        self._ended = False
        self._error: ErrorInfo | None = None
        self._stages_know = False
        self._changed = asyncio.Event()
        self._consumed_segment = -1
        self._closed = False

    def offer(self, chunk: AudioChunk) -> None:
        """Take in a chunk, whenever it comes."""
        position = (chunk.segment, chunk.index)
        if position >= self._next:
            self._waiting[position] = chunk
            self._changed.set()

    def fail(self, error: ErrorInfo, *, stages_know: bool) -> None:
        """The request has failed: the reader gets the error instead of the next chunk.

        stages_know: the router said so, so nothing is left to cancel.
        """
        if self._error is None:
            self._error = error
            self._stages_know = stages_know
        self._changed.set()

    async def __anext__(self) -> AudioChunk:
        while True:
            if self._error is not None:
                raise error_from_info(self._error)
            if self._ended:
                raise StopAsyncIteration
            chunk = self._waiting.pop(self._next, None)
            if chunk is not None:
                self._advance(chunk)
                return chunk
            self._changed.clear()
            await self._changed.wait()

    def consumed(self, segment: int) -> None:
        """The client has taken the first audio of `segment`. Told to the router once per segment."""
        if segment > self._consumed_segment:
            self._consumed_segment = segment
            self._send(SegmentConsumed(key=self.key, segment=segment))

    def close(self, reason: str = "the reader left") -> None:
        """Forget the request; when it has not ended, cancel it in every stage."""
        if self._closed:
            return
        self._closed = True
        self._on_close(self)
        if not self._ended and not self._stages_know:
            self._send(Cancel(key=self.key, reason=reason))

    def _advance(self, chunk: AudioChunk) -> None:
        if not chunk.last:
            self._next = (chunk.segment, chunk.index + 1)
        elif chunk.last_segment:
            self._ended = True
        else:
            self._next = (chunk.segment + 1, 0)
