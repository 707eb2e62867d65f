"""Text-in streaming: which rows the LM reads."""

from __future__ import annotations

import random

import pytest

from ttsfleet_runtime.llm.bistream import BistreamComposer, StreamedPrompt
from ttsfleet_runtime.llm.sequence import Vocabulary
from ttsfleet_runtime.messages import FinishReason

FILL = 102
EOS = 100
VOCABULARY = Vocabulary(
    sos_row=1000,
    task_row=1001,
    speech_offset=1002,
    num_text_rows=1000,
    num_codes=100,
    eos_id=EOS,
    fill_id=FILL,
    masked_before_min=EOS,
    stop_ids=frozenset({100, 101, 102}),
)


def composer(text: int = 0, speech: int = 0, instruct: int = 0) -> BistreamComposer:
    prompt = StreamedPrompt(
        instruct_ids=tuple(range(900, 900 + instruct)),
        text_ids=tuple(range(800, 800 + text)),
        speech=tuple(range(speech)),
    )
    return BistreamComposer(VOCABULARY, (5, 15), prompt)


def speak(source: BistreamComposer, tokens: int) -> None:
    for _ in range(tokens):
        assert source.accept(3).emitted == 3


def test_without_a_prompt_five_text_tokens_begin() -> None:
    source = composer()
    source.add_text([1, 2, 3, 4])
    assert source.take_rows() == []
    source.add_text([5])
    assert source.take_rows() == [1000, 1, 2, 3, 4, 5]


def test_a_prompt_is_laid_out_five_to_fifteen() -> None:
    source = composer(text=4, speech=18)
    source.add_text([1, 2, 3, 4, 5, 6])
    rows = source.take_rows()
    speech = [1002 + token for token in range(18)]
    assert rows == [1000, 800, 801, 802, 803, 1, *speech[:15], 2, 3, 4, 5, 6, *speech[15:]]


def test_a_prompt_waits_for_text_that_is_to_be_spoken() -> None:
    source = composer(text=20, speech=15)
    assert source.take_rows() == []
    source.add_text([1])
    assert source.take_rows() != []


@pytest.mark.parametrize(("speech", "outputs_before_fill"), [(0, 15), (30, 15), (37, 8), (44, 1)])
def test_fill_is_forced_where_the_pattern_is_full(speech: int, outputs_before_fill: int) -> None:
    source = composer(text=20, speech=speech)
    source.add_text([1, 2, 3, 4, 5])
    source.take_rows()
    speak(source, outputs_before_fill)
    assert source.forces_next
    accepted = source.accept(9)
    assert (accepted.output, accepted.emitted, accepted.resample) == (FILL, None, True)


def test_a_sampled_fill_restarts_the_count() -> None:
    source = composer()
    source.add_text(list(range(20)))
    source.take_rows()
    speak(source, 4)
    assert source.accept(FILL).resample
    assert source.take_rows() == [5, 6, 7, 8, 9]
    speak(source, 15)
    assert source.forces_next


def test_after_fill_it_waits_for_five_text_tokens() -> None:
    source = composer()
    source.add_text([1, 2, 3, 4, 5, 6])
    source.take_rows()
    source.accept(FILL)
    assert source.take_rows() == []
    source.add_text([7, 8, 9, 10])
    assert source.take_rows() == [6, 7, 8, 9, 10]


def test_the_end_of_the_text_feeds_the_last_call_again_then_the_rest() -> None:
    source = composer()
    source.add_text([1, 2, 3, 4, 5, 6])
    source.take_rows()
    speak(source, 2)
    source.accept(FILL)
    source.close()
    assert source.take_rows() == [1002 + 3, 6, 1001]
    assert not source.masked


def test_five_tokens_that_are_there_are_spoken_before_the_end() -> None:
    source = composer()
    source.add_text(list(range(12)))
    source.close()
    assert source.take_rows() == [1000, 0, 1, 2, 3, 4]
    source.accept(FILL)
    assert source.take_rows() == [5, 6, 7, 8, 9]
    source.accept(FILL)
    assert source.take_rows() == [5, 6, 7, 8, 9, 10, 11, 1001]


@pytest.mark.parametrize(
    ("closed", "sampled", "finish"),
    [(True, EOS, FinishReason.EOS), (True, FILL, FinishReason.ERROR), (False, 101, FinishReason.ERROR)],
)
def test_ids_beyond_the_codes_end_it(closed: bool, sampled: int, finish: FinishReason) -> None:
    source = composer()
    source.add_text([1, 2, 3, 4] if closed else [1, 2, 3, 4, 5])
    if closed:
        source.close()
    source.take_rows()
    accepted = source.accept(sampled)
    assert (accepted.finish, accepted.emitted) == (finish, None)


def drive(pieces: list[list[int]], eager: bool, seed: int) -> tuple[list[list[int]], list[int]]:
    """Calls and outputs for text that arrives token by token (eager) or all before the first sample."""
    chance = random.Random(seed)
    source = composer(text=7, speech=20)
    calls: list[list[int]] = []
    outputs: list[int] = []

    def go_on() -> None:
        while rows := source.take_rows():
            calls.append(rows)
            while True:
                if not source.masked and len(outputs) > 150:
                    return
                accepted = source.accept(FILL if source.masked and chance.random() < 0.05 else chance.randrange(100))
                outputs.append(accepted.output)
                if accepted.resample:
                    break

    for piece in pieces:
        for token in piece:
            source.add_text([token])
            if eager:
                go_on()
    if eager:
        go_on()
    source.close()
    go_on()
    return calls, outputs


def test_rows_do_not_depend_on_how_fast_the_text_arrives() -> None:
    pieces = [list(range(10, 18)), [20], list(range(30, 45))]
    for seed in range(20):
        assert drive(pieces, True, seed) == drive(pieces, False, seed)
