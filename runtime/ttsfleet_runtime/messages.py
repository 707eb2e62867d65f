"""The typed values that travel between processes. No torch, no I/O: only shapes of data.

A request's life is visible here in order: `SpeechRequest` (server -> router), `EncodeText`/`EncodeVoice` (router
-> encode) and their answers, `SequenceJob` (router -> llm), `DecodeJob` and `TokenDelta` (llm -> decode),
`AudioChunk` (decode -> server), with `SequenceFinished` and `SegmentDecoded` reported back to the router.

Every message is a frozen msgspec struct with a tag; `encode_messages` and `decode_messages` are the only codec.
Times are CLOCK_MONOTONIC seconds, which all processes of one machine share. Voices travel as content hashes:
the tensors lie in one immutable file per hash in the run directory (see `encode.voice`). One list of all messages,
hence the length.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ttsfleet_runtime.errors import ErrorInfo


class Mode(StrEnum):
    """What a request feeds to the models (tests/goldens/FORMAT.md, section 6)."""

    SFT = "sft"
    ZERO_SHOT = "zero_shot"
    CROSS_LINGUAL = "cross_lingual"
    INSTRUCT2 = "instruct2"


class FinishReason(StrEnum):
    EOS = "eos"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


MAX_TOP_K = 64
"""The nucleus candidates that the device keeps per sequence."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Repetition-aware sampling parameters; the defaults are the released models'."""

    top_p: float = 0.8
    top_k: int = 25
    win_size: int = 10
    tau_r: float = 0.1


class StageTimes(msgspec.Struct, frozen=True, kw_only=True):
    """When a segment passed each joint, CLOCK_MONOTONIC seconds; 0.0 = not yet."""

    received: float = 0.0
    encoded: float = 0.0
    llm_admitted: float = 0.0
    llm_first_token: float = 0.0
    llm_finished: float = 0.0
    decode_started: float = 0.0
    decoded: float = 0.0


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of everything on the wire."""


# --- server -> router ---------------------------------------------------------------------------------------


class SpeechRequest(Message, frozen=True, kw_only=True):
    """One validated client request. `voice` names a registered voice, or is empty with `prompt_audio` set."""

    key: str
    reply_to: str
    text: str
    voice: str = ""
    prompt_audio: bytes = b""
    prompt_text: str = ""
    mode: Mode | None = None
    instructions: str = ""
    style: str = ""
    stream: bool = False
    speed: float = 1.0
    seed: int = 0
    sampling: Sampling | None = None
    max_tokens: int | None = None
    ignore_eos: bool = False
    received: float
    deadline: float


class SegmentConsumed(Message, frozen=True, kw_only=True):
    """The client has taken the first audio of this segment: the one after next may be prepared."""

    key: str
    segment: int


class Cancel(Message, frozen=True, kw_only=True):
    """The client left, the deadline passed, or a stage failed. Travels to every stage; idempotent."""

    key: str
    reason: str = ""


class RequestReport(Message, frozen=True, kw_only=True):
    """The server's last word on a request, for the one metrics registry."""

    key: str
    route: str
    status: int
    outcome: str
    latency_seconds: float
    first_audio_seconds: float | None = None
    audio_seconds: float = 0.0
    underruns: int = 0


class RegisterVoice(Message, frozen=True, kw_only=True):
    call: str
    name: str
    audio: bytes
    transcript: str


class DeleteVoice(Message, frozen=True, kw_only=True):
    call: str
    name: str


class ListVoices(Message, frozen=True, kw_only=True):
    call: str


class GetMetrics(Message, frozen=True, kw_only=True):
    call: str


class GetStatus(Message, frozen=True, kw_only=True):
    call: str


class Retiring(Message, frozen=True, kw_only=True):
    """This HTTP worker has served its `max_requests`: start its successor, let this one finish its streams."""

    identity: str


# --- router -> server ---------------------------------------------------------------------------------------


class RequestFailed(Message, frozen=True, kw_only=True):
    key: str
    error: ErrorInfo


class VoiceInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: str  # "builtin" | "registered"
    has_prompt: bool
    created: float = 0.0
    transcript: str = ""


class Reply(Message, frozen=True, kw_only=True):
    """Answer to a call (`call` = the caller's id): an error, or the one field that the call is about."""

    call: str
    error: ErrorInfo | None = None
    voices: list[VoiceInfo] | None = None
    text: str | None = None


# --- router <-> encode --------------------------------------------------------------------------------------


class EncodeText(Message, frozen=True, kw_only=True):
    key: str
    text: str
    prompt_text: str = ""  # transcript (zero_shot; empty = the router knows its ids) or instruction (instruct2)
    mode: Mode


class TextEncoded(Message, frozen=True, kw_only=True):
    """Token ids: one list per segment of the text, and those of the prompt text (empty when there is none)."""

    key: str
    segments: list[list[int]] = []
    prompt_ids: list[int] = []
    error: ErrorInfo | None = None


