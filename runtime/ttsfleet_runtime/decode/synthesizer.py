"""The decode stage's arithmetic on segments: flow calls begun and advanced, vocoder passes run. No queue here.

Batches that come in are run as they are; which segments belong together is the scheduler's matter. Every method can
be repeated after an exception, for the same segments or fewer: state changes only when a result is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.decode.flow import FlowModel
from ttsfleet_runtime.decode.hift import HiFT
from ttsfleet_runtime.decode.noise import vocoder_noise
from ttsfleet_runtime.decode.scheduler import SegmentKey
from ttsfleet_runtime.decode.segment import Segment
from ttsfleet_runtime.decode.vocoder_stream import StreamVocoder, VocoderInput, resample_mel
from ttsfleet_runtime.decode.vocoder_work import ChunkWork, FileWork
from ttsfleet_runtime.errors import CheckpointError

SegmentNoise = Callable[[int, int, int, int], Tensor]
"""(seed, segment, first sample, number of samples) -> N(0, 1), float32 [samples, harmonics]."""

VocoderResult = tuple[VocoderInput, Tensor, Tensor]
"""A pass, its waveform and its source: both float32 [samples]."""


class Synthesizer:
    """Flow and vocoder on one device."""

    def __init__(self, flow: FlowModel, hift: HiFT, *, sample_rate: int, noise: SegmentNoise) -> None:
        self.flow = flow
        self.hift = hift
        self.sample_rate = sample_rate
        self._noise = noise
        self._in_flight: torch.cuda.Event | None = None

    @classmethod
    def load(cls, bundle_dir: Path, model: ModelInfo, device: torch.device) -> Synthesizer:
        """Raises CheckpointError when a file of the bundle is missing or damaged."""
        noise = partial(vocoder_noise, harmonics=model.hift.nb_harmonics + 1, device=device)
        return cls(
            FlowModel.load(bundle_dir, model.flow, device),
            HiFT.load(bundle_dir, model.hift, device),
            sample_rate=model.sample_rate,
            noise=noise,
        )

    @property
    def num_steps(self) -> int:
        """Euler steps of a flow call."""
        return self.flow.info.num_steps

    @property
    def frames_per_token(self) -> int:
        return self.flow.info.token_mel_ratio

    @property
    def lookahead_tokens(self) -> int:
        return self.flow.info.pre_lookahead_len

    @property
    def vocab_size(self) -> int:
        """Speech tokens are below this."""
        return self.flow.info.vocab_size

    def new_vocoder(self) -> StreamVocoder:
        return StreamVocoder(self.hift)

    def memory_bytes(self) -> int | None:
        """Device memory that this process holds, or None on the CPU."""
        if self.flow.device.type != "cuda":
            return None
        return torch.cuda.memory_reserved(self.flow.device)

    def begin(self, segment: Segment) -> None:
        """Encode the tokens of the segment's current call."""
        call, speaker = segment.call, segment.speaker
        assert call is not None
        segment.flow = self.flow.begin(
            torch.tensor(segment.call_tokens(), dtype=torch.int64),
            speaker.prompt_tokens,
            speaker.prompt_mel,
            speaker.embedding,
            streaming=call.streaming,
            finalize=call.finalize,
        )

    def advance(self, segments: Sequence[Segment], goals: Mapping[SegmentKey, int]) -> None:
        """Take Euler steps until each segment's job has done as many as its goal says."""
        for missing in sorted({goals[segment.key] - segment.steps_done for segment in segments} - {0}):
            group = [segment.flow for segment in segments if goals[segment.key] - segment.steps_done == missing]
            self.flow.advance([job for job in group if job is not None], missing)
        self._pace()

    def _pace(self) -> None:
        """On CUDA, wait until the steps launched by the call before this one are done.

        Kernels run in the order of their launch: what the scheduler decides next waits for all that is queued, so no
        more than one decision may be in the queue behind the one that runs.
        """
        if self.flow.device.type != "cuda":
            return
        before, self._in_flight = self._in_flight, torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        self._in_flight.record()
        if before is not None:
            before.synchronize()

    def take_mel(self, segment: Segment) -> None:
        """Turn a solved flow call into vocoder work; the job's state is freed."""
        call, job = segment.call, segment.flow
        assert call is not None
        assert job is not None
        assert job.done
        mel = job.mel[call.token_offset * self.frames_per_token :].to(torch.float32).clone()
        noise = partial(self._noise, segment.job.seed, segment.job.segment)
        if segment.job.stream:
            segment.vocoding = ChunkWork(segment.vocoder, mel, noise, final=call.finalize)
        else:
            segment.vocoding = FileWork(self.hift, resample_mel(mel, segment.job.speed), noise)
        segment.flow = None

    def vocode(self, segments: Sequence[Segment]) -> dict[SegmentKey, VocoderResult]:
        """Run the next pass of each segment, together; the segments do not change (see `VocoderWork.accept`)."""
        calls = [segment.vocoding.prepare() for segment in segments if segment.vocoding is not None]
        results = self.hift.vocode(
            [call.mel for call in calls], [call.noise for call in calls], [call.cache_source for call in calls]
        )
        return {
            segment.key: (call, waveform, source)
            for segment, call, (waveform, source) in zip(segments, calls, results, strict=True)
        }

    @torch.inference_mode()
    def self_test(self) -> None:
        """Speak a few tokens in both ways, which also warms kernels and allocator. Raises CheckpointError."""
        tokens = torch.arange(40, dtype=torch.int64) % self.vocab_size
        nothing, no_mel = tokens[:0], torch.zeros(0, self.flow.info.mel_bins)
        embedding = torch.linspace(-1.0, 1.0, self.flow.info.spk_embed_dim)
        jobs = [
            self.flow.begin(tokens, nothing, no_mel, embedding, streaming=streaming, finalize=not streaming)
            for streaming in (True, False)
        ]
        self.flow.advance(jobs, self.num_steps)
        calls = [self.new_vocoder().prepare(job.mel, partial(self._noise, 0, 0)) for job in jobs]
        waves = self.hift.vocode([c.mel for c in calls], [c.noise for c in calls], [c.cache_source for c in calls])
        for what, tensor in [("mel", jobs[0].mel), ("mel", jobs[1].mel), *(("audio", wave) for wave, _ in waves)]:
            if tensor.numel() == 0 or not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(
                    f"the self-test gave {what} of shape {list(tensor.shape)} that is empty or not finite: "
                    "the model's weights are damaged"
                )
