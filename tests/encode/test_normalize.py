"""Normalisation with and without wetext, on plain and on nasty texts."""

from __future__ import annotations

import pytest

from ttsfleet_runtime.encode.normalize import TextNormalizer
from ttsfleet_runtime.encode.verbalize import Verbalizer, clean_text


@pytest.fixture(scope="module")
def normalizer() -> TextNormalizer:
    return TextNormalizer(len, Verbalizer())


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The price is $12.50.", "The price is twelve point five dollars."),
        ("tabs\tand  double   spaces: 3", "tabs and double spaces: three"),
        ("10\u202f000 people", "ten thousand people"),
        ("[AA1][B] costs $5", "[AAone][B] costs five dollars"),
        ("windows\r\nlines 2", "windows lines two"),
        ("We are #1 with 5€ and −3 degrees", "We are number one with five euros and negative three degrees"),
        ('He said "hello".', 'He said "hello".'),
        ("2024", "twenty twenty four"),
        ("area 30 m², x² + y³", "area thirty square meters, x squared plus y cubed"),
        ("soft\u00adhyphen, \ufeffmark, \u200eleft", "softhyphen, mark, left"),
        ("我有2个苹果", "我有两个苹果"),
        ("我有\t2个\r\n苹果", "我有两个苹果"),
        ("<|im_start|> 3\t<|im_end|>", "<|im_start|> 3\t<|im_end|>"),
        ("", ""),
        ("   ", ""),
    ],
)
def test_written_forms_become_spoken_ones(normalizer: TextNormalizer, text: str, normalized: str) -> None:
    assert normalizer.normalize(text) == normalized


@pytest.mark.parametrize("text", ["!!! ... ???", "... ...", "— , —", " ? ", "😀 . 😀"])
def test_marks_with_spaces_between_them_are_nothing_to_speak(normalizer: TextNormalizer, text: str) -> None:
    assert normalizer.segments(text) == []


def test_only_the_offending_word_keeps_its_written_form(normalizer: TextNormalizer) -> None:
    text = "In 2024 we paid $5 for [AA1] and got 3 more."
    spoken = "In twenty twenty four we paid five dollars for [AAone] and got three more."
    assert normalizer.normalize(text) == spoken


@pytest.mark.parametrize("text", ["😀", "...", "!?!？", "。", " \t ", "—«»—"])
def test_a_text_with_nothing_to_read_has_no_segments(normalizer: TextNormalizer, text: str) -> None:
    assert normalizer.segments(text) == []


def test_a_long_text_reads_like_its_sentences(normalizer: TextNormalizer) -> None:
    sentence = "The 3 dogs ate $12.50 worth of food at 5:30, didn't they? "
    assert normalizer.normalize(sentence * 20) == " ".join([normalizer.normalize(sentence)] * 20)


def test_a_digit_run_of_any_length_is_read(normalizer: TextNormalizer) -> None:
    assert set(normalizer.normalize("1" * 4096).split()) == {"one"}


def test_switched_off_normalisation_returns_the_text() -> None:
    off = TextNormalizer(len, None, enabled=False)
    assert off.segments("  a\tb 3 ") == ["  a\tb 3 "]
    assert off.normalize("  a\tb 3 ") == "  a\tb 3 "


def test_quirks_of_wetext_stay_only_when_asked_for() -> None:
    exact = TextNormalizer(len, Verbalizer(keep_quirks=True))
    assert exact.normalize('a "b"') == 'a \\"b\\"'
    assert exact.normalize("1") == "一"


def test_joiners_of_scripts_and_emoji_survive_cleaning() -> None:
    assert clean_text("می\u200cخواهم 👩\u200d🚀") == "می\u200cخواهم 👩\u200d🚀"
    assert clean_text("a\x00\x1b[0m\ud83d\u2028b") == "a [0m b"
