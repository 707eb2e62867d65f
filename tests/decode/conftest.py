"""A decode stage on a bench: the small random model, the goldens' noise, a clock that the test sets, a voice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.decode.budgets import decode_limits
from ttsfleet_runtime.decode.speaker import SpeakerTensors
from ttsfleet_runtime.decode.stage import DecodeStage
from ttsfleet_runtime.decode.synthesizer import Synthesizer
from ttsfleet_runtime.messages import AudioChunk, DecodeJob, SegmentDecoded, StageTimes, TokenDelta
from ttsfleet_runtime.voices import VoiceEntry, VoiceFiles, write_voice

HARMONICS = 9
VOCABULARY = 6561


@dataclass
class Bench:
    """A stage, its clock, and what it has said."""

    stage: DecodeStage
    synthesizer: FaultySynthesizer
    run_dir: Path
    clock: list[float]
    chunks: list[AudioChunk] = field(default_factory=list)
    reports: list[SegmentDecoded] = field(default_factory=list)
    said: list[tuple[str, AudioChunk | SegmentDecoded]] = field(default_factory=list)

    @property
    def held(self) -> int:
        """The number of things that the stage keeps for requests."""
        segments = self.stage._segments
        return len(segments) + segments.num_requests_remembered + len(self.stage._outbox)

    def open(self, key: str = "r", segment: int = 0, **changes: Any) -> None:
        values: dict[str, Any] = {
            "key": key,
            "segment": segment,
            "last_segment": True,
            "reply_to": "http-0",
            "voice_hash": "voice",
            "use_prompt": True,
            "stream": True,
            "seed": 7,
            "num_text_tokens": 5,
            "times": StageTimes(received=1.0),
        }
        self.stage.submit(DecodeJob(**{**values, **changes}))

    def tokens(self, tokens: list[int], key: str = "r", segment: int = 0, *, finished: bool = True) -> None:
        self.stage.submit(TokenDelta(key=key, segment=segment, tokens=tokens, finished=finished))

    def random_tokens(
        self, count: int, key: str = "r", segment: int = 0, *, seed: int = 0, finished: bool = True
    ) -> None:
        tokens = [int(token) for token in np.random.default_rng(seed).integers(0, VOCABULARY, count)]
        self.tokens(tokens, key, segment, finished=finished)

    def step(self) -> bool:
        worked = self.stage.step()
        self.clock[0] += 0.01
        self.collect()
        return worked

    def collect(self) -> None:
        for outgoing in self.stage.poll():
            assert isinstance(outgoing.message, AudioChunk | SegmentDecoded)
            self.said.append((outgoing.to, outgoing.message))
            if isinstance(outgoing.message, AudioChunk):
                self.chunks.append(outgoing.message)
            else:
                self.reports.append(outgoing.message)

    def run(self) -> None:
        for _ in range(10_000):
            if not self.step():
                self.collect()
                return
        pytest.fail("the stage never came to rest")

    def waveforms(self) -> dict[str, np.ndarray]:
        """What each request has said so far: key → [samples], float64 in [-1, 1]."""
        pcm: dict[str, bytes] = {}
        for chunk in self.chunks:
            pcm[chunk.key] = pcm.get(chunk.key, b"") + chunk.pcm
        return {key: np.frombuffer(said, "<i2").astype(np.float64) / 32767.0 for key, said in pcm.items()}


class FaultySynthesizer(Synthesizer):
    """A synthesizer whose named operations fail for the segments of some requests, alone or in company."""

    faulty: frozenset[tuple[str, str]] = frozenset()
    only_together: bool = False

    def _check(self, operation: str, keys: list[str]) -> None:
        if self.only_together and len(keys) > 1:
            raise RuntimeError("too much at once")
        if any((operation, key) in self.faulty for key in keys):
            raise RuntimeError(f"{operation} went wrong")

    def begin(self, segment: Any) -> None:
        self._check("begin", [segment.job.key])
        super().begin(segment)

    def advance(self, segments: Any, goals: Any) -> None:
        super().advance(segments, goals)
        self._check("advance", [segment.job.key for segment in segments])

    def vocode(self, segments: Any) -> Any:
        self._check("vocode", [segment.job.key for segment in segments])
        return super().vocode(segments)


def golden_noise(_seed: int, _segment: int, _first: int, num_samples: int) -> torch.Tensor:
    """The goldens' noise: a Weyl sequence with unit variance that restarts with every vocoder call."""
    index = np.arange(num_samples * HARMONICS, dtype=np.uint64)
    uniform = ((index * np.uint64(2654435761)) % np.uint64(2**32)).astype(np.float64) / 2**32
    return torch.from_numpy(((uniform - 0.5) * np.sqrt(12.0)).astype(np.float32).reshape(num_samples, HARMONICS))


def write_some_voice(run_dir: Path) -> None:
    random = np.random.default_rng(5)
    entry = VoiceEntry(
        speech_tokens=random.integers(0, VOCABULARY, 10).astype(np.int32),
        mel=random.normal(-5.0, 1.0, (20, 80)).astype(np.float32),
        speaker_embedding=random.normal(size=192).astype(np.float32),
    )
    write_voice(run_dir, "voice", entry)


@pytest.fixture
def make_bench(random_v2_bundle: Path, tmp_path: Path) -> Callable[..., Bench]:
    """Set up a bench with other parameters of the plan: `make_bench(final_chunk=…)`."""

    def make(**parameters: Any) -> Bench:
        plan = EnginePlan(model_dir="random", **parameters)
        device = torch.device(plan.device)
        loaded = Synthesizer.load(random_v2_bundle, read_model_info(random_v2_bundle), device)
        synthesizer = FaultySynthesizer(loaded.flow, loaded.hift, sample_rate=loaded.sample_rate, noise=golden_noise)
        clock = [100.0]
        voices = VoiceFiles(
            tmp_path, lambda entry: SpeakerTensors.of(entry, device), capacity=4, num_codes=synthesizer.vocab_size
        )
        stage = DecodeStage(
            synthesizer, voices, decode_limits(plan), final_chunk=plan.final_chunk, clock=lambda: clock[0]
        )
        write_some_voice(tmp_path)
        return Bench(stage, synthesizer, tmp_path, clock)

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
