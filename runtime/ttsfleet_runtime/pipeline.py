"""The life of a request, top to bottom: start reading here.

    server  --SpeechRequest-->  submit            admission, the voice, the mode
    encode  --TextEncoded---->  text_encoded      token ids of each segment of the text
            --VoiceEncoded--->  voice_encoded     the prompt's tokens, mel and speaker vector, by content hash
    llm     <--SequenceJob----  _speak            one sequence per segment, a bounded number ahead of playback
            --SequenceFinished> sequence_finished
    decode  (tokens come straight from the llm, PCM goes straight to the server)
            --SegmentDecoded->  segment_decoded   the last one ends the request

`Pipeline` is the router's pure core: messages and process events in, `Outgoing` messages out. It opens no socket,
reads no clock and touches no file, so every rule here (admission, retry, cancellation, what fails when a process
dies) is tested as a table. `router.main` turns it into a process.

When a process dies (`process_lost`): encode work is tried once more elsewhere; a request that needs the lost LLM or
decoder fails at once with 503; the requests of a lost HTTP worker are cancelled.

Longer than most modules on purpose: the whole way of a request can be read here without turning a page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.errors import (
    DeadlineError,
    ErrorInfo,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    TTSFleetError,
    UnavailableError,
)
from ttsfleet_runtime.messages import (
    Cancel,
    DropVoices,
    EncodeText,
    EncodeVoice,
    Mode,
    RequestFailed,
    SegmentConsumed,
    SegmentDecoded,
    SequenceFinished,
    SpeechRequest,
    TextEncoded,
    VoiceEncoded,
)
from ttsfleet_runtime.router.encode_queue import EncodeQueue
from ttsfleet_runtime.router.fleet import Fleet
from ttsfleet_runtime.router.jobs import JobFactory
from ttsfleet_runtime.router.voice import Voice, choose_mode, prompt_text
from ttsfleet_runtime.router.voice_cache import VoiceCache
from ttsfleet_runtime.stage import Outgoing
from ttsfleet_runtime.voices import voice_hash

OFFLINE_SEGMENTS_AHEAD = 4
"""Segments of one offline request in the engine at once: enough to batch, too few to starve the others."""


@dataclass
class _Request:
    """A request in flight. Segment counters only grow: decoded <= finished <= started <= len(segments)."""

    request: SpeechRequest
    mode: Mode
    voice: Voice
    text: TextEncoded | None = None
    voice_ready: bool = False
    engine: str = ""
    decoder: str = ""
    started: int = 0
    finished: set[int] = field(default_factory=set)
    decoded: set[int] = field(default_factory=set)
    consumed: int = -1
    encoded_at: float = 0.0

    @property
    def key(self) -> str:
        return self.request.key

    @property
    def voice_hash(self) -> str:
        """The entry that this request's mode uses."""
        return self.voice.entry_hash(self.mode)


