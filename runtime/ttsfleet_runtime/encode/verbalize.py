"""Writes numbers, dates, money and units out as they are spoken, with wetext's finite-state transducers.

wetext 0.1.8 fails (AssertionError) on input its tagger has no path for: two spaces in a row, tabs beside them, U+202F
in numbers, `[AA1]`, `#1`, `5€`. So the text is cleaned first; where it fails all the same, the piece is halved at a
space until only the offending word keeps its written form. Cost is about 0.03 ms (prose) to 0.2 ms (numbers) per
character and memory grows with the input, so long texts go through in pieces.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable

import wetext

from ttsfleet_runtime.encode.split import Language

logger = logging.getLogger(__name__)

Verbalize = Callable[[str, Language], str]

_PIECE_CHARS = 256
_SENTENCE_END = re.compile(r"[.!?;:]\s|[。？！；，]")
_REPAIRS = (
    (re.compile("−(?=[0-9])"), "-"),
    (re.compile(r"([0-9][0-9.,]*) ?€"), r"€\1"),
    (re.compile(r"#(?=[0-9])"), "number "),
)
"""Common spellings without a path in wetext's English tagger, and equivalents that have one."""

_LEFT_OVER = str.maketrans({"²": " squared", "³": " cubed"})
"""Exponents that are not part of a unit, which wetext reads."""

_THOUSANDS = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
"""Spaces that group digits; wetext takes only commas."""

_JOINERS = "\u200c\u200d"


class Verbalizer:
    """Text to its spoken form; never raises.

    `keep_quirks` keeps two habits of wetext that the recorded reference shares and a listener does not want:
    straight quotes and backslashes come back behind a backslash, and a text of digits alone is read in Chinese.
    """

    def __init__(self, *, keep_quirks: bool = False) -> None:
        self._normalizer = wetext.Normalizer()
        self._keep_quirks = keep_quirks

    def __call__(self, text: str, language: Language) -> str:
        text = clean_text(_THOUSANDS.sub("", text), keep_newlines=language == "zh")
        if language == "en":
            for pattern, replacement in _REPAIRS:
                text = pattern.sub(replacement, text)
        pieces = (self._verbalize(piece, language) + separator for piece, separator in _pieces(text))
        spoken = "".join(pieces).strip()
        return spoken.translate(_LEFT_OVER) if language == "en" else spoken

    def _verbalize(self, text: str, language: Language) -> str:
        if not text.strip():
            return text
        try:
            return self._run(text, language)
        except Exception:  # noqa: BLE001 - AssertionError, RuntimeError, TypeError: whatever wetext did not expect
            cut = _middle_space(text)
            if cut is None:
                logger.debug("wetext has no reading of a word of %d characters", len(text))
                return text
        return f"{self._verbalize(text[:cut], language)} {self._verbalize(text[cut + 1 :], language)}"

    def _run(self, text: str, language: Language) -> str:
        if self._keep_quirks:
            return str(self._normalizer.normalize(text))
        spoken = str(self._normalizer.normalize(text, lang=language))
        return re.sub(r'\\(["\\])', r"\1", spoken) if language == "en" else spoken


def clean_text(text: str, *, keep_newlines: bool = False) -> str:
    """`text` with every run of white space and control characters as one space, without invisible characters.

    Removed are lone surrogates and format characters (byte order mark, soft hyphen, direction marks) but for the
    joiners that Persian, Indic scripts and emoji need. `keep_newlines` leaves line feeds in place.
    """
    chars: list[str] = []
    for char in text:
        if char.isascii() and char.isprintable() and char != " ":
            chars.append(char)
            continue
        category = unicodedata.category(char)
        if category in ("Cs", "Cf") and char not in _JOINERS:
            continue
        if category in ("Cc", "Zs", "Zl", "Zp") and not (keep_newlines and char == "\n"):
            if chars and chars[-1] != " ":
                chars.append(" ")
            continue
        chars.append(char)
    return "".join(chars).strip(" ")


def _pieces(text: str) -> list[tuple[str, str]]:
    """Pieces of at most `_PIECE_CHARS` characters, each with what stands between it and the next."""
    pieces: list[tuple[str, str]] = []
    while len(text) > _PIECE_CHARS:
        head = text[:_PIECE_CHARS]
        ends = [match.end() for match in _SENTENCE_END.finditer(head, _PIECE_CHARS // 4)]
        cut = ends[-1] if ends else head.rfind(" ", 1) + 1 or _PIECE_CHARS
        inside_number = text[cut - 1].isdigit() and text[cut].isdigit()
        piece = text[:cut].rstrip(" ")
        pieces.append((piece, " " if len(piece) < cut or inside_number else ""))
        text = text[cut:]
    return [*pieces, (text, "")]


def _middle_space(text: str) -> int | None:
    """Index of the space nearest to the middle, or None."""
    middle = len(text) // 2
    left, right = text.rfind(" ", 1, middle), text.find(" ", middle, len(text) - 1)
    if left < 0 or right < 0:
        return max(left, right) if max(left, right) >= 0 else None
    return left if middle - left <= right - middle else right
