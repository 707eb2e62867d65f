"""The real app under the real listener on loopback, with a small real router at the other end of the sockets.

`fake_router` speaks the protocol: it answers calls, and speaks a sine for each request unless a test has put another
behaviour for the request's text into `behaviours`. Tests may also act through it at any time (`do`).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import zmq
from msgspec import structs

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.errors import ErrorInfo
from ttsfleet_runtime.messages import (
    AudioChunk,
    DeleteVoice,
    GetMetrics,
    GetStatus,
    Hello,
    ListVoices,
    RegisterVoice,
    Reply,
    RequestFailed,
    SegmentConsumed,
    SpeechRequest,
    StageTimes,
    VoiceInfo,
    decode_messages,
    encode_messages,
)
from ttsfleet_runtime.server.access import WorkerLoad
from ttsfleet_runtime.server.app import create_app
from ttsfleet_runtime.server.fetch import resolve
from ttsfleet_runtime.server.listener import Listener, listener_config
from ttsfleet_runtime.server.router_client import RouterClient
from ttsfleet_runtime.transport import data_endpoint, router_endpoint

RATE = 24000
CHUNK_SECONDS = 0.2
DEADLINE_SECONDS = 10.0


class FakeRouter:
    """A router in a thread of its own."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.received: list[Any] = []
        self.behaviours: dict[str, Callable[[FakeRouter, SpeechRequest], None]] = {}
        self.voices: dict[str, VoiceInfo] = {
            "heart": VoiceInfo(name="heart", kind="builtin", has_prompt=True),
            "bella": VoiceInfo(name="bella", kind="builtin", has_prompt=True),
        }
        self.status: dict[str, Any] = {"ready": True, "plan": {"device": "cpu"}, "processes": {}}
        self.silent = False
        self._changed = threading.Condition()
        self._actions: deque[Callable[[], None]] = deque()
        self._on_consumed: dict[str, Callable[[], None]] = {}
        self._stop = False
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(router_endpoint(run_dir))
        self._peers: dict[str, zmq.Socket[bytes]] = {}
        self._thread = threading.Thread(target=self._run, name="fake-router")
        self._thread.start()

    # --- for tests ---

    def wait_for(self, kind: type, count: int = 1, key: str | None = None) -> Any:
        """The `count`-th message of a kind, waiting for it with a deadline."""

        def found() -> list[Any]:
            return [
                m for m in self.received if isinstance(m, kind) and (key is None or getattr(m, "key", None) == key)
            ]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, DEADLINE_SECONDS), (kind, self.received)
            return found()[count - 1]

    def count(self, kind: type) -> int:
        with self._changed:
            return sum(isinstance(m, kind) for m in self.received)

    def do(self, action: Callable[[], None]) -> None:
        """Run `action` on the router's thread, which owns the sockets."""
        self._actions.append(action)

    def chunk(self, request: SpeechRequest, segment: int, index: int, *, num_segments: int, num_chunks: int) -> None:
        """Send one chunk; to be called on the router's thread."""
        count = int(CHUNK_SECONDS * RATE)
        start = (segment * num_chunks + index) * count
        pcm = (8000 * np.sin(2 * np.pi * 330 * (start + np.arange(count)) / RATE)).astype("<i2").tobytes()
        last = index == num_chunks - 1
        now = time.monotonic()
        times = StageTimes(
            received=request.received,
            encoded=request.received + 0.001,
            llm_admitted=request.received + 0.003,
            llm_first_token=request.received + 0.004,
            llm_finished=now if last else 0.0,
            decode_started=now,
            decoded=now,
        )
        message = AudioChunk(
            key=request.key,
            segment=segment,
            index=index,
            pcm=pcm,
            sample_rate=RATE,
            tokens=[segment * 100 + index] * 5,
            last=last,
            last_segment=segment == num_segments - 1,
            num_text_tokens=7,
            times=times,
        )
        self._peer(request.reply_to).send(encode_messages([message]))

    def speak(self, request: SpeechRequest, num_segments: int = 2, num_chunks: int = 3) -> None:
        """All chunks of a request, at once."""
        for segment in range(num_segments):
            for index in range(num_chunks):
                self.chunk(request, segment, index, num_segments=num_segments, num_chunks=num_chunks)

    def fail(self, request: SpeechRequest, error: ErrorInfo) -> None:
        self.send(request.reply_to, RequestFailed(key=request.key, error=error))

    def fail_after_first_chunk(self, request: SpeechRequest, error: ErrorInfo) -> None:
        """One chunk; when the client has taken it, the failure. For tests to put into `behaviours`."""
        self.chunk(request, 0, 0, num_segments=1, num_chunks=2)
        self._on_consumed[request.key] = lambda: self.fail(request, error)

    def send(self, identity: str, message: Any) -> None:
        self._socket.send_multipart([identity.encode(), encode_messages([message])])

    def close(self) -> None:
        """Stop, and close every socket: to its peers the router is gone."""
        self._stop = True
        self._thread.join(DEADLINE_SECONDS)
        for each in (self._socket, *self._peers.values()):
            each.close(linger=0)
        self._context.term()

    # --- inside ---

    def _peer(self, identity: str) -> Any:
        if identity not in self._peers:
            self._peers[identity] = self._context.socket(zmq.PUSH)
            self._peers[identity].connect(data_endpoint(self.run_dir, identity))
        return self._peers[identity]

    def _run(self) -> None:
        while not self._stop:
            while self._actions:
                self._actions.popleft()()
            if not self._socket.poll(5):
                continue
            identity, frame = self._socket.recv_multipart()
            for message in decode_messages(frame):
                self._handle(identity.decode(), message)
                with self._changed:
                    self.received.append(message)
                    self._changed.notify_all()

    def _handle(self, identity: str, message: Any) -> None:
        if self.silent:
            return
        match message:
            case SpeechRequest():
                self.behaviours.get(message.text, FakeRouter.speak)(self, message)
            case SegmentConsumed(key=key):
                self._on_consumed.pop(key, lambda: None)()
            case ListVoices(call=call):
                self.send(identity, Reply(call=call, voices=list(self.voices.values())))
            case RegisterVoice(call=call, name=name) if name in self.voices:
                error = ErrorInfo(code="invalid_request", message=f"{name} exists", status=400, param="name")
                self.send(identity, Reply(call=call, error=error))
            case RegisterVoice(call=call, name=name, transcript=transcript):
                info = VoiceInfo(name=name, kind="registered", has_prompt=True, created=1.7e9, transcript=transcript)
                self.voices[name] = info
                self.send(identity, Reply(call=call, voices=[info]))
            case DeleteVoice(call=call, name=name):
                error_or_none = None
                if self.voices.pop(name, None) is None:
                    error_or_none = ErrorInfo(code="not_found", message=f"no voice {name}", status=404)
                self.send(identity, Reply(call=call, error=error_or_none))
            case GetMetrics(call=call):
                self.send(identity, Reply(call=call, text="ttsfleet_ready 1.0\n"))
            case GetStatus(call=call):
                self.send(identity, Reply(call=call, text=json.dumps(self.status)))
            case Hello():
                self.status["processes"][identity] = {"ready": True}
            case _:
                pass


