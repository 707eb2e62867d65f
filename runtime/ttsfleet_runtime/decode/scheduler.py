"""Which decode work runs next. Pure: values in, a decision out; no torch, no clock, no memory of its own.

A candidate is one piece of work of one segment: Euler steps of its flow call, or the vocoder pass over the mel that
came out of it. `choose` ranks them:

1. work other than first chunks that was passed over for `patience_seconds` times the number of such candidates,
   longest wait first: nothing starves, yet however much has waited too long, such turns come no more often than
   every `patience_seconds`, so an overload never turns the queue into first come, first served;
2. first chunks, by arrival (somebody hears silence);
3. later chunks of streams, by playback deadline (somebody hears silence soon);
4. offline segments, by arrival.

The most urgent admissible candidate leads, and candidates of its phase join it in rank order as far as the limits
go. Pre-emption happens here and nowhere else: a decision is bounded (`frame_budget`), the next one ranks anew, and a
half-solved job that is not chosen simply keeps its state until it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

SegmentKey = tuple[str, int]


class Phase(Enum):
    FLOW = "flow"
    VOCODE = "vocode"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Work that could run now.

    frames: mel frames that one Euler step (FLOW, prompt included) or the pass (VOCODE) computes
    remaining_steps: Euler steps still to do; 1 in VOCODE
    started: it holds model state (its flow call has begun and its audio is not out)
    arrival: when the segment came; waiting_since: when this work became ready or last ran, seconds
    playback_deadline: when the client runs out of audio, seconds; read only if `streaming` and no first chunk
    """

    key: SegmentKey
    phase: Phase
    frames: int
    remaining_steps: int
    streaming: bool
    is_first_chunk: bool
    playback_deadline: float
    arrival: float
    waiting_since: float
    started: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may run at once.

    max_batch_size: candidates per decision (`decode_max_batch_size`)
    max_active: candidates that hold model state (`decode_paral_num`). A slot that a paused job holds must not block a
        stream: chunks that outrank a holder may start beyond it, up to `max_batch_size` more, first chunks twice
    frame_budget: frames times Euler steps per decision; a single candidate runs one step however long it is
    vocode_budget: mel frames of one vocoder pass, likewise
    companion_frames: a batch led by a first chunk takes less urgent work along only up to this many frames: below
        it a step costs the same anyway
    patience_seconds: how long ready work may be passed over, for each candidate that is no first chunk
    """

    max_batch_size: int
    max_active: int
    frame_budget: int
    vocode_budget: int
    companion_frames: int
    patience_seconds: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Run `num_steps` Euler steps (or one vocoder pass) for all of `keys` together, most urgent first."""

    phase: Phase
    keys: tuple[SegmentKey, ...]
    num_steps: int


Rank = tuple[int, float, float, SegmentKey]


def rank(candidate: Candidate, overdue_since: float) -> Rank:
    """The sort key of a candidate; smaller is more urgent, and no two are equal.

    overdue_since: work other than first chunks that has waited since then or longer goes ahead of everything
    """
    if candidate.is_first_chunk:
        return (1, candidate.arrival, 0.0, candidate.key)
    if candidate.waiting_since <= overdue_since:
        return (0, candidate.waiting_since, candidate.arrival, candidate.key)
    if candidate.streaming:
        return (2, candidate.playback_deadline, candidate.arrival, candidate.key)
    return (3, candidate.arrival, 0.0, candidate.key)


def choose(candidates: Sequence[Candidate], limits: Limits, now: float) -> Decision | None:
    """The next piece of work, or None when there are no candidates."""
    overdue_since = now - limits.patience_seconds * sum(not candidate.is_first_chunk for candidate in candidates)
    admitted = _admit(sorted(candidates, key=lambda c: rank(c, overdue_since)), limits)
    if not admitted:
        return None
    lead = admitted[0]
    budget = limits.frame_budget if lead.phase is Phase.FLOW else limits.vocode_budget
    batch = [lead]
    frames = lead.frames
    for candidate in admitted[1:]:
        if len(batch) == limits.max_batch_size:
            break
        if candidate.phase is not lead.phase:
            continue
        rides_along = lead.is_first_chunk and not candidate.is_first_chunk
        if frames + candidate.frames <= (min(budget, limits.companion_frames) if rides_along else budget):
            batch.append(candidate)
            frames += candidate.frames
    most_steps = min(candidate.remaining_steps for candidate in batch)
    num_steps = min(max(limits.frame_budget // max(frames, 1), 1), most_steps) if lead.phase is Phase.FLOW else 1
    return Decision(lead.phase, tuple(candidate.key for candidate in batch), num_steps)


def _admit(ranked: Sequence[Candidate], limits: Limits) -> list[Candidate]:
    """Those that hold state or may begin to, in order: the bound on held state, with room for pre-emption."""
    num_started = sum(candidate.started for candidate in ranked)
    num_holders_behind = num_started
    admitted: list[Candidate] = []
    for candidate in ranked:
        if candidate.started:
            num_holders_behind -= 1
            admitted.append(candidate)
            continue
        most_started = limits.max_active
        if num_holders_behind > 0:
            most_started += limits.max_batch_size * (candidate.streaming + candidate.is_first_chunk)
        if num_started < most_started:
            num_started += 1
            admitted.append(candidate)
    return admitted
