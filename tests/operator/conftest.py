"""Fixtures of the operator package's tests: manifests as text, and a small real speech server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ttsfleet_operator.local_server import free_ports

PCM_PIECE = b"\x01\x00" * 2400  # 0.1 s at 24 kHz


@dataclass
class FakeSpeechServer:
    """Speaks silence in pieces. `script` says how each request in turn is treated; then "good" for the rest.

    good: `pieces` pieces of pcm; refuse: 429; abort: two pieces, then a broken connection; empty: no body
    """

    port: int
    pieces: int = 5
    script: list[str] = field(default_factory=list)
    bodies: list[dict[str, object]] = field(default_factory=list)
    running: int = 0
    peak: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def wav_header(num_bytes: int) -> bytes:
    size, rate = num_bytes.to_bytes(4, "little"), (24000).to_bytes(4, "little")
    return (
        b"RIFF"
        + (num_bytes + 36).to_bytes(4, "little")
        + b"WAVEfmt "
        + (16).to_bytes(4, "little")
        + b"\x01\x00\x01\x00"
        + rate
        + (48000).to_bytes(4, "little")
        + b"\x02\x00\x10\x00data"
        + size
    )


def _app(server: FakeSpeechServer) -> FastAPI:
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": []}

    @app.post("/v1/audio/speech")
    async def speech(request: Request) -> Response:
        body = await request.json()
        server.bodies.append(body)
        treatment = server.script.pop(0) if server.script else "good"
        if treatment == "refuse":
            return JSONResponse({"error": {"message": "the queues are full", "code": "overloaded"}}, status_code=429)
        if treatment == "empty":
            return Response(b"", media_type="audio/pcm")
        if body["response_format"] == "wav":
            pcm = PCM_PIECE * server.pieces
            return Response(wav_header(len(pcm)) + pcm, media_type="audio/wav")

        async def audio() -> AsyncIterator[bytes]:
            server.running += 1
            server.peak = max(server.peak, server.running)
            try:
                for index in range(server.pieces):
                    if treatment == "abort" and index == 2:
                        raise ConnectionAbortedError
                    yield PCM_PIECE
                    await asyncio.sleep(0)
            finally:
                server.running -= 1

        return StreamingResponse(audio(), media_type="audio/pcm; rate=24000")

    return app


@contextlib.contextmanager
def serve(app: object, port: int) -> Iterator[None]:
    """uvicorn in a thread, ready inside the block and gone after it."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off", ws="none")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    started = threading.Event()
    original = server.startup

    async def startup(*args: object, **kwargs: object) -> None:
        await original(*args, **kwargs)  # type: ignore[arg-type]
        started.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(20)
        yield
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def speech_server() -> Iterator[FakeSpeechServer]:
    server = FakeSpeechServer(port=free_ports(1)[0])
    with serve(_app(server), server.port):
        yield server


MINIMAL = """\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {name: narrator}
spec:
  model: {source: {huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B}}}
  hardware:
    classes:
    - name: ada
      gpu: {products: [NVIDIA-GeForce-RTX-4090]}
"""


@pytest.fixture
def minimal_manifest() -> str:
    return MINIMAL
