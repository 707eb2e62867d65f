"""Readiness from real speech: before a pod is ready, the router speaks one sentence through all its stages."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import zmq
import zmq.asyncio

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.messages import AnyMessage, AudioChunk, Mode, RequestFailed, SpeechRequest, decode_messages
from ttsfleet_runtime.router.voice import Voice
from ttsfleet_runtime.transport import data_endpoint

logger = logging.getLogger(__name__)

_SENTENCE = "This is a test."
_ATTEMPT_SECONDS = 120.0
_RETRY_SECONDS = 2.0


class SelfTest:
    """Speaks until it once succeeded. A model without any voice has only its stages' own self-tests."""

    identity = "self-test"

    def __init__(self, run_dir: Path, model: ModelInfo, voices: Mapping[str, Voice]) -> None:
        self._run_dir = run_dir
        self._model = model
        self._voices = voices
        self.passed = False
        self.problem = "the self-test has not spoken yet"
        self._failure: asyncio.Queue[str] = asyncio.Queue()
        self._attempt = 0

    def open(self, context: zmq.asyncio.Context) -> None:
        self._socket = context.socket(zmq.PULL)
        self._socket.bind(data_endpoint(self._run_dir, self.identity))

    def close(self) -> None:
        self._socket.close(linger=0)

    def failed(self, failures: Sequence[RequestFailed]) -> None:
        """The pipeline answered the self-test with an error."""
        for failure in failures:
            self._failure.put_nowait(failure.error.message)

    async def run(self, send: Callable[[AnyMessage], None], servable: asyncio.Event) -> None:
        """Wait for the stages, then speak; again after a pause as long as it fails."""
        await servable.wait()
        while not self.passed:
            if not self._voices:
                self.passed = True
                return
            started = time.monotonic()
            problem = await self._speak(send)
            if problem is None:
                self.passed = True
                logger.info("self-test spoke in %.2f s; ready", time.monotonic() - started)
                return
            self.problem = f"the self-test failed: {problem}"
            logger.error("%s", self.problem)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _speak(self, send: Callable[[AnyMessage], None]) -> str | None:
        """One attempt; None = audio came, else what went wrong."""
        key = f"self-test-{self._attempt}"
        now = time.monotonic()
        voices = list(self._voices)
        send(
            SpeechRequest(
                key=key,
                reply_to=self.identity,
                text=_SENTENCE,
                voice=voices[self._attempt % len(voices)],  # one that cannot be read does not stop the pod
                mode=Mode.SFT,
                received=now,
                deadline=now + _ATTEMPT_SECONDS,
            )
        )
        self._attempt += 1
        audio = asyncio.create_task(self._wait_for_audio(key))
        failure = asyncio.create_task(self._failure.get())
        done, pending = await asyncio.wait(
            {audio, failure}, timeout=_ATTEMPT_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if failure in done:
            return failure.result()
        if audio in done:
            return None if audio.result() > 0 else "the audio was empty"
        return f"no audio within {_ATTEMPT_SECONDS:.0f} s"

    async def _wait_for_audio(self, key: str) -> int:
        """Bytes of the self-test's audio, once its last chunk came."""
        num_bytes = 0
        while True:
            for message in decode_messages(await self._socket.recv()):
                if isinstance(message, AudioChunk) and message.key == key:
                    num_bytes += len(message.pcm)
                    if message.last and message.last_segment:
                        return num_bytes
