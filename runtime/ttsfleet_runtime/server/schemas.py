"""What a client may send to `/v1/audio/speech`, checked, and its translation into a `SpeechRequest`.

The pydantic model holds what is true of a field by itself; `SpeechBody.check` holds limits and combinations, whose
errors name the setting and the way out. Unknown fields are refused: a misspelt `ignore_eos` must not pass silently.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ttsfleet_runtime.audio.formats import AudioFormat
from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.errors import InvalidRequestError
from ttsfleet_runtime.messages import MAX_TOP_K, Mode, Sampling
from ttsfleet_runtime.server.errors import invalid_request

MAX_SEED = 2**63 - 1
_RANDOM_SEED_BITS = 31


class VoiceReference(BaseModel):
    """OpenAI's voice object."""

    model_config = ConfigDict(extra="ignore")
    id: Annotated[str, Field(min_length=1)]


class SpeechBody(BaseModel):
    """Body of POST /v1/audio/speech: OpenAI's fields, then ours."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str | None = Field(default=None, description="Model id, style name or one of OpenAI's model names")
    input: str = Field(description="The text to speak")
    voice: str | VoiceReference | None = Field(
        default=None, description='A voice of /v1/voices or an OpenAI voice name, as a string or as {"id": name}'
    )
    instructions: str | None = Field(default=None, description="How to speak; selects mode instruct2")
    response_format: AudioFormat = Field(default=AudioFormat.MP3, description="Encoding of the audio")
    speed: float = Field(default=1.0, ge=0.25, le=4.0, description="Playback speed; not with streaming")
    stream_format: Literal["audio", "sse"] | None = Field(
        default=None, description="Stream as raw audio or as server-sent events"
    )

    stream: bool | None = Field(default=None, description="Stream raw audio, as stream_format audio does")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="Fixes the audio; random when absent")
    style: str | None = Field(default=None, description="LLM weights to use; the model's first style when absent")
    mode: Literal["auto", "sft", "zero_shot", "cross_lingual", "instruct2"] = Field(
        default="auto", description="auto: instruct2 with instructions, zero_shot if the voice has a prompt, else sft"
    )
    top_p: float | None = Field(default=None, gt=0, le=1, description="Nucleus of the first draw")
    top_k: int | None = Field(default=None, ge=1, le=MAX_TOP_K, description="Candidates of the first draw")
    win_size: int | None = Field(default=None, ge=1, le=10, description="Window of the repetition check, tokens")
    tau_r: float | None = Field(default=None, ge=0, le=1, description="Repetition threshold as a share of win_size")
    max_tokens: int | None = Field(default=None, ge=1, description="At most this many speech tokens per segment")
    ignore_eos: bool = Field(default=False, description="Speak max_tokens tokens whatever the model says: benchmarks")
    return_tokens: bool = Field(default=False, description="Speech token ids in the SSE done event")
    ref_audio: str | None = Field(default=None, min_length=1, description="Recording to clone: a URL or base64")
    ref_text: str = Field(default="", description="What the recording says")

    @field_validator("voice", mode="before")
    @classmethod
    def _name_or_reference(cls, voice: object) -> object:
        """One message for all that is wrong with a voice, in place of one per alternative of the union."""
        named = (
            isinstance(voice.get("id"), str) and voice["id"] if isinstance(voice, dict) else isinstance(voice, str)
        )
        if voice is not None and not named:
            raise ValueError('must be the name of a voice, as a string or as {"id": name}')
        return voice

    @property
    def streamed(self) -> bool:
        """Whether the audio is generated in chunks and sent as it comes."""
        return self.stream_format is not None or self.stream is True or self.response_format is AudioFormat.PCM

    @property
    def voice_name(self) -> str:
        """The voice as asked; empty when none was given."""
        return self.voice.id if isinstance(self.voice, VoiceReference) else self.voice or ""

    @property
    def requested_mode(self) -> Mode | None:
        """None = the router chooses, since it knows the voice."""
        return None if self.mode == "auto" else Mode(self.mode)

    def seed_or_random(self) -> int:
        return secrets.randbits(_RANDOM_SEED_BITS) if self.seed is None else self.seed

    def sampling(self, model: ModelInfo) -> Sampling | None:
        """The model's sampling with the given overrides; None when there are none."""
        if (self.top_p, self.top_k, self.win_size, self.tau_r) == (None, None, None, None):
            return None
        return Sampling(
            top_p=model.sampling_top_p if self.top_p is None else self.top_p,
            top_k=model.sampling_top_k if self.top_k is None else self.top_k,
            win_size=model.sampling_win_size if self.win_size is None else self.win_size,
            tau_r=model.sampling_tau_r if self.tau_r is None else self.tau_r,
        )

    def check(self, plan: EnginePlan) -> None:
        """Limits and combinations. Raises InvalidRequestError."""
        self._check_lengths(plan)
        self._check_voice()
        if self.streamed and self.speed != 1.0:
            how = "response_format pcm is always streamed" if self.response_format is AudioFormat.PCM else "streaming"
            raise InvalidRequestError(
                f"speed {self.speed:g} cannot be combined with streaming ({how}): leave speed at 1, or ask for "
                "mp3, opus, aac, flac or wav without stream and stream_format",
                param="speed",
            )
        if self.return_tokens and self.stream_format != "sse":
            raise InvalidRequestError(
                "return_tokens puts the token ids into the SSE done event: add stream_format sse "
                "(without it, X-Speech-Tokens-SHA256 of a whole answer identifies them)",
                param="return_tokens",
            )

    def _check_lengths(self, plan: EnginePlan) -> None:
        limits = plan.limits
        if not self.input.strip():
            raise InvalidRequestError("`input` is empty: give the text to speak", param="input")
        if len(self.input) > limits.input_chars:
            raise InvalidRequestError(
                f"`input` has {len(self.input)} characters; at most {limits.input_chars} are accepted "
                "(limits.input_chars): split it over several requests",
                param="input",
            )
        for name, text in (("ref_text", self.ref_text), ("instructions", self.instructions or "")):
            if len(text) > limits.prompt_text_chars:
                raise InvalidRequestError(
                    f"`{name}` has {len(text)} characters; at most {limits.prompt_text_chars} are accepted "
                    "(limits.prompt_text_chars)",
                    param=name,
                )
        if self.max_tokens is not None and self.max_tokens > plan.max_req_total_len:
            raise InvalidRequestError(
                f"`max_tokens` is {self.max_tokens}; at most {plan.max_req_total_len} are possible "
                "(max_req_total_len)",
                param="max_tokens",
            )

    def _check_voice(self) -> None:
        has_instructions = bool((self.instructions or "").strip())
        if self.ref_audio is None:
            if not self.voice_name:
                raise InvalidRequestError(
                    "`voice` is required: a name from GET /v1/voices; or send ref_audio to clone a recording",
                    param="voice",
                )
            if self.ref_text:
                raise InvalidRequestError("`ref_text` is the transcript of ref_audio: send both", param="ref_text")
        if has_instructions and self.mode not in ("auto", "instruct2"):
            raise InvalidRequestError(
                f"`instructions` are only followed in mode instruct2, not {self.mode}: leave out one of the two",
                param="instructions",
            )
        if self.mode == "instruct2" and not has_instructions:
            raise InvalidRequestError("mode instruct2 needs `instructions`", param="instructions")
        if self.mode == "zero_shot" and self.ref_audio is not None and not self.ref_text.strip():
            raise InvalidRequestError(
                "mode zero_shot needs `ref_text`, the transcript of ref_audio; without one use cross_lingual",
                param="ref_text",
            )


def parse_speech_body(body: bytes, plan: EnginePlan) -> SpeechBody:
    """Parse and check a body. Raises InvalidRequestError that names the field, the value and the remedy."""
    try:
        parsed = SpeechBody.model_validate_json(body)
    except ValidationError as error:
        raise invalid_request(error) from error
    parsed.check(plan)
    return parsed