class Pipeline:
    """All requests in flight and the voice cache; see the module docstring for the path through it."""

    def __init__(self, plan: EnginePlan, model: ModelInfo, fleet: Fleet, voices: Mapping[str, Voice]) -> None:
        self._plan = plan
        self._model = model
        self._fleet = fleet
        self._voices = voices
        self.cache = VoiceCache(plan.cache_capacity)
        self._requests: dict[str, _Request] = {}
        self._jobs = JobFactory(plan, model)
        self._encode = EncodeQueue(fleet.encoders, plan.encode_paral_num)
        self.evicted: list[str] = []
        """Voice hashes whose files the router must delete; it empties the list."""
        self._preparing: set[str] = set()
        self.prepared: list[tuple[str, ErrorInfo | None]] = []
        """(call, error) of the `prepare_voice` calls that ended; the router empties the list."""

    def __len__(self) -> int:
        return len(self._requests)

    # --- the path of a request ------------------------------------------------------------------------------

    def submit(self, request: SpeechRequest, now: float) -> list[Outgoing]:
        """Admit a request, or answer it with the reason why not."""
        try:
            if request.deadline <= now:
                raise DeadlineError("the request's deadline had passed when it reached the router")
            self._admit()
            voice = self._find_voice(request)
            mode = choose_mode(request, voice)
            self._check_style(request)
        except TTSFleetError as error:
            return [Outgoing(request.reply_to, RequestFailed(key=request.key, error=error.info()))]
        state = _Request(request, mode, voice)
        self._requests[request.key] = state
        text = EncodeText(
            key=request.key,
            text=request.text,
            prompt_text=prompt_text(mode, request, voice),
            mode=mode,
        )
        try:
            outgoing = self._use_voice(state)
        except TTSFleetError as error:
            return self._fail(state, error.info())
        return [*outgoing, *self._encode.submit(text)]

    def text_encoded(self, message: TextEncoded, now: float) -> list[Outgoing]:
        """The text's segments are tokens now."""
        outgoing = self._encode.finished(message.key)
        state = self._requests.get(message.key)
        if state is None:
            return outgoing
        error = message.error
        if error is None and not message.segments:
            error = InvalidRequestError("the text holds nothing that can be spoken", param="input").info()
        if error is not None:
            return [*outgoing, *self._fail(state, error)]
        state.text = message
        state.encoded_at = now
        return [*outgoing, *self._speak(state)]

    def voice_encoded(self, message: VoiceEncoded) -> list[Outgoing]:
        """A voice entry lies in the run directory, or could not be computed: all who waited go on."""
        outgoing = self._encode.finished(message.voice_hash)
        waiters, evicted = self.cache.computed(message.voice_hash, message.num_tokens, message.error)
        outgoing += self._drop(evicted)
        for key in waiters:
            state = self._requests.get(key)
            if key in self._preparing:
                self._end_preparation(key, message.error)
            if state is None:
                outgoing += self._drop(self.cache.release(message.voice_hash, key))
            elif message.error is not None:
                outgoing += self._fail(state, message.error)
            else:
                state.voice_ready = True
                outgoing += self._speak(state)
        return outgoing

    def segment_consumed(self, message: SegmentConsumed) -> list[Outgoing]:
        """The client took the first audio of a segment: prepare the next."""
        state = self._requests.get(message.key)
        if state is None:
            return []
        state.consumed = max(state.consumed, message.segment)
        return self._speak(state)

    def sequence_finished(self, message: SequenceFinished) -> list[Outgoing]:
        """The LLM has spoken a segment; its decoder has all tokens."""
        state = self._requests.get(message.key)
        if state is None:
            return []
        if message.error is not None:
            return self._fail(state, message.error)
        state.finished.add(message.segment)
        return self._speak(state)

    def segment_decoded(self, message: SegmentDecoded) -> list[Outgoing]:
        """A segment's audio has gone to the server; the last one ends the request."""
        state = self._requests.get(message.key)
        if state is None:
            return []
        if message.error is not None:
            return self._fail(state, message.error)
        state.decoded.add(message.segment)
        assert state.text is not None
        if len(state.decoded) == len(state.text.segments):
            return self._forget(state)
        return self._speak(state)

    def cancel(self, message: Cancel) -> list[Outgoing]:
        """The client left: every stage forgets the request."""
        state = self._requests.get(message.key)
        return [] if state is None else self._cancel(state)

    def expire(self, now: float) -> list[Outgoing]:
        """End requests whose deadline has passed (the server does so too: this is the backstop)."""
        late = [state for state in self._requests.values() if state.request.deadline <= now]
        error = DeadlineError(
            f"the request was not finished within server.timeout ({self._plan.server.timeout:g} s)"
        ).info()
        return [out for state in late for out in self._fail(state, error)]

    # --- voices ---------------------------------------------------------------------------------------------

    def prepare_voice(self, call: str, voice_hash: str, audio: bytes) -> list[Outgoing]:
        """Compute a voice ahead of its first request (registration); the end is told in `prepared`."""
        self._preparing.add(call)
        ready = self.cache.acquire(voice_hash, call)
        if ready:
            self._end_preparation(call, None)
            return self._drop(self.cache.release(voice_hash, call))
        return self._encode.submit(EncodeVoice(voice_hash=voice_hash, audio=audio)) if ready is None else []

    def forget_voice(self, voice_hash: str) -> list[Outgoing]:
        """A registered voice was deleted: its entry goes as soon as no live request uses it."""
        return self._drop(self.cache.discard(voice_hash))

    def release_voices(self) -> list[Outgoing]:
        """Empty the voice cache of everything that no live request uses."""
        return self._drop(self.cache.drop_unused())

    def _end_preparation(self, call: str, error: ErrorInfo | None) -> None:
        self._preparing.discard(call)
        self.prepared.append((call, error))

    # --- processes ------------------------------------------------------------------------------------------

    def process_ready(self, identity: str) -> list[Outgoing]:
        """A process said hello."""
        self._fleet.ready(identity)
        return self._encode.pump()

    def process_lost(self, identity: str) -> list[Outgoing]:
        """A process died or stopped answering: retry, fail or cancel what it had."""
        self._fleet.lost(identity)
        outgoing: list[Outgoing] = []
        error = UnavailableError(
            f"the process {identity} died while it worked on this request; try again", retry_after_seconds=1
        ).info()
        for state in list(self._requests.values()):
            if state.request.reply_to == identity:
                outgoing += self._cancel(state)
            elif identity in (state.engine, state.decoder) and not self._engine_is_done(state, identity):
                outgoing += self._fail(state, error)
        for work in self._encode.lost(identity):
            if isinstance(work, EncodeVoice):
                outgoing += self.voice_encoded(VoiceEncoded(voice_hash=work.voice_hash, error=error))
            else:
                outgoing += self.fail(work.key, error)
        return [*outgoing, *self._encode.pump()]

    def fail(self, key: str, error: ErrorInfo) -> list[Outgoing]:
        """Answer a request with an error and forget it everywhere; nothing when it is not known."""
        state = self._requests.get(key)
        return [] if state is None else self._fail(state, error)

    # --- inside ---------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        capacity = self._plan.workers * self._plan.gpt_paral_num + self._plan.limits.queued_requests
        if len(self._requests) >= capacity:
            raise OverloadedError(
                f"{len(self._requests)} requests are in flight or queued, which is all that this server takes "
                f"(workers x gpt_paral_num + limits.queued_requests = {capacity}); try again later",
                retry_after_seconds=max(1.0, round(len(self._requests) / 50)),
            )

    def _find_voice(self, request: SpeechRequest) -> Voice:
        if request.prompt_audio:
            return Voice(
                name="",
                voice_hash=voice_hash(request.prompt_audio, self._model.digest),
                has_prompt=True,
                prompt_text=request.prompt_text,
                audio=lambda: request.prompt_audio,
            )
        voice = self._voices.get(request.voice)
        if voice is None:
            known = ", ".join(sorted(self._voices)[:20])
            raise NotFoundError(f"voice {request.voice!r} does not exist; there are: {known}", param="voice")
        return voice

    def _check_style(self, request: SpeechRequest) -> None:
        if request.style and request.style not in self._model.styles:
            raise NotFoundError(
                f"model {request.style!r} does not exist; there are: {', '.join(self._model.styles)}", param="model"
            )

    def _use_voice(self, state: _Request) -> list[Outgoing]:
        voice = state.voice
        audio = voice.audio() if not self.cache.has(state.voice_hash) else b""
        ready = self.cache.acquire(state.voice_hash, state.key)
        state.voice_ready = ready is True
        if ready is None:
            return self._encode.submit(EncodeVoice(voice_hash=state.voice_hash, audio=audio))
        return []

    def _speak(self, state: _Request) -> list[Outgoing]:
        """Hand the next segments to the LLM, as far ahead as playback (or batching, offline) asks for."""
        if state.text is None or not state.voice_ready:
            return []
        if not state.engine:
            placed = self._fleet.place(state.request.style or self._model.styles[0], state.key)
            if placed is None:
                unavailable = UnavailableError(
                    "no LLM or decode process is running at this moment; try again", retry_after_seconds=2
                )
                return self._fail(state, unavailable.info())
            state.engine, state.decoder = placed
        outgoing: list[Outgoing] = []
        while state.started < min(len(state.text.segments), self._allowed(state)):
            try:
                job = self._jobs.segment(
                    state.request,
                    state.mode,
                    state.voice,
                    state.text,
                    state.started,
                    num_prompt_tokens=self.cache.num_tokens(state.voice_hash),
                    decoder=state.decoder,
                    encoded_at=state.encoded_at,
                )
            except TTSFleetError as error:
                return self._fail(state, error.info())
            outgoing.append(Outgoing(state.engine, job))
            state.started += 1
        return outgoing

    def _allowed(self, state: _Request) -> int:
        """How many segments may have been started by now."""
        if state.request.stream:
            return state.consumed + 2
        return len(state.finished) + OFFLINE_SEGMENTS_AHEAD

    def _engine_is_done(self, state: _Request, identity: str) -> bool:
        """True when the lost process had already done all its work for this request."""
        if identity != state.engine or identity == state.decoder or state.text is None:
            return False
        return len(state.finished) == len(state.text.segments)

    def _fail(self, state: _Request, error: ErrorInfo) -> list[Outgoing]:
        failed = Outgoing(state.request.reply_to, RequestFailed(key=state.key, error=error))
        return [failed, *self._cancel(state)]

    def _cancel(self, state: _Request) -> list[Outgoing]:
        """Tell every stage that holds the request, and forget it."""
        holders = {self._encode.cancel(state.key) or "", state.engine, state.decoder} - {""}
        cancels = [Outgoing(identity, Cancel(key=state.key)) for identity in sorted(holders)]
        return [*cancels, *self._forget(state), *self._encode.pump()]

    def _forget(self, state: _Request) -> list[Outgoing]:
        del self._requests[state.key]
        self._fleet.finish(state.key)
        return self._drop(self.cache.release(state.voice_hash, state.key))

    def _drop(self, voice_hashes: list[str]) -> list[Outgoing]:
        if not voice_hashes:
            return []
        self.evicted += voice_hashes
        message = DropVoices(voice_hashes=voice_hashes)
        return [Outgoing(identity, message) for identity in self._fleet.voice_users()]
