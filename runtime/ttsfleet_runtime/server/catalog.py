"""Names that clients use for models and voices, and what they mean here. Pure.

OpenAI's names are aliases, so a program written for OpenAI runs unchanged: its models mean the default style, its
voices are dealt out over the voices that are served, always in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.errors import InvalidRequestError, NotFoundError
from ttsfleet_runtime.messages import VoiceInfo

OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15")
OPENAI_VOICES = (
    "alloy",
    "ash",
    "ballad",
    "coral",
    "echo",
    "fable",
    "onyx",
    "nova",
    "sage",
    "shimmer",
    "verse",
    "marin",
    "cedar",
)


def model_ids(model: ModelInfo) -> list[str]:
    """Every id that `model` may be in a request: the model's name, its styles, OpenAI's names."""
    return list(dict.fromkeys([model.name, *model.styles, *OPENAI_MODELS]))


def style_of(model: ModelInfo, requested_model: str | None, requested_style: str | None) -> str:
    """The style that a request asks for by `model`, `style` or both.

    Raises NotFoundError for a name that is not served, InvalidRequestError when the two contradict each other.
    """
    if requested_style is not None and requested_style not in model.styles:
        raise NotFoundError(
            f"style {requested_style!r} does not exist; there are: {', '.join(model.styles)}", param="style"
        )
    if requested_model is not None and requested_model in model.styles:
        if requested_style not in (None, requested_model):
            raise InvalidRequestError(
                f"model {requested_model!r} and style {requested_style!r} are different styles: give one of them",
                param="style",
            )
        return requested_model
    if requested_model is not None and requested_model not in model_ids(model):
        raise NotFoundError(
            f"model {requested_model!r} does not exist; there are: {', '.join(model_ids(model))}", param="model"
        )
    return requested_style or model.styles[0]


def served_voice(requested: str, voices: Iterable[VoiceInfo]) -> str:
    """The served voice that an alias of OpenAI's means; any other name stays as it is.

    A served voice of that very name wins. Otherwise the aliases go round the model's own voices by name, or, for a
    model without any, round the registered ones. Raises NotFoundError when there is no voice at all.
    """
    if requested not in OPENAI_VOICES:
        return requested
    infos = list(voices)
    if any(info.name == requested for info in infos):
        return requested
    candidates = sorted(info.name for info in infos if info.kind == "builtin")
    candidates = candidates or sorted(info.name for info in infos)
    if not candidates:
        raise NotFoundError(
            f"voice {requested!r} stands for a served voice, and there is none yet: register one with "
            "POST /v1/voices, or send ref_audio",
            param="voice",
        )
    return candidates[OPENAI_VOICES.index(requested) % len(candidates)]
