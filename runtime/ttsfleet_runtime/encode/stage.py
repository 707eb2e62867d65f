"""The encode stage: texts to token ids, prompt audio to voice entries. No torch.

Texts take a millisecond and are done in `step`, in batches. A voice takes from tens of milliseconds to seconds, so
one at a time is computed in a thread (ONNX Runtime and numpy release the interpreter lock) while texts go on: a text
never waits for a voice. At most `encode_paral_num` tasks are in flight, the running voice included.
"""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Protocol

from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.encode.audio import PromptAudio, load_audio
from ttsfleet_runtime.encode.prompt import VoiceEncoder
from ttsfleet_runtime.encode.text import TextEncoder
from ttsfleet_runtime.errors import TTSFleetError, UnavailableError
from ttsfleet_runtime.messages import (
    AnyMessage,
    Cancel,
    EncodeText,
    EncodeVoice,
    Gauge,
    VoiceEncoded,
)
from ttsfleet_runtime.stage import ROUTER, Outgoing, StageContext
from ttsfleet_runtime.voices import VoiceEntry, write_voice

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 0.005
"""How long a step waits for the running voice when there is nothing else to do: a new text waits no longer."""

_MAX_BATCH_CHARS = 2048
"""A batch ends with the text that passes this, so that short texts do not queue behind several long ones."""


class EncodesVoices(Protocol):
    """What the stage needs of `VoiceEncoder`. Called from one thread at a time, not always the same."""

    def encode(self, audio: PromptAudio) -> VoiceEntry: ...


class EncodeStage:
    """See the module docstring. Owns its queues and the thread; `build` gives it its models."""

    def __init__(self, run_dir: Path, plan: EnginePlan, texts: TextEncoder, voices: EncodesVoices) -> None:
        self._run_dir = run_dir
        self._plan = plan
        self._text_encoder = texts
        self._voice_encoder = voices
        self._texts: deque[EncodeText] = deque()
        self._voices: deque[EncodeVoice] = deque()
        self._outbox: list[Outgoing] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="voice")
        self._running: Future[VoiceEncoded] | None = None
        self._last_batch = 0

    def submit(self, message: AnyMessage) -> None:
        match message:
            case EncodeText():
                self._texts.append(message)
            case EncodeVoice():
                self._voices.append(message)
            case Cancel(key=key):
                self._texts = deque(job for job in self._texts if job.key != key)
            case _:
                logger.debug("%s is nothing for an encoder", type(message).__name__)

    def step(self) -> bool:
        self._collect()
        if self._running is None and self._voices:
            self._running = self._thread.submit(self._encode_voice, self._voices.popleft())
        batch = self._take_batch()
        if batch:
            self._last_batch = len(batch)
            self._outbox += [Outgoing(ROUTER, answer) for answer in self._text_encoder.encode_batch(batch)]
            return True
        if self._running is None:
            return False
        wait_for([self._running], timeout=_PATIENCE_SECONDS)
        self._collect()
        return True

    def poll(self) -> list[Outgoing]:
        outgoing, self._outbox = self._outbox, []
        return outgoing

    def gauges(self) -> list[Gauge]:
        levels = {
            "encode_queue_depth": len(self._texts) + len(self._voices),
            "encode_voices_waiting": len(self._voices),
            "encode_in_flight": int(self._running is not None),
            "encode_batch_size": self._last_batch,
        }
        return [Gauge(name=name, value=value) for name, value in levels.items()]

    def idle(self) -> bool:
        return not (self._texts or self._voices or self._running or self._outbox)

    def _take_batch(self) -> list[EncodeText]:
        free = self._plan.encode_paral_num - int(self._running is not None)
        batch: list[EncodeText] = []
        num_chars = 0
        while self._texts and len(batch) < min(free, self._plan.encode_max_batch_size):
            batch.append(self._texts.popleft())
            num_chars += len(batch[-1].text)
            if num_chars > _MAX_BATCH_CHARS:
                break
        return batch

    def _collect(self) -> None:
        if self._running is not None and self._running.done():
            self._outbox.append(Outgoing(ROUTER, self._running.result()))
            self._running = None

    def _encode_voice(self, job: EncodeVoice) -> VoiceEncoded:
        """In the thread: always an answer, never an exception."""
        try:
            audio = load_audio(job.audio, self._plan.limits)
            entry = self._voice_encoder.encode(audio)
            try:
                write_voice(self._run_dir, job.voice_hash, entry)
            except OSError as error:
                raise UnavailableError(f"the voice entry cannot be stored in {self._run_dir}: {error}") from error
        except TTSFleetError as error:
            return VoiceEncoded(voice_hash=job.voice_hash, error=error.info())
        except Exception:  # whatever the runtime's C++ raises: this voice fails, the process lives on
            logger.exception("encoding the voice %s failed", job.voice_hash)
            internal = TTSFleetError("the prompt audio could not be encoded: an internal error, see the log")
            return VoiceEncoded(voice_hash=job.voice_hash, error=internal.info())
        return VoiceEncoded(
            voice_hash=job.voice_hash, num_tokens=len(entry.speech_tokens), prompt_seconds=audio.seconds
        )


def build(context: StageContext) -> EncodeStage:
    """Load tokenizer, normaliser and ONNX sessions; raises CheckpointError when the model lacks one."""
    return EncodeStage(
        context.run_dir,
        context.plan,
        TextEncoder.for_model(context.model, context.plan.limits),
        VoiceEncoder(context.model, context.plan.threads.encode),
    )