class EncodeVoice(Message, frozen=True, kw_only=True):
    voice_hash: str
    audio: bytes


class VoiceEncoded(Message, frozen=True, kw_only=True):
    """The voice entry now lies in the run directory under its hash; `num_tokens` = aligned prompt tokens."""

    voice_hash: str
    num_tokens: int = 0
    prompt_seconds: float = 0.0
    error: ErrorInfo | None = None


# --- router -> llm ------------------------------------------------------------------------------------------


class DecodeJob(Message, frozen=True, kw_only=True):
    """What the decode stage must know of a segment before its first token (llm -> decode, ahead of tokens)."""

    key: str
    segment: int
    last_segment: bool
    reply_to: str
    voice_hash: str = ""
    use_prompt: bool  # flow prompt tokens + mel of the voice; False in sft
    stream: bool
    speed: float = 1.0
    seed: int = 0
    num_text_tokens: int = 0
    deadline: float = 0.0  # the request's; a segment that lives longer is nobody's any more. 0.0 = none
    times: StageTimes


class SequenceJob(Message, frozen=True, kw_only=True):
    """One segment for the LLM. Input rows: sos, text of `prompt_ids` + `text_ids`, task, prompt speech tokens."""

    key: str
    segment: int
    style: str
    prompt_ids: list[int]
    text_ids: list[int]
    voice_hash: str = ""
    use_prompt_speech: bool  # zero_shot only
    min_tokens: int
    max_tokens: int
    ignore_eos: bool = False
    seed: int
    sampling: Sampling
    deadline: float
    decoder: str  # identity of the decode process that takes the tokens
    decode: DecodeJob


# --- llm -> decode, llm -> router ---------------------------------------------------------------------------


class TokenDelta(Message, frozen=True, kw_only=True):
    """New speech tokens of one segment, in order. `finished` closes the segment, possibly without tokens."""

    key: str
    segment: int
    tokens: list[int]
    finished: bool = False
    times: StageTimes | None = None  # with `finished`


class SequenceFinished(Message, frozen=True, kw_only=True):
    """llm -> router: the sequence left the engine, its KV blocks are free."""

    key: str
    segment: int
    reason: FinishReason
    num_tokens: int
    error: ErrorInfo | None = None


# --- decode -> server, decode -> router ---------------------------------------------------------------------


class AudioChunk(Message, frozen=True, kw_only=True):
    """PCM, signed 16-bit little-endian mono, straight from a decoder to the HTTP process."""

    key: str
    segment: int
    index: int
    pcm: bytes
    sample_rate: int
    tokens: list[int]
    last: bool  # of the segment
    last_segment: bool
    num_text_tokens: int = 0
    times: StageTimes


class SegmentDecoded(Message, frozen=True, kw_only=True):
    key: str
    segment: int
    last_segment: bool
    audio_seconds: float
    error: ErrorInfo | None = None


# --- every process <-> router -------------------------------------------------------------------------------


class Hello(Message, frozen=True, kw_only=True):
    """First message of a process, once it can work (weights loaded, self-test spoken)."""

    identity: str
    pid: int


class Gauge(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    value: float


class Heartbeat(Message, frozen=True, kw_only=True):
    """Once a second from each stage: liveness, and its gauges (queue depth, in flight, batch size, KV use)."""

    identity: str
    pid: int = 0
    gauges: list[Gauge]


class DropVoices(Message, frozen=True, kw_only=True):
    """router -> llm, decode: forget mapped entries of these hashes (evicted or deleted)."""

    voice_hashes: list[str]


class PeerGone(Message, frozen=True, kw_only=True):
    """router -> stages: this process has exited for good: close the connection to it."""

    identity: str


class Shutdown(Message, frozen=True, kw_only=True):
    """router -> any process: finish what is running within the grace period, then exit 0."""


AnyMessage = (
    SpeechRequest
    | SegmentConsumed
    | Cancel
    | RequestReport
    | RegisterVoice
    | DeleteVoice
    | ListVoices
    | GetMetrics
    | GetStatus
    | Retiring
    | RequestFailed
    | Reply
    | EncodeText
    | TextEncoded
    | EncodeVoice
    | VoiceEncoded
    | DecodeJob
    | SequenceJob
    | TokenDelta
    | SequenceFinished
    | AudioChunk
    | SegmentDecoded
    | Hello
    | Heartbeat
    | DropVoices
    | PeerGone
    | Shutdown
)

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[AnyMessage])


def encode_messages(messages: list[AnyMessage]) -> bytes:
    """One wire frame from a batch of messages (a step of a stage sends one frame per destination)."""
    return _ENCODER.encode(messages)


def decode_messages(frame: bytes) -> list[AnyMessage]:
    """The messages of one wire frame, in order. Raises msgspec.ValidationError on anything else."""
    return _DECODER.decode(frame)
