"""Cutting a text into segments, and what is too long into pieces."""

from __future__ import annotations

import pytest

from ttsfleet_runtime.encode.split import Language, limit_segments, split_text


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    ("language", "text", "segments"),
    [
        ("en", "", []),
        ("en", "one", ["one."]),
        ("en", "one. two! three?", ["one. two! three?"]),
        ("en", "...", []),
        ("en", '."', ['".']),
        ("en", 'He said "go." She went.', ['He said "go." She went.']),
        ("zh", "你好", ["你好。"]),
        ("zh", "结尾、、", ["结尾、"]),
        ("zh", "他说：“你好。”然后走了。", ["他说：“你好。”然后走了。"]),
        ("en", "a " * 70 + ". " + "b " * 70 + ".", ["a " * 70 + ".", " " + "b " * 70 + "."]),
        ("en", "a " * 59 + ". " + "b " * 70 + ".", ["a " * 59 + ". " + "b " * 70 + "."]),
        ("en", "a " * 75 + ". " + "b " * 15 + ".", ["a " * 75 + ". " + "b " * 15 + "."]),
        ("zh", "字" * 61 + "。" + "字" * 30 + "。", ["字" * 61 + "。", "字" * 30 + "。"]),
    ],
)
def test_sentences_are_merged_to_between_60_and_80_units(language: Language, text: str, segments: list[str]) -> None:
    assert split_text(text, language, words) == segments


def test_a_long_sentence_is_cut_at_a_comma_or_space_and_nothing_is_lost() -> None:
    sentence = "alpha beta, " * 30
    pieces = limit_segments([sentence], 10, words)
    assert "".join(pieces) == sentence
    assert all(words(piece) <= 10 for piece in pieces)
    assert all(piece.endswith(" ") for piece in pieces)


def test_a_word_without_any_break_is_cut_anywhere() -> None:
    pieces = limit_segments(["x" * 100], 30, len)
    assert [len(piece) for piece in pieces] == [30, 30, 30, 10]


def test_segments_within_the_limit_stay_as_they_are() -> None:
    assert limit_segments(["one two.", "three."], 10, words) == ["one two.", "three."]
