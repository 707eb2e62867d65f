"""The decode stage: speech tokens in, PCM out. Called by its host; owns the queue of segments, not the maths.

A segment's way: `DecodeJob` opens it, `TokenDelta`s fill it, its plan (`stream`) says when a flow call is due, the
scheduler says when that call gets Euler steps and the vocoder, and `_speak` sends what came out. One `step` is one
decision of the scheduler, so what arrives between two steps is ranked with everything else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import torch

from ttsfleet_runtime.decode.budgets import decode_limits
from ttsfleet_runtime.decode.live_segments import LiveSegments
from ttsfleet_runtime.decode.pcm import to_pcm
from ttsfleet_runtime.decode.scheduler import Candidate, Limits, Phase, SegmentKey, choose
from ttsfleet_runtime.decode.segment import Segment
from ttsfleet_runtime.decode.speaker import SpeakerTensors
from ttsfleet_runtime.decode.stream import FinalChunk, plan_chunks
from ttsfleet_runtime.decode.synthesizer import Synthesizer, VocoderResult
from ttsfleet_runtime.errors import DeadlineError, ErrorInfo, InvalidRequestError, TTSFleetError
from ttsfleet_runtime.messages import (
    AnyMessage,
    Cancel,
    DecodeJob,
    DropVoices,
    Gauge,
    SegmentDecoded,
    TokenDelta,
)
from ttsfleet_runtime.stage import ROUTER, Outgoing, Stage, StageContext
from ttsfleet_runtime.voices import VoiceFiles

logger = logging.getLogger(__name__)


class DecodeStage:
    """See the module docstring. `clock` gives CLOCK_MONOTONIC seconds, as all message times are."""

    def __init__(
        self,
        synthesizer: Synthesizer,
        voices: VoiceFiles[SpeakerTensors],
        limits: Limits,
        *,
        final_chunk: FinalChunk = "reference",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._synthesizer = synthesizer
        self._voices = voices
        self._limits = limits
        self._final_chunk = final_chunk
        self._clock = clock
        self._segments = LiveSegments()
        self._outbox: list[Outgoing] = []
        self._last_batch = 0
        self._last_frames = 0

    # --- Stage ----------------------------------------------------------------------------------------------

    def submit(self, message: AnyMessage) -> None:
        match message:
            case DecodeJob():
                self._open(message)
            case TokenDelta():
                self._take_tokens(message)
            case Cancel(key=key):
                self._segments.cancel(key)
            case DropVoices(voice_hashes=voice_hashes):
                self._voices.drop(voice_hashes)
            case _:
                pass  # a process may hold other stages too, and every stage hears what is for one of them

    @torch.inference_mode()
    def step(self) -> bool:
        self._expire()
        candidates = self._candidates()
        decision = choose(list(candidates.values()), self._limits, self._clock())
        if decision is None:
            self._last_batch = self._last_frames = 0
            return False
        self._last_batch = len(decision.keys)
        self._last_frames = sum(candidates[key].frames for key in decision.keys)
        batch = [self._segments[key] for key in decision.keys]
        if decision.phase is Phase.FLOW:
            self._solve(batch, decision.num_steps)
        else:
            self._vocode(batch)
        return True

    def poll(self) -> list[Outgoing]:
        outgoing, self._outbox = self._outbox, []
        return outgoing

    def gauges(self) -> list[Gauge]:
        candidates = self._candidates().values()
        num_started = sum(candidate.started for candidate in candidates)
        levels = {
            "decode_queue_depth": len(candidates) - num_started,
            "decode_active": num_started,
            "decode_waiting_for_tokens": len(self._segments) - len(candidates),
            "decode_batch_size": self._last_batch,
            "decode_batch_frames": self._last_frames,
            "decode_voices": len(self._voices),
        }
        memory_bytes = self._synthesizer.memory_bytes()
        if memory_bytes is not None:
            levels["gpu_memory_bytes"] = memory_bytes
        return [Gauge(name=name, value=value) for name, value in levels.items()]

    def idle(self) -> bool:
        return not self._segments

    # --- messages -------------------------------------------------------------------------------------------

    def _open(self, job: DecodeJob) -> None:
        if not self._segments.expects(job):
            return
        try:
            if job.stream and job.speed != 1.0:
                raise InvalidRequestError(
                    f"speed {job.speed:g} needs the whole segment; with streaming only 1.0 is possible: "
                    "ask for a complete file, or leave speed out",
                    param="speed",
                )
            speaker = self._voices.get(job.voice_hash)
            if not job.use_prompt:
                speaker = speaker.without_prompt()
        except TTSFleetError as error:
            self._report(job, 0.0, error.info())
            return
        plan = plan_chunks(
            speaker.prompt_tokens.shape[0],
            stream=job.stream,
            final_chunk=self._final_chunk,
            lookahead=self._synthesizer.lookahead_tokens,
        )
        segment = Segment(
            job=job,
            speaker=speaker,
            vocoder=self._synthesizer.new_vocoder(),
            plan=plan,
            times=job.times,
            arrival=self._clock(),
        )
        self._segments.add(segment)

    def _take_tokens(self, delta: TokenDelta) -> None:
        segment = self._segments.find((delta.key, delta.segment))
        if segment is None or segment.finished:
            return
        if any(not 0 <= token < self._synthesizer.vocab_size for token in delta.tokens):
            self._fail(segment, ValueError(f"speech tokens beyond {self._synthesizer.vocab_size}: {delta.tokens}"))
            return
        segment.add_tokens(delta.tokens, delta.finished)
        if delta.times is not None:
            segment.times = delta.times
        self._plan(segment)

    def _expire(self) -> None:
        for segment in self._segments.expired(self._clock()):
            error = DeadlineError(
                f"the deadline passed after {segment.num_samples / self._synthesizer.sample_rate:.1f} s of audio of "
                f"segment {segment.job.segment}; send less text, or raise server.timeout"
            )
            self._fail(segment, error)

    # --- work -----------------------------------------------------------------------------------------------

    def _candidates(self) -> dict[SegmentKey, Candidate]:
        candidates: dict[SegmentKey, Candidate] = {}
        for segment in self._segments:
            key = segment.job.key
            candidate = segment.candidate(
                is_first_chunk=segment.job.stream
                and segment.job.segment == 0
                and not self._segments.playback.has_begun(key),
                playback_deadline=self._segments.playback.deadline(key, otherwise=segment.arrival),
                num_steps=self._synthesizer.num_steps,
                frames_per_token=self._synthesizer.frames_per_token,
            )
            if candidate is not None:
                candidates[segment.key] = candidate
        return candidates

    def _plan(self, segment: Segment) -> None:
        """Look whether a call is due; a segment with nothing (more) to say ends here."""
        segment.plan_call(self._clock())
        if segment.call is None and segment.finished:
            self._send(segment, b"", [], last=True)

    def _solve(self, batch: Sequence[Segment], num_steps: int) -> None:
        for segment in batch:
            if segment.flow is None:
                self._isolated([segment], self._begin)
        solvable = [segment for segment in batch if segment.flow is not None]
        goals = {segment.key: segment.steps_done + num_steps for segment in solvable}
        solved = self._isolated(solvable, lambda group: self._synthesizer.advance(group, goals))
        now = self._clock()
        for segment in solved:
            segment.waiting_since = now
            if segment.steps_done == self._synthesizer.num_steps:
                self._synthesizer.take_mel(segment)

    def _begin(self, group: Sequence[Segment]) -> None:
        now = self._clock()
        for segment in group:
            segment.decode_started = segment.decode_started or now
            self._synthesizer.begin(segment)

    def _vocode(self, batch: Sequence[Segment]) -> None:
        results: dict[SegmentKey, VocoderResult] = {}
        passed = self._isolated(batch, lambda group: results.update(self._synthesizer.vocode(group)))
        for segment in passed:
            self._isolated([segment], lambda group: self._speak(group[0], results[group[0].key]))

    def _isolated(self, batch: Sequence[Segment], work: Callable[[Sequence[Segment]], None]) -> list[Segment]:
        """Run `work` on the batch; if that fails, on each segment alone. Those that fail alone are failed.

        Returns the segments that worked. Raises only what no request can have caused: a lost device.
        """
        if not batch:
            return []
        try:
            work(batch)
        except torch.AcceleratorError:
            raise  # the device's context is gone: the process must be replaced
        except Exception as error:  # noqa: BLE001 - one job must not take others down, whatever it hit
            if len(batch) > 1:
                logger.warning("a batch of %d failed (%s); running its jobs singly", len(batch), error)
                return [segment for one in batch for segment in self._isolated([one], work)]
            self._fail(batch[0], error)
            return []
        return list(batch)

    # --- answers --------------------------------------------------------------------------------------------

    def _speak(self, segment: Segment, result: VocoderResult) -> None:
        """Take a vocoder pass; once it is the call's last, send the audio and plan the next call."""
        assert segment.call is not None
        assert segment.vocoding is not None
        wave = segment.vocoding.accept(*result)
        segment.waiting_since = self._clock()
        if wave is None:
            return
        pcm, tokens, last = to_pcm(wave), segment.chunk_tokens(), segment.call.finalize
        segment.complete_call()
        self._send(segment, pcm, tokens, last=last)
        if not last:
            self._plan(segment)

    def _send(self, segment: Segment, pcm: bytes, tokens: list[int], *, last: bool) -> None:
        """Put a chunk into the outbox; the last one closes the segment."""
        now = self._clock()
        job, sample_rate = segment.job, self._synthesizer.sample_rate
        self._outbox.append(Outgoing(job.reply_to, segment.next_chunk(pcm, tokens, sample_rate, now, last=last)))
        if job.stream and pcm:
            self._segments.playback.emitted(job.key, len(pcm) // 2 / sample_rate, now)
        if last:
            self._segments.close(segment)
            self._report(job, segment.num_samples / sample_rate, None)

    def _fail(self, segment: Segment, error: Exception) -> None:
        """End one segment with the reason; its request's other segments go when the router cancels them."""
        job = segment.job
        if isinstance(error, TTSFleetError):
            info = error.info()
        else:
            logger.error("segment %d of request %s failed", job.segment, job.key, exc_info=error)
            info = ErrorInfo(
                code="internal_error", message=f"decoding failed ({type(error).__name__}); the server's log has more"
            )
        self._segments.close(segment)
        self._report(job, segment.num_samples / self._synthesizer.sample_rate, info)

    def _report(self, job: DecodeJob, audio_seconds: float, error: ErrorInfo | None) -> None:
        decoded = SegmentDecoded(
            key=job.key,
            segment=job.segment,
            last_segment=job.last_segment,
            audio_seconds=audio_seconds,
            error=error,
        )
        self._outbox.append(Outgoing(ROUTER, decoded))


def build(context: StageContext) -> Stage:
    """The decode stage of a process, once its models have spoken. Raises CheckpointError for unusable weights."""
    device = torch.device(context.plan.device)
    torch.backends.cudnn.allow_tf32 = False  # f0 in TF32 decorrelates the waveform: the phase integrates it
    synthesizer = Synthesizer.load(context.bundle_dir, context.model, device)
    synthesizer.self_test()
    voices = VoiceFiles(
        context.run_dir,
        lambda entry: SpeakerTensors.of(entry, device),
        capacity=context.plan.cache_capacity,
        num_codes=synthesizer.vocab_size,
    )
    return DecodeStage(synthesizer, voices, decode_limits(context.plan), final_chunk=context.plan.final_chunk)
