"""The HTTP process's line to the router and the decoders: requests out, audio and answers in.

One DEALER to the router, one PULL that decoders push PCM to. All calls are made on the event loop. When the router
goes away, everything that waits for it fails at once with UnavailableError, and so does everything new until it is
back; nothing here retries, since the client knows better whether the request still matters.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from pathlib import Path
from typing import Any

import msgspec
import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from ttsfleet_runtime.errors import ErrorInfo, OverloadedError, UnavailableError
from ttsfleet_runtime.messages import (
    AnyMessage,
    AudioChunk,
    DeleteVoice,
    GetMetrics,
    GetStatus,
    ListVoices,
    RegisterVoice,
    Reply,
    RequestFailed,
    RequestReport,
    Shutdown,
    SpeechRequest,
    decode_messages,
    encode_messages,
)
from ttsfleet_runtime.server.errors import error_from_info
from ttsfleet_runtime.server.speech_stream import SpeechStream
from ttsfleet_runtime.transport import data_endpoint, router_endpoint

logger = logging.getLogger(__name__)

Call = RegisterVoice | DeleteVoice | ListVoices | GetMetrics | GetStatus

CALL_SECONDS = 10.0
_LINGER_MS = 1000
_ROUTER_GONE = UnavailableError(
    "the router process is gone; the server is restarting, try again", retry_after_seconds=2.0
).info()


class RouterClient:
    """Open with `start`, close with `close`. `shutdown_asked` is set when the router wants this process to end."""

    def __init__(self, identity: str, run_dir: Path) -> None:
        self.identity = identity
        self.shutdown_asked = asyncio.Event()
        self._run_dir = run_dir
        self._connected = False
        self._streams: dict[str, SpeechStream] = {}
        self._calls: dict[str, asyncio.Future[Reply]] = {}
        self._call_numbers = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def num_streams(self) -> int:
        """Requests whose audio has not ended."""
        return len(self._streams)

    async def start(self) -> None:
        """Bind, connect and listen. Must run on the loop that will use the client."""
        self._context = zmq.asyncio.Context()
        self._data = self._context.socket(zmq.PULL)
        self._data.set_hwm(0)
        self._data.bind(data_endpoint(self._run_dir, self.identity))
        self._router = self._context.socket(zmq.DEALER)
        self._router.setsockopt(zmq.IDENTITY, self.identity.encode())
        self._router.setsockopt(zmq.LINGER, _LINGER_MS)
        self._router.set_hwm(0)
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._router.connect(router_endpoint(self._run_dir))
        # Until the first handshake, messages queue in the socket: that is a start, not a loss.
        self._connected = True
        for loop in (self._watch_connection, self._receive_answers, self._receive_audio):
            self._tasks.append(asyncio.create_task(loop(), name=loop.__name__))

    async def close(self) -> None:
        """Stop listening; what was sent still leaves, for at most a second."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.fail_all(_ROUTER_GONE)
        self._router.disable_monitor()
        self._monitor.close(linger=0)
        self._data.close(linger=0)
        self._router.close()
        self._context.term()

    def submit(self, request: SpeechRequest) -> SpeechStream:
        """Send a request; its audio comes out of the returned stream. Raises UnavailableError without a router."""
        stream = SpeechStream(request.key, self.send_if_connected, self._forget)
        self.send(request)
        self._streams[request.key] = stream
        return stream

    async def call(self, make: type[Call], timeout_seconds: float = CALL_SECONDS, **fields: Any) -> Reply:
        """Ask the router and wait for its answer. Raises the answer's error, UnavailableError without an answer."""
        call = str(next(self._call_numbers))
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._calls[call] = answer
        try:
            self.send(make(call=call, **fields))
            async with asyncio.timeout(timeout_seconds):
                reply = await answer
        except TimeoutError as error:
            raise UnavailableError(
                f"the router did not answer within {timeout_seconds:g} s; try again", retry_after_seconds=2.0
            ) from error
        finally:
            self._calls.pop(call, None)
        if reply.error is not None:
            raise error_from_info(reply.error)
        return reply

    def report(self, report: RequestReport) -> None:
        """Tell the metrics registry of an ended request; lost when the router is."""
        self.send_if_connected(report)

    def send(self, message: AnyMessage) -> None:
        """Queue a message to the router. Raises UnavailableError when it is gone, OverloadedError when it is full."""
        if not self._connected:
            raise error_from_info(_ROUTER_GONE)
        sent = self._router.send(encode_messages([message]), zmq.NOBLOCK)
        # With NOBLOCK the future is done on return; zmq.Again would mean a full queue.
        assert isinstance(sent, asyncio.Future)
        if sent.done() and isinstance(sent.exception(), zmq.Again):
            raise OverloadedError("the router takes no more messages; try again", retry_after_seconds=1.0)

    def send_if_connected(self, message: AnyMessage) -> None:
        """For messages that lose their meaning with the router: cancel, consumed, report."""
        if self._connected:
            self.send(message)

    def fail_all(self, error: ErrorInfo) -> None:
        """Fail every stream and call that waits."""
        for stream in list(self._streams.values()):
            stream.fail(error, stages_know=False)
        for call, answer in list(self._calls.items()):
            if not answer.done():
                answer.set_result(Reply(call=call, error=error))

    def _forget(self, stream: SpeechStream) -> None:
        self._streams.pop(stream.key, None)

    async def _watch_connection(self) -> None:
        while True:
            event = parse_monitor_message(await self._monitor.recv_multipart())["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
            elif event == zmq.EVENT_DISCONNECTED:
                logger.error("the router closed the connection: %d requests fail", len(self._streams))
                self._connected = False
                self.fail_all(_ROUTER_GONE)

    async def _receive_answers(self) -> None:
        while True:
            for message in _decoded(await self._router.recv()):
                self._dispatch(message)

    async def _receive_audio(self) -> None:
        while True:
            for message in _decoded(await self._data.recv()):
                self._dispatch(message)

    def _dispatch(self, message: AnyMessage) -> None:
        """A message to whom it concerns; audio and errors of requests that have left are dropped."""
        match message:
            case AudioChunk(key=key):
                if (stream := self._streams.get(key)) is not None:
                    stream.offer(message)
            case RequestFailed(key=key, error=error):
                if (stream := self._streams.get(key)) is not None:
                    stream.fail(error, stages_know=True)
            case Reply(call=call):
                if (answer := self._calls.get(call)) is not None and not answer.done():
                    answer.set_result(message)
            case Shutdown():
                self.shutdown_asked.set()
            case _:
                logger.error("a message that this process does not take was dropped: %r", message)


def _decoded(frame: bytes) -> list[AnyMessage]:
    try:
        return decode_messages(frame)
    except msgspec.DecodeError:
        logger.exception("a frame that is no message batch was dropped (%d bytes)", len(frame))
        return []
