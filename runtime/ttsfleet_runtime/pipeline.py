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
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
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
    DecodeJob,
    DropVoices,
    EncodeText,
    EncodeVoice,
    Mode,
    RequestFailed,
    Sampling,
    SegmentConsumed,
    SegmentDecoded,
    SequenceFinished,
    SequenceJob,
    SpeechRequest,
    StageTimes,
    TextEncoded,
    VoiceEncoded,
)
from ttsfleet_runtime.router.fleet import Fleet
from ttsfleet_runtime.router.voice_cache import VoiceCache
from ttsfleet_runtime.stage import Outgoing
from ttsfleet_runtime.voices import voice_hash

OFFLINE_SEGMENTS_AHEAD = 4
"""Segments of one offline request in the engine at once: enough to batch, too few to starve the others."""

MIN_TOKENS_PER_TEXT_TOKEN = 2
MAX_TOKENS_PER_TEXT_TOKEN = 20
"""Bounds of the speech tokens per text token (goldens/FORMAT.md, section 7)."""

MAX_FLOW_FRAMES = 15000
"""Frames of the flow's fixed noise: (prompt + generated tokens) x 2 must stay within (section 12)."""


@dataclass(frozen=True)
class Voice:
    """What the pipeline knows of a voice. `audio` loads the prompt when its entry must be computed again.

    `sft_hash` is the entry for mode sft where the model brings another speaker vector for it; empty = the same.
    """

    name: str
    voice_hash: str
    has_prompt: bool
    sft_hash: str = ""
    prompt_text: str = ""
    prompt_ids: tuple[int, ...] | None = None  # of a voice that ships with the model, already tokenised
    audio: Callable[[], bytes] = bytes


@dataclass
class _Request:
    """A request in flight. Segment counters only grow: decoded <= finished <= started <= len(segments)."""

    request: SpeechRequest
    mode: Mode
    voice: Voice
    encoder: str = ""
    retried: bool = False
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
        return self.voice.sft_hash or self.voice.voice_hash if self.mode is Mode.SFT else self.voice.voice_hash


