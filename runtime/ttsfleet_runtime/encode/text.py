"""From the text of a request to token ids per segment: normalise, split, limit, tokenise; by mode.

The mode decides what becomes of the prompt text: a transcript (zero_shot) is normalised, an instruction (instruct2)
is closed with `<|endofprompt|>` and otherwise taken as it is, the other modes have none. A job that cannot be encoded
gets its error and does not disturb the others of its batch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.plan import LimitsPlan
from ttsfleet_runtime.encode.normalize import TextNormalizer
from ttsfleet_runtime.encode.special_tokens import END_OF_PROMPT
from ttsfleet_runtime.encode.split import limit_segments
from ttsfleet_runtime.encode.tokenizer import TextTokenizer
from ttsfleet_runtime.encode.verbalize import Verbalizer
from ttsfleet_runtime.errors import InvalidRequestError, TTSFleetError
from ttsfleet_runtime.messages import EncodeText, Mode, TextEncoded

logger = logging.getLogger(__name__)

MAX_SEGMENT_TOKENS = 160
"""A sentence without a cut mark is cut beyond this: about 40 s of speech, more than the models were trained on."""


@dataclass(frozen=True)
class _Prepared:
    """What is to be tokenised of one job."""

    job: EncodeText
    segments: list[str]
    prompt: str


class TextEncoder:
    """Encodes texts for one model. Not for use from several threads."""

    def __init__(self, tokenizer: TextTokenizer, normalizer: TextNormalizer, limits: LimitsPlan) -> None:
        self._tokenizer = tokenizer
        self._normalizer = normalizer
        self._limits = limits

    @classmethod
    def for_model(cls, model: ModelInfo, limits: LimitsPlan) -> TextEncoder:
        """Raises CheckpointError when the model's tokenizer cannot be loaded."""
        tokenizer = TextTokenizer.from_directory(Path(model.model_dir) / model.tokenizer_dir, model.version)
        return cls(tokenizer, TextNormalizer(tokenizer.count, Verbalizer()), limits)

    def encode_batch(self, jobs: Sequence[EncodeText]) -> list[TextEncoded]:
        """One answer per job, in order; all texts of the batch go through the tokenizer in one call."""
        answers: dict[int, TextEncoded] = {}
        prepared: dict[int, _Prepared] = {}
        for index, job in enumerate(jobs):
            try:
                prepared[index] = self._prepare(job)
            except TTSFleetError as error:
                answers[index] = TextEncoded(key=job.key, error=error.info())
            except Exception:  # a bug met by one text must not take the process and its neighbours down
                logger.exception("encoding the text of %s failed", job.key)
                error_info = TTSFleetError("the text could not be encoded: an internal error, see the log").info()
                answers[index] = TextEncoded(key=job.key, error=error_info)
        texts = [text for item in prepared.values() for text in (*item.segments, item.prompt)]
        ids = iter(self._tokenizer.encode_batch(texts))
        for index, item in prepared.items():
            segments = [next(ids) for _ in item.segments]
            answers[index] = _answer(item.job, segments, next(ids))
        return [answers[index] for index in range(len(jobs))]

    def _prepare(self, job: EncodeText) -> _Prepared:
        _check_length(job.text, self._limits.input_chars, "input", "limits.input_chars")
        prompt_param = "instructions" if job.mode is Mode.INSTRUCT2 else "ref_text"
        _check_length(job.prompt_text, self._limits.prompt_text_chars, prompt_param, "limits.prompt_text_chars")
        segments = self._normalizer.segments(_whole_characters(job.text))
        return _Prepared(
            job,
            limit_segments(segments, MAX_SEGMENT_TOKENS, self._tokenizer.count),
            self._prompt(job.mode, _whole_characters(job.prompt_text)),
        )

    def _prompt(self, mode: Mode, text: str) -> str:
        match mode:
            case Mode.SFT | Mode.CROSS_LINGUAL:
                return ""
            case Mode.ZERO_SHOT if not text:
                return ""  # a voice of the model: its transcript is tokenised already, the router knows the ids
            case Mode.ZERO_SHOT:
                transcript = self._normalizer.normalize(text).strip()
                if not transcript:
                    raise InvalidRequestError(
                        "mode zero_shot needs the transcript of the prompt audio: send ref_text or use cross_lingual",
                        param="ref_text",
                    )
                return transcript
            case Mode.INSTRUCT2:
                if not text.removesuffix(END_OF_PROMPT).strip():
                    raise InvalidRequestError("mode instruct2 needs instructions", param="instructions")
                return text if END_OF_PROMPT in text else text + END_OF_PROMPT


def _answer(job: EncodeText, segments: list[list[int]], prompt_ids: list[int]) -> TextEncoded:
    spoken = [ids for ids in segments if ids]
    if not spoken:
        nothing = InvalidRequestError(
            "there is nothing to speak in the input: only white space, punctuation or symbols", param="input"
        )
        return TextEncoded(key=job.key, error=nothing.info())
    return TextEncoded(key=job.key, segments=spoken, prompt_ids=prompt_ids)


def _check_length(text: str, limit: int, param: str, setting: str) -> None:
    if len(text) > limit:
        raise InvalidRequestError(
            f"{param} has {len(text)} characters; at most {limit} are accepted ({setting})", param=param
        )


def _whole_characters(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates, which no tokenizer takes, left out."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
