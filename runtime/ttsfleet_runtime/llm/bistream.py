"""Which rows the LM reads when its text arrives in pieces. Pure: no torch, no clock, no scheduler.

Text and speech are mixed 5 : 15 (`mix_ratio`). First the prompt is laid out in that pattern; then, for every 5
text tokens, the LM speaks until it samples *fill* ("give me text"), or until 15 outputs have passed since the
last one, when fill is forced. After the last piece: the rest of the text, the task row, and speech until eos.

Two properties of the reference are kept, because the released models are driven that way: fill is recorded in the
history but never fed; and when the text ends right after a fill, the rows of the last call are fed once more in
front of the rest of the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ttsfleet_runtime.llm.sequence import Accepted, Vocabulary
from ttsfleet_runtime.messages import FinishReason


class _Phase(Enum):
    PROMPT = "prompt"  # nothing spoken yet; laying out the prompt
    SPEAKING = "speaking"  # sampling until fill
    LISTENING = "listening"  # after fill: text is needed
    CLOSING = "closing"  # all text is in; sampling until eos


@dataclass(frozen=True, slots=True)
class StreamedPrompt:
    """`instruct_ids`: prompt text that precedes everything (v3: up to and with <|endofprompt|>; v2: none)."""

    instruct_ids: tuple[int, ...] = ()
    text_ids: tuple[int, ...] = ()
    speech: tuple[int, ...] = ()


class BistreamComposer:
    """The state machine of one streamed sequence; a `RowSource` for its `Sequence`.

    `add_text` and `close` may be called at any time. Text that arrives faster than speech waits, so the rows do
    not depend on timing.
    """

    def __init__(self, vocabulary: Vocabulary, mix_ratio: tuple[int, int], prompt: StreamedPrompt) -> None:
        self._vocabulary = vocabulary
        self._mix_text, self._mix_speech = mix_ratio
        self._text: list[int] = list(prompt.text_ids)
        self._speech = [vocabulary.speech_row(token) for token in prompt.speech]
        self._pending = [vocabulary.sos_row, *prompt.instruct_ids]
        self._last_call: list[int] = []
        self._phase = _Phase.PROMPT
        self._closed = False
        self._started = False
        self._num_outputs = 0
        blocks = len(prompt.speech) // self._mix_speech + 1
        self._next_fill = blocks * self._mix_speech - len(prompt.speech)

    @property
    def masked(self) -> bool:
        """Before the text is complete, eos (v2) is masked: it must not end what is still being written."""
        return self._phase is not _Phase.CLOSING

    @property
    def forces_next(self) -> bool:
        """The next sample will be overruled by fill, whatever it is."""
        return self._phase is not _Phase.CLOSING and self._num_outputs == self._next_fill

    def add_text(self, ids: list[int]) -> None:
        assert not self._closed
        self._text += ids
        self._started = self._started or bool(ids)

    def close(self) -> None:
        self._closed = True

    def take_rows(self) -> list[int]:
        """Rows of the next LM call when it is not simply the last output; empty = wait for text."""
        if self._phase is _Phase.PROMPT:
            rows = self._lay_out_prompt()
        elif self._phase is _Phase.LISTENING:
            rows = self._take_text()
        else:
            rows = []
        if not rows and self._closed and self._phase is not _Phase.CLOSING:
            stale = self._pending if self._phase is _Phase.PROMPT else self._last_call
            rows = [*stale, *self._text, self._vocabulary.task_row]
            self._text = []
            self._phase = _Phase.CLOSING
        elif rows:
            self._phase = _Phase.SPEAKING
        if rows:
            self._last_call = rows
        return rows

    def accept(self, output: int) -> Accepted:
        """Record one sampled id. In the speaking phase the id may be overruled by the forced fill."""
        vocabulary = self._vocabulary
        if self._phase is _Phase.CLOSING:
            if output == vocabulary.eos_id:
                return Accepted(output=output, finish=FinishReason.EOS)
        elif self.forces_next or output == vocabulary.fill_id:
            self._num_outputs += 1
            self._next_fill = self._num_outputs + self._mix_speech
            self._phase = _Phase.LISTENING
            return Accepted(output=vocabulary.fill_id, resample=True)
        if output >= vocabulary.num_codes:
            return Accepted(output=output, finish=FinishReason.ERROR)
        self._num_outputs += 1
        self._last_call = [vocabulary.speech_row(output)]
        return Accepted(output=output, emitted=output)

    def _lay_out_prompt(self) -> list[int]:
        if not self._started:
            return []
        while self._speech:
            if len(self._text) < self._mix_text:
                return []
            self._pending += self._text[: self._mix_text] + self._speech[: self._mix_speech]
            del self._text[: self._mix_text], self._speech[: self._mix_speech]
        if len(self._pending) > 1:
            return list(self._pending)
        text = self._take_text()
        return [*self._pending, *text] if text else []

    def _take_text(self) -> list[int]:
        if len(self._text) < self._mix_text:
            return []
        taken = self._text[: self._mix_text]
        del self._text[: self._mix_text]
        return taken
