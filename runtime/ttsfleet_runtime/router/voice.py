"""What the router knows of a voice, and which mode a request with it runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ttsfleet_runtime.errors import InvalidRequestError
from ttsfleet_runtime.messages import Mode, SpeechRequest


@dataclass(frozen=True)
class Voice:
    """A voice by name, or the recording of one request.

    `prompt_ids` are the transcript's tokens of a voice that ships with the model. `sft_hash` is the entry for mode
    sft where the model brings another speaker vector for it; empty = the same. `audio` gives the recording when the
    entry must be computed; it raises TTSFleetError when the recording cannot be read.
    """

    name: str
    voice_hash: str
    has_prompt: bool
    sft_hash: str = ""
    prompt_text: str = ""
    prompt_ids: tuple[int, ...] | None = None
    audio: Callable[[], bytes] = bytes

    @property
    def has_transcript(self) -> bool:
        return bool(self.prompt_text.strip()) or self.prompt_ids is not None

    def entry_hash(self, mode: Mode) -> str:
        """The entry that this mode uses."""
        return self.sft_hash or self.voice_hash if mode is Mode.SFT else self.voice_hash


def choose_mode(request: SpeechRequest, voice: Voice) -> Mode:
    """The asked mode, or: instructions -> instruct2, a prompt with its transcript -> zero_shot, a prompt alone ->
    cross_lingual, else sft. Raises InvalidRequestError when the voice lacks what the mode needs."""
    mode = request.mode or _natural_mode(request, voice)
    if mode is Mode.SFT:
        return mode
    if not voice.has_prompt:
        raise _lacks(mode, voice, "a prompt recording")
    if mode is Mode.ZERO_SHOT and not voice.has_transcript:
        raise _lacks(mode, voice, "the prompt's transcript (ref_text)")
    if mode is Mode.INSTRUCT2 and not request.instructions.strip():
        raise InvalidRequestError("mode instruct2 needs `instructions`", param="instructions")
    return mode


def prompt_text(mode: Mode, request: SpeechRequest, voice: Voice) -> str:
    """The text that the encoder must turn into prompt tokens; empty = none, or known already."""
    if mode is Mode.INSTRUCT2:
        return request.instructions
    return voice.prompt_text if mode is Mode.ZERO_SHOT and voice.prompt_ids is None else ""


def _natural_mode(request: SpeechRequest, voice: Voice) -> Mode:
    if request.instructions.strip():
        return Mode.INSTRUCT2
    if voice.has_prompt:
        return Mode.ZERO_SHOT if voice.has_transcript else Mode.CROSS_LINGUAL
    return Mode.SFT


def _lacks(mode: Mode, voice: Voice, needed: str) -> InvalidRequestError:
    name = repr(voice.name) if voice.name else "of this request"
    return InvalidRequestError(
        f"mode {mode.value} needs {needed}, which the voice {name} does not have", param="mode"
    )
