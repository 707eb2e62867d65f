"""The state of one segment in the decode stage, from its first token to its last audio.

Everything that a request keeps here hangs on its `Segment` objects and is gone with them; nothing is on the models.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ttsfleet_runtime.decode.flow import FlowJob
from ttsfleet_runtime.decode.scheduler import Candidate, Phase, SegmentKey
from ttsfleet_runtime.decode.speaker import SpeakerTensors
from ttsfleet_runtime.decode.stream import ChunkPlan, FlowCall
from ttsfleet_runtime.decode.vocoder_stream import StreamVocoder
from ttsfleet_runtime.decode.vocoder_work import VocoderWork
from ttsfleet_runtime.messages import AudioChunk, DecodeJob, StageTimes


@dataclass(slots=True, eq=False)
class Segment:
    """One segment. At most one flow call is under way, and its state is one of:

    waiting for tokens   call is None
    ready                call, but neither flow nor vocoding
    being solved         flow
    being vocoded        vocoding
    """

    job: DecodeJob
    speaker: SpeakerTensors
    vocoder: StreamVocoder
    plan: ChunkPlan
    times: StageTimes
    arrival: float
    tokens: list[int] = field(default_factory=list)
    finished: bool = False
    call: FlowCall | None = None
    flow: FlowJob | None = None
    vocoding: VocoderWork | None = None
    waiting_since: float = 0.0
    decode_started: float = 0.0
    num_chunks: int = 0
    num_samples: int = 0

    @property
    def key(self) -> SegmentKey:
        return (self.job.key, self.job.segment)

    def add_tokens(self, tokens: list[int], finished: bool) -> None:
        self.tokens += tokens
        self.finished = self.finished or finished

    @property
    def steps_done(self) -> int:
        """Euler steps that the current call has behind it."""
        return self.flow.step if self.flow is not None else 0

    def times_at(self, now: float) -> StageTimes:
        """The segment's times, for a chunk that leaves at `now`."""
        return msgspec.structs.replace(self.times, decode_started=self.decode_started or now, decoded=now)

    def plan_call(self, now: float) -> None:
        """Set `call` if the tokens so far allow one and none is under way."""
        if self.call is None:
            self.call = self.plan.next_call(len(self.tokens), self.finished)
            self.waiting_since = now

    def call_tokens(self) -> list[int]:
        """The tokens that the current call sees."""
        assert self.call is not None
        return self.tokens[: self.call.num_tokens]

    def chunk_tokens(self) -> list[int]:
        """The tokens that the current call turns into audio."""
        assert self.call is not None
        return self.tokens[self.call.token_offset : self.call.token_offset + self.call.num_new_tokens]

    def complete_call(self) -> None:
        """The audio of the current call is out: keep what the next one needs, free the rest."""
        assert self.call is not None
        self.plan = self.plan.after(self.call)
        self.call = self.flow = self.vocoding = None

    def next_chunk(self, pcm: bytes, tokens: list[int], sample_rate: int, now: float, *, last: bool) -> AudioChunk:
        """The message that carries this audio, which is counted. pcm: as in `AudioChunk`, may be empty."""
        chunk = AudioChunk(
            key=self.job.key,
            segment=self.job.segment,
            index=self.num_chunks,
            pcm=pcm,
            sample_rate=sample_rate,
            tokens=tokens,
            last=last,
            last_segment=self.job.last_segment,
            num_text_tokens=self.job.num_text_tokens,
            times=self.times_at(now),
        )
        self.num_chunks += 1
        self.num_samples += len(pcm) // 2
        return chunk

    def candidate(
        self, *, is_first_chunk: bool, playback_deadline: float, num_steps: int, frames_per_token: int
    ) -> Candidate | None:
        """What the scheduler sees of this segment; None while it waits for tokens.

        num_steps: Euler steps of a whole flow call
        """
        if self.call is None:
            return None
        if self.vocoding is not None:
            phase, frames, remaining_steps = Phase.VOCODE, self.vocoding.frames, 1
        elif self.flow is not None:
            phase, frames, remaining_steps = Phase.FLOW, self.flow.frames, num_steps - self.flow.step
        else:
            num_tokens = self.speaker.prompt_tokens.shape[0] + self.call.token_offset + self.call.num_new_tokens
            phase, frames, remaining_steps = Phase.FLOW, frames_per_token * num_tokens, num_steps
        return Candidate(
            key=self.key,
            phase=phase,
            frames=frames,
            remaining_steps=remaining_steps,
            streaming=self.job.stream,
            is_first_chunk=is_first_chunk,
            playback_deadline=playback_deadline,
            arrival=self.arrival,
            waiting_since=self.waiting_since,
            started=self.flow is not None or self.vocoding is not None,
        )