class Pipeline:
    """All requests in flight and the voice cache; see the module docstring for the path through it."""

    def __init__(self, plan: EnginePlan, model: ModelInfo, fleet: Fleet, voices: Mapping[str, Voice]) -> None:
        self._plan = plan
        self._model = model
        self._fleet = fleet
        self._voices = voices
        self.cache = VoiceCache(plan.cache_capacity)
        self._requests: dict[str, _Request] = {}
        self._waiting_for_encoder: deque[EncodeText | EncodeVoice] = deque()
        self._encoding: dict[str, str] = {}  # voice hash -> encoder that computes it
        self._voice_retried: set[str] = set()
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
            mode = _choose_mode(request, voice)
            self._check_style(request)
        except TTSFleetError as error:
            return [Outgoing(request.reply_to, RequestFailed(key=request.key, error=error.info()))]
        state = _Request(request, mode, voice)
        self._requests[request.key] = state
        text = EncodeText(
            key=request.key,
            text=request.text,
            prompt_text=_prompt_text(mode, request, voice),
            mode=mode,
        )
        return [*self._use_voice(state), *self._encode(text)]

    def text_encoded(self, message: TextEncoded, now: float) -> list[Outgoing]:
        """The text's segments are tokens now."""
        self._fleet.finish_encoding(message.key)
        state = self._requests.get(message.key)
        if state is None:
            return self._encode_waiting()
        if message.error is not None:
            return [*self._fail(state, message.error), *self._encode_waiting()]
        state.text = message
        state.encoded_at = now
        return [*self._speak(state), *self._encode_waiting()]

    def voice_encoded(self, message: VoiceEncoded) -> list[Outgoing]:
        """A voice entry lies in the run directory, or could not be computed: all who waited go on."""
        self._fleet.finish_encoding(message.voice_hash)
        self._encoding.pop(message.voice_hash, None)
        self._voice_retried.discard(message.voice_hash)
        waiters, evicted = self.cache.computed(message.voice_hash, message.num_tokens, message.error)
        outgoing = self._drop(evicted)
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
        return [*outgoing, *self._encode_waiting()]

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
        return [] if state is None else [*self._cancel_stages(state), *self._forget(state)]

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
        ready = self.cache.acquire(voice_hash, call, audio)
        if ready:
            self._end_preparation(call, None)
            return self._drop(self.cache.release(voice_hash, call))
        return self._encode(EncodeVoice(voice_hash=voice_hash, audio=audio)) if ready is None else []

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
        return self._encode_waiting()

    def process_lost(self, identity: str) -> list[Outgoing]:
        """A process died or stopped answering: retry, fail or cancel what it had."""
        lost_work = self._fleet.lost(identity)
        outgoing: list[Outgoing] = []
        error = UnavailableError(
            f"the process {identity} died while it worked on this request; try again", retry_after_seconds=1
        ).info()
        for state in list(self._requests.values()):
            if state.request.reply_to == identity:
                outgoing += [*self._cancel_stages(state), *self._forget(state)]
            elif identity in (state.engine, state.decoder) and not self._engine_is_done(state, identity):
                outgoing += self._fail(state, error)
        for work in lost_work:
            outgoing += self._retry(work, error)
        return [*outgoing, *self._encode_waiting()]

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
        ready = self.cache.acquire(state.voice_hash, state.key, audio)
        state.voice_ready = ready is True
        if ready is None:
            return self._encode(EncodeVoice(voice_hash=state.voice_hash, audio=audio))
        return []

    def _encode(self, work: EncodeText | EncodeVoice) -> list[Outgoing]:
        encoder = self._fleet.choose_encoder(_work_id(work), work)
        if encoder is None:
            self._waiting_for_encoder.append(work)
            return []
        return [Outgoing(encoder, work)]

    def _encode_waiting(self) -> list[Outgoing]:
        outgoing: list[Outgoing] = []
        while self._waiting_for_encoder:
            encoder = self._fleet.choose_encoder(_work_id(self._waiting_for_encoder[0]), self._waiting_for_encoder[0])
            if encoder is None:
                break
            outgoing.append(Outgoing(encoder, self._waiting_for_encoder.popleft()))
        return outgoing

    def _retry(self, work: EncodeText | EncodeVoice, error: ErrorInfo) -> list[Outgoing]:
        """Encode work of a lost process: once more on another, then the error."""
        if isinstance(work, EncodeVoice):
            if work.voice_hash in self._voice_retried:
                return self.voice_encoded(VoiceEncoded(voice_hash=work.voice_hash, error=error))
            self._voice_retried.add(work.voice_hash)
            return self._encode(work)
        state = self._requests.get(work.key)
        if state is None:
            return []
        if state.retried:
            return self._fail(state, error)
        state.retried = True
        return self._encode(work)

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
                job = self._sequence_job(state, state.started)
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

    def _sequence_job(self, state: _Request, segment: int) -> SequenceJob:
        request, voice = state.request, state.voice
        assert state.text is not None
        text_ids = state.text.segments[segment]
        prompt_ids = list(voice.prompt_ids or ()) if _uses_known_prompt(state.mode, voice) else state.text.prompt_ids
        use_prompt_speech = state.mode is Mode.ZERO_SHOT
        num_prompt = self.cache.num_tokens(state.voice_hash)
        rows = 2 + len(prompt_ids) + len(text_ids) + (num_prompt if use_prompt_speech else 0)
        max_tokens = min(
            request.max_tokens or MAX_TOKENS_PER_TEXT_TOKEN * len(text_ids),
            self._plan.max_req_total_len - rows,
            MAX_FLOW_FRAMES // self._model.flow.token_mel_ratio - num_prompt,
        )
        if max_tokens < 1:
            raise InvalidRequestError(
                f"the text, its prompt and one token of speech need {rows + 1} positions; "
                f"max_req_total_len is {self._plan.max_req_total_len}: shorten the prompt or the text",
                param="input",
            )
        min_tokens = min(MIN_TOKENS_PER_TEXT_TOKEN * len(text_ids), max_tokens)
        last = segment == len(state.text.segments) - 1
        return SequenceJob(
            key=request.key,
            segment=segment,
            style=request.style or self._model.styles[0],
            prompt_ids=prompt_ids,
            text_ids=text_ids,
            voice_hash=state.voice_hash,
            use_prompt_speech=use_prompt_speech,
            min_tokens=max_tokens if request.ignore_eos else min_tokens,
            max_tokens=max_tokens,
            ignore_eos=request.ignore_eos,
            seed=request.seed,
            sampling=request.sampling or self._model_sampling(),
            deadline=request.deadline,
            decoder=state.decoder,
            decode=DecodeJob(
                key=request.key,
                segment=segment,
                last_segment=last,
                reply_to=request.reply_to,
                voice_hash=state.voice_hash,
                use_prompt=state.mode is not Mode.SFT,
                stream=request.stream,
                speed=request.speed,
                seed=request.seed,
                num_text_tokens=len(text_ids),
                times=StageTimes(received=request.received, encoded=state.encoded_at),
            ),
        )

    def _model_sampling(self) -> Sampling:
        model = self._model
        return Sampling(
            top_p=model.sampling_top_p,
            top_k=model.sampling_top_k,
            win_size=model.sampling_win_size,
            tau_r=model.sampling_tau_r,
        )

    def _engine_is_done(self, state: _Request, identity: str) -> bool:
        """True when the lost process had already done all its work for this request."""
        if identity != state.engine or identity == state.decoder or state.text is None:
            return False
        return len(state.finished) == len(state.text.segments)

    def _fail(self, state: _Request, error: ErrorInfo) -> list[Outgoing]:
        failed = Outgoing(state.request.reply_to, RequestFailed(key=state.key, error=error))
        return [failed, *self._cancel_stages(state), *self._forget(state)]

    def _cancel_stages(self, state: _Request) -> list[Outgoing]:
        targets = {self._fleet.encoder_of(state.key), state.engine, state.decoder} - {"", None}
        return [Outgoing(str(identity), Cancel(key=state.key)) for identity in sorted(str(t) for t in targets)]

    def _forget(self, state: _Request) -> list[Outgoing]:
        del self._requests[state.key]
        self._fleet.finish(state.key)
        self._fleet.finish_encoding(state.key)
        if state.text is None:
            waiting = (w for w in self._waiting_for_encoder if not isinstance(w, EncodeText) or w.key != state.key)
            self._waiting_for_encoder = deque(waiting)
        return self._drop(self.cache.release(state.voice_hash, state.key))

    def _drop(self, voice_hashes: list[str]) -> list[Outgoing]:
        if not voice_hashes:
            return []
        self.evicted += voice_hashes
        message = DropVoices(voice_hashes=voice_hashes)
        return [Outgoing(identity, message) for identity in self._fleet.voice_users()]