class Server:
    """The app, its client and its listener in a thread with an event loop."""

    def __init__(
        self, router: FakeRouter, plan: EnginePlan, model: ModelInfo, api_key: Callable[[], str] | None, resolver: Any
    ) -> None:
        self.router = router
        self.plan = plan
        self.load = WorkerLoad()
        self._ready = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(model, api_key, resolver)), name="server"
        )
        self._thread.start()
        assert self._ready.wait(DEADLINE_SECONDS)

    async def _serve(self, model: ModelInfo, api_key: Callable[[], str] | None, resolver: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self.client = RouterClient("http-0", self.router.run_dir)
        await self.client.start()
        app = create_app(self.client, self.plan, model, api_key, self.load, resolver)
        self._listener = Listener(
            listener_config(app, self.plan.server),
            self.plan.server,
            on_ready=self._ready.set,
            fail_running=lambda: None,
        )
        await self._listener.serve([self._socket])
        await self.client.close()

    def openai(self, **options: Any) -> openai.OpenAI:
        """A client that never retries, so each answer is seen."""
        return openai.OpenAI(base_url=f"{self.url}/v1", **{"api_key": "none", "max_retries": 0, **options})

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, **{"timeout": DEADLINE_SECONDS, **options})

    def speak(self, text: str = "Hello.", **fields: Any) -> httpx.Response:
        with self.http() as client:
            return client.post("/v1/audio/speech", json={"input": text, "voice": "heart", **fields})

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(lambda: self._listener.stop(retiring=False))
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A short path: the names of Unix sockets are limited to 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="ttsf"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def fake_router(run_dir: Path) -> Iterator[FakeRouter]:
    router = FakeRouter(run_dir)
    yield router
    router.close()


@pytest.fixture
def model(model: ModelInfo) -> ModelInfo:
    """The model with two styles and two voices, one of them with a prompt."""
    return structs.replace(
        model, name="tiny", styles=["cosyvoice", "news"], voices=["heart", "bella"], voices_with_prompt=["heart"]
    )


@pytest.fixture
def start_server(fake_router: FakeRouter, model: ModelInfo) -> Iterator[Callable[..., Server]]:
    """Start a server with other settings: `start_server(api_key=…, server={…}, limits={…})`."""
    servers: list[Server] = []

    def start(
        *,
        api_key: str | Callable[[], str] | None = None,
        resolver: Any = resolve,
        model: ModelInfo = model,
        **sections: Any,
    ) -> Server:
        plan = EnginePlan.model_validate({"model_dir": "/nowhere", **sections})
        key = (lambda: api_key) if isinstance(api_key, str) else api_key
        servers.append(Server(fake_router, plan, model, key, resolver))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server()
