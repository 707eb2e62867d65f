"""The LLM stage: jobs in, speech tokens out to the decoders, the end of each sequence to the router.

Here are the messages and the clock; what runs when is the engine's affair. For a streamed segment the new tokens
leave after each step, for an offline one all together at its end. The segment's `DecodeJob` goes ahead of its
first tokens, over the same socket, so a decoder always knows a segment before it gets its tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from msgspec.structs import replace

from ttsfleet_runtime.errors import (
    DeadlineError,
    ErrorInfo,
    InvalidRequestError,
    TTSFleetError,
)
from ttsfleet_runtime.llm.engine import Engine, EngineSizes, Progress, build_engine
from ttsfleet_runtime.llm.scheduler import SchedulerLimits
from ttsfleet_runtime.llm.self_test import run_self_test
from ttsfleet_runtime.llm.sequence import Sequence, SequenceSpec, check_sampling
from ttsfleet_runtime.llm.silence import SilenceLimiter
from ttsfleet_runtime.llm.weights import DTYPES
from ttsfleet_runtime.messages import (
    AnyMessage,
    Cancel,
    DropVoices,
    FinishReason,
    Gauge,
    SequenceFinished,
    SequenceJob,
    StageTimes,
    TokenDelta,
)
from ttsfleet_runtime.stage import ROUTER, Outgoing, Stage, StageContext
from ttsfleet_runtime.voices import VoiceEntry, VoiceFiles

_DEADLINE_CHECK_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class _Segment:
    """A job in the engine, and what has been said of it."""

    job: SequenceJob
    sequence: Sequence
    silence: SilenceLimiter
    admitted: float = 0.0
    first_token: float = 0.0
    opened: bool = False
    num_tokens: int = 0
    unsent: list[int] = field(default_factory=list)


class LLMStage:
    """See the module docstring. `clock` gives CLOCK_MONOTONIC seconds, as all message times are."""

    def __init__(
        self, engine: Engine, voices: VoiceFiles[list[int]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """voices: prompt speech tokens by voice."""
        self._engine = engine
        self._scheduler = engine.scheduler
        self._voices = voices
        self._clock = clock
        self._segments: dict[tuple[str, int], _Segment] = {}
        self._by_sequence: dict[int, _Segment] = {}
        self._outbox: list[Outgoing] = []
        self._next_deadline_check = 0.0

    # --- Stage ----------------------------------------------------------------------------------------------

    def submit(self, message: AnyMessage) -> None:
        match message:
            case SequenceJob():
                self._open(message)
            case Cancel(key=key):
                self._cancel(key)
            case DropVoices(voice_hashes=voice_hashes):
                self._voices.drop(voice_hashes)
            case _:
                pass  # a process may hold other stages too, and every stage hears what is for one of them

    def step(self) -> bool:
        self._expire()
        progress = self._engine.step()
        if progress is None:
            return False
        now = self._clock()
        for sequence in self._engine.admitted:
            segment = self._by_sequence.get(sequence.number)
            if segment is not None and segment.admitted == 0.0:
                segment.admitted = now
        for item in progress:
            self._take(item, now)
        return True

    def poll(self) -> list[Outgoing]:
        outgoing, self._outbox = self._outbox, []
        return outgoing

    def gauges(self) -> list[Gauge]:
        scheduler, blocks = self._scheduler, self._engine.blocks
        levels: dict[str, float] = {
            "llm_waiting": len(scheduler.waiting),
            "llm_running": len(scheduler.active),
            "llm_batch_size": self._engine.batch_size,
            "llm_kv_blocks_used": blocks.num_held,
            "llm_kv_blocks_total": blocks.num_blocks,
            "llm_kv_blocks_published": blocks.num_published,
            "llm_prefix_hit_rows": scheduler.counters.prefix_hit_rows,
            "llm_prefilled_rows": scheduler.counters.prefilled_rows,
            "llm_preemptions": scheduler.counters.preemptions,
        }
        memory_bytes = self._engine.runner.memory_bytes()
        if memory_bytes is not None:
            levels["gpu_memory_bytes"] = memory_bytes
        return [Gauge(name=name, value=value) for name, value in levels.items()]

    def idle(self) -> bool:
        return not self._segments and self._engine.idle

    # --- jobs -----------------------------------------------------------------------------------------------

    def _open(self, job: SequenceJob) -> None:
        if (job.key, job.segment) in self._segments:
            return
        try:
            spec = self._spec(job)
            if job.max_tokens > 0:
                self._scheduler.check_fits(spec)
        except TTSFleetError as error:
            self._report(job, FinishReason.ERROR, 0, error.info())
            return
        if job.max_tokens == 0:
            self._send(job.decoder, job.decode)
            self._send(job.decoder, TokenDelta(key=job.key, segment=job.segment, tokens=[], finished=True))
            self._report(job, FinishReason.LENGTH, 0)
            return
        silence = SilenceLimiter(self._scheduler.vocabulary.silent_ids)
        segment = _Segment(job, self._scheduler.add(spec), silence)
        self._segments[job.key, job.segment] = segment
        self._by_sequence[segment.sequence.number] = segment

    def _spec(self, job: SequenceJob) -> SequenceSpec:
        check_sampling(job.sampling)
        vocabulary = self._scheduler.vocabulary
        speech = self._voices.get(job.voice_hash) if job.use_prompt_speech else []
        text = [*job.prompt_ids, *job.text_ids]
        if any(not 0 <= token < vocabulary.num_text_rows for token in text):
            raise InvalidRequestError(
                f"text token ids go to {max(text)}; this model knows 0 to {vocabulary.num_text_rows - 1}",
                param="input",
            )
        return SequenceSpec(
            rows=tuple(vocabulary.prompt_rows(text, speech)),
            seed=job.seed,
            segment=job.segment,
            min_tokens=job.min_tokens,
            max_tokens=job.max_tokens,
            ignore_eos=job.ignore_eos,
            sampling=job.sampling,
        )

    def _cancel(self, key: str) -> None:
        for segment in [segment for segment in self._segments.values() if segment.job.key == key]:
            self._close(segment, FinishReason.CANCELLED)

    def _expire(self) -> None:
        now = self._clock()
        if now < self._next_deadline_check:
            return
        self._next_deadline_check = now + _DEADLINE_CHECK_SECONDS
        for segment in [segment for segment in self._segments.values() if segment.job.deadline <= now]:
            error = DeadlineError(
                f"the deadline passed after {segment.num_tokens} speech tokens of segment {segment.job.segment}; "
                "send less text, or raise server.timeout"
            )
            self._close(segment, FinishReason.ERROR, error.info())

    def _close(self, segment: _Segment, reason: FinishReason, error: ErrorInfo | None = None) -> None:
        """End a segment before its time; its blocks are free at once."""
        self._scheduler.remove(segment.sequence)
        self._forget(segment)
        self._report(segment.job, reason, segment.num_tokens, error)

    def _forget(self, segment: _Segment) -> None:
        del self._segments[segment.job.key, segment.job.segment]
        del self._by_sequence[segment.sequence.number]

    # --- tokens ---------------------------------------------------------------------------------------------

    def _take(self, progress: Progress, now: float) -> None:
        segment = self._by_sequence.get(progress.sequence.number)
        if segment is None:
            return
        job, accepted = segment.job, progress.accepted
        finished = accepted.finish is not None
        if accepted.emitted is not None:
            segment.num_tokens += 1
            segment.first_token = segment.first_token or now
            if segment.silence.keeps(accepted.emitted):
                segment.unsent.append(accepted.emitted)
        if not (finished or (job.decode.stream and segment.unsent)):
            return
        tokens, segment.unsent = segment.unsent, []
        self._announce(segment)
        times = self._times(segment, now) if finished else None
        delta = TokenDelta(key=job.key, segment=job.segment, tokens=tokens, finished=finished, times=times)
        self._send(job.decoder, delta)
        if accepted.finish is not None:
            self._forget(segment)
            self._report(job, accepted.finish, segment.num_tokens)

    def _announce(self, segment: _Segment) -> None:
        if not segment.opened:
            segment.opened = True
            job = segment.job.decode
            times = replace(job.times, llm_admitted=segment.admitted, llm_first_token=segment.first_token)
            self._send(segment.job.decoder, replace(job, times=times))

    def _times(self, segment: _Segment, now: float) -> StageTimes:
        return replace(
            segment.job.decode.times,
            llm_admitted=segment.admitted,
            llm_first_token=segment.first_token,
            llm_finished=now,
        )

    def _report(
        self, job: SequenceJob, reason: FinishReason, num_tokens: int, error: ErrorInfo | None = None
    ) -> None:
        message = SequenceFinished(
            key=job.key, segment=job.segment, reason=reason, num_tokens=num_tokens, error=error
        )
        self._send(ROUTER, message)

    def _send(self, to: str, message: AnyMessage) -> None:
        self._outbox.append(Outgoing(to, message))


def _prompt_speech(entry: VoiceEntry) -> list[int]:
    tokens: list[int] = entry.speech_tokens.tolist()
    return tokens


def build(context: StageContext) -> Stage:
    """Load the style's weights, prove that they can speak, capture graphs. Raises CheckpointError."""
    plan, info = context.plan, context.model.llm
    device = torch.device(plan.device)
    style = context.style or context.model.styles[0]
    num_blocks = plan.max_total_token_num // plan.kv_block_size
    limits = SchedulerLimits(
        max_running=plan.gpt_paral_num,
        max_rows=plan.max_req_total_len,
        max_step_rows=plan.batch_max_tokens,
        max_wait_steps=plan.router_max_wait_tokens,
    )
    sizes = EngineSizes(limits, num_blocks=num_blocks, block_size=plan.kv_block_size)
    dtype = DTYPES[plan.data_type]
    engine = build_engine(context.bundle_dir, style, info, sizes, device=device, dtype=dtype)
    if device.type == "cuda" and not plan.disable_cudagraph:
        engine.runner.capture_graphs(
            min(plan.graph_max_batch_size, plan.gpt_paral_num),
            min(plan.graph_max_len_in_batch, plan.max_req_total_len),
        )
    run_self_test(engine, f"llm.{style}")
    voices = VoiceFiles(
        context.run_dir,
        _prompt_speech,
        capacity=plan.cache_capacity,
        num_codes=engine.scheduler.vocabulary.num_codes,
    )
    return LLMStage(engine, voices)