def _work_id(work: EncodeText | EncodeVoice) -> str:
    return work.key if isinstance(work, EncodeText) else work.voice_hash


def _uses_known_prompt(mode: Mode, voice: Voice) -> bool:
    return mode is Mode.ZERO_SHOT and voice.prompt_ids is not None


def _choose_mode(request: SpeechRequest, voice: Voice) -> Mode:
    """The asked mode, or: instructions -> instruct2, a prompt with its transcript -> zero_shot, a prompt alone ->
    cross_lingual, else sft. Raises InvalidRequestError when the voice lacks what the mode needs."""
    transcript = bool(voice.prompt_text.strip()) or voice.prompt_ids is not None
    mode = request.mode
    if mode is None:
        if request.instructions.strip():
            return Mode.INSTRUCT2 if voice.has_prompt else _refuse_mode(Mode.INSTRUCT2, voice, "a prompt recording")
        if voice.has_prompt:
            return Mode.ZERO_SHOT if transcript else Mode.CROSS_LINGUAL
        return Mode.SFT
    if mode is Mode.SFT:
        return mode
    if not voice.has_prompt:
        return _refuse_mode(mode, voice, "a prompt recording")
    if mode is Mode.ZERO_SHOT and not transcript:
        return _refuse_mode(mode, voice, "the prompt's transcript (ref_text)")
    if mode is Mode.INSTRUCT2 and not request.instructions.strip():
        raise InvalidRequestError("mode instruct2 needs `instructions`", param="instructions")
    return mode


def _refuse_mode(mode: Mode, voice: Voice, needed: str) -> Mode:
    name = repr(voice.name) if voice.name else "of this request"
    raise InvalidRequestError(f"mode {mode.value} needs {needed}, which the voice {name} does not have", param="mode")


def _prompt_text(mode: Mode, request: SpeechRequest, voice: Voice) -> str:
    if mode is Mode.INSTRUCT2:
        return request.instructions
    if mode is Mode.ZERO_SHOT and voice.prompt_ids is None:
        return voice.prompt_text
    return ""
