"""From an encoded request to the LLM's jobs: lengths, seeds and what each mode feeds. Pure.

What a mode feeds to the LLM and to the flow is tests/goldens/FORMAT.md, section 6; the token bounds section 7; the
flow's fixed noise section 12.
"""

from __future__ import annotations

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.errors import InvalidRequestError
from ttsfleet_runtime.messages import (
    DecodeJob,
    Mode,
    Sampling,
    SequenceJob,
    SpeechRequest,
    StageTimes,
    TextEncoded,
)
from ttsfleet_runtime.router.voice import Voice

MIN_TOKENS_PER_TEXT_TOKEN = 2
MAX_TOKENS_PER_TEXT_TOKEN = 20

MAX_FLOW_FRAMES = 15000
"""(prompt + generated tokens) x token_mel_ratio must stay within the flow's fixed noise."""

_SPECIAL_ROWS = 2  # sos and task


class JobFactory:
    """Makes the jobs of one model under one plan."""

    def __init__(self, plan: EnginePlan, model: ModelInfo) -> None:
        self._plan = plan
        self._model = model
        self._sampling = Sampling(
            top_p=model.sampling_top_p,
            top_k=model.sampling_top_k,
            win_size=model.sampling_win_size,
            tau_r=model.sampling_tau_r,
        )

    def segment(
        self,
        request: SpeechRequest,
        mode: Mode,
        voice: Voice,
        text: TextEncoded,
        segment: int,
        *,
        num_prompt_tokens: int,
        decoder: str,
        encoded_at: float,
    ) -> SequenceJob:
        """The job of one segment of the text. Raises InvalidRequestError when it cannot fit."""
        text_ids = text.segments[segment]
        with_prompt_speech = mode is Mode.ZERO_SHOT
        prompt_ids = list(voice.prompt_ids or text.prompt_ids) if with_prompt_speech else text.prompt_ids
        num_rows = len(prompt_ids) + len(text_ids) + (num_prompt_tokens if with_prompt_speech else 0)
        max_tokens = self._max_tokens(request, len(text_ids), num_rows + _SPECIAL_ROWS, num_prompt_tokens)
        min_tokens = min(MIN_TOKENS_PER_TEXT_TOKEN * len(text_ids), max_tokens)
        voice_hash = voice.entry_hash(mode)
        return SequenceJob(
            key=request.key,
            segment=segment,
            style=request.style or self._model.styles[0],
            prompt_ids=prompt_ids,
            text_ids=text_ids,
            voice_hash=voice_hash,
            use_prompt_speech=with_prompt_speech,
            min_tokens=max_tokens if request.ignore_eos else min_tokens,
            max_tokens=max_tokens,
            ignore_eos=request.ignore_eos,
            seed=request.seed,
            sampling=request.sampling or self._sampling,
            deadline=request.deadline,
            decoder=decoder,
            decode=DecodeJob(
                key=request.key,
                segment=segment,
                last_segment=segment == len(text.segments) - 1,
                reply_to=request.reply_to,
                voice_hash=voice_hash,
                use_prompt=mode is not Mode.SFT,
                stream=request.stream,
                speed=request.speed,
                seed=request.seed,
                num_text_tokens=len(text_ids),
                deadline=request.deadline,
                times=StageTimes(received=request.received, encoded=encoded_at),
            ),
        )

    def _max_tokens(self, request: SpeechRequest, num_text: int, num_rows: int, num_prompt_tokens: int) -> int:
        """Speech tokens that this segment may have: asked or by the text's length, within positions and noise."""
        max_tokens = min(
            request.max_tokens or MAX_TOKENS_PER_TEXT_TOKEN * num_text,
            self._plan.max_req_total_len - num_rows,
            MAX_FLOW_FRAMES // self._model.flow.token_mel_ratio - num_prompt_tokens,
        )
        if max_tokens < 1:
            raise InvalidRequestError(
                f"the text, its prompt and one token of speech need {num_rows + 1} positions; "
                f"max_req_total_len is {self._plan.max_req_total_len}: shorten the prompt or the text",
                param="input",
            )
        return max_tokens
