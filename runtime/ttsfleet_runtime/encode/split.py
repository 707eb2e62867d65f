"""Cuts a normalised text into segments that are synthesised one after the other. Pure string rules.

`split_text` reproduces the reference: cut at sentence marks, then merge greedily to between 60 and 80 units, where a
unit is a character in Chinese and a token in English. It never cuts inside a sentence, so one sentence of any length
stays whole; `limit_segments` then cuts what is too long for the models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

Language = Literal["zh", "en"]
Length = Callable[[str], int]

MAX_UNITS = 80
MIN_UNITS = 60
SHORT_TAIL_UNITS = 20

_CUT_MARKS: dict[Language, str] = {"zh": "。？！；：、.?!;", "en": ".?!;:"}
_FULL_STOP: dict[Language, str] = {"zh": "。", "en": "."}
_CLOSING_QUOTES = '"”'

_SOFT_BREAK = re.compile(r"[,，、—–\)）]\s*|\s+")


def split_text(text: str, language: Language, count_tokens: Length) -> list[str]:
    """Segments of `text`; a final full stop is added where no cut mark ends it. Empty text has no segments."""
    if not text:
        return []
    marks = _CUT_MARKS[language]
    if text[-1] not in marks:
        text += _FULL_STOP[language]
    length: Length = len if language == "zh" else count_tokens
    return _merge(_sentences(text, marks), length)


def _sentences(text: str, marks: str) -> list[str]:
    """Pieces that end with a mark and a closing quote behind it; a mark with nothing before it is lost."""
    pieces: list[str] = []
    start = 0
    for position, char in enumerate(text):
        if char not in marks:
            continue
        if position > start:
            pieces.append(text[start : position + 1])
        start = position + 1
        if text[start : start + 1] and text[start] in _CLOSING_QUOTES and pieces:
            pieces[-1] += text[start]
            start += 1
    return pieces


def _merge(pieces: Iterable[str], length: Length) -> list[str]:
    segments: list[str] = []
    current, current_length = "", 0
    for piece in pieces:
        joined = current + piece
        joined_length = length(joined)
        if joined_length > MAX_UNITS and current_length > MIN_UNITS:
            segments.append(current)
            joined, joined_length = piece, length(piece)
        current, current_length = joined, joined_length
    if current:
        if segments and current_length < SHORT_TAIL_UNITS:
            segments[-1] += current
        else:
            segments.append(current)
    return segments


def limit_segments(segments: Sequence[str], max_tokens: int, count_tokens: Length) -> list[str]:
    """The same segments, with those of more than `max_tokens` tokens cut into pieces within the limit.

    Cuts at the last comma or white space that fits, otherwise between any two characters.
    """
    limited: list[str] = []
    for segment in segments:
        rest = segment
        while count_tokens(rest) > max_tokens:
            cut = _last_cut(rest, max_tokens, count_tokens)
            limited.append(rest[:cut])
            rest = rest[cut:]
        if rest:
            limited.append(rest)
    return limited


def _last_cut(text: str, max_tokens: int, count_tokens: Length) -> int:
    """Length of the longest head of `text` within `max_tokens`, moved back to a soft break in its second half."""
    low, high = 1, min(len(text) - 1, max_tokens * 16)
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(text[:middle]) <= max_tokens:
            low = middle
        else:
            high = middle - 1
    breaks = [match.end() for match in _SOFT_BREAK.finditer(text, low // 2, low)]
    return breaks[-1] if breaks else low
