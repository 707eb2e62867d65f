"""Text normalisation: what is written becomes what the model was trained to read, in segments.

The rules are the reference's, for texts with and without Chinese characters. Writing out numbers, dates and units
is `encode.verbalize`'s part and can be left out; cutting into segments is `encode.split`'s. A text that contains
`<|` and `|>` carries control tokens and is taken as it is.
"""

from __future__ import annotations

import regex  # type: ignore[import-untyped]

from ttsfleet_runtime.encode.number_words import spell_out_numbers
from ttsfleet_runtime.encode.split import Language, Length, split_text
from ttsfleet_runtime.encode.verbalize import Verbalize

_CHINESE = regex.compile("[\u4e00-\u9fff]")
_ONLY_SYMBOLS = regex.compile(r"[\p{P}\p{S}]*")
_TRAILING_COMMAS = regex.compile("[，,、]+$")
_BRACKETS = str.maketrans(dict.fromkeys("（）【】`", ""))
_CORNER_MARKS = str.maketrans({"²": "平方", "³": "立方"})


class TextNormalizer:
    """Normalises one text; holds no state between texts.

    count_tokens: length of a text in tokens, the unit of English segments
    verbalize: writes numbers out; None = the rules alone
    enabled: False returns every text as it is
    """

    def __init__(self, count_tokens: Length, verbalize: Verbalize | None, *, enabled: bool = True) -> None:
        self._count_tokens = count_tokens
        self._verbalize = verbalize
        self._enabled = enabled

    def normalize(self, text: str) -> str:
        """A prompt's transcript, in one piece: no final full stop is added."""
        if self._is_verbatim(text):
            return text
        normalized, _ = self._rules(text)
        return normalized

    def segments(self, text: str) -> list[str]:
        """The text to speak as segments; none when there is nothing but punctuation, symbols and white space."""
        if self._is_verbatim(text):
            return [text]
        normalized, language = self._rules(text)
        pieces = split_text(normalized, language, self._count_tokens)
        return [piece for piece in pieces if not is_only_punctuation("".join(piece.split()))]

    def _is_verbatim(self, text: str) -> bool:
        return not self._enabled or not text or ("<|" in text and "|>" in text)

    def _rules(self, text: str) -> tuple[str, Language]:
        text = text.strip()
        language: Language = "zh" if contains_chinese(text) else "en"
        if self._verbalize is not None:
            text = self._verbalize(text, language)
        if language == "en":
            return spell_out_numbers(text), language
        text = remove_spaces(text.replace("\n", ""))
        text = replace_corner_marks(text).replace(".", "。").replace(" - ", "，")
        return _TRAILING_COMMAS.sub("。", remove_brackets(text)), language


def contains_chinese(text: str) -> bool:
    """Whether any character lies in U+4E00..U+9FFF."""
    return _CHINESE.search(text) is not None


def is_only_punctuation(text: str) -> bool:
    """Whether there is nothing to read: punctuation and symbols (emoji are symbols) only, or no character."""
    return _ONLY_SYMBOLS.fullmatch(text) is not None


def remove_spaces(text: str) -> str:
    """Drop each space but those between two ASCII characters other than spaces."""

    def stays(index: int) -> bool:
        if not 0 < index < len(text) - 1:
            return False
        return all(char.isascii() and char != " " for char in (text[index - 1], text[index + 1]))

    return "".join(char for index, char in enumerate(text) if char != " " or stays(index))


def replace_corner_marks(text: str) -> str:
    """Superscript two and three as the Chinese words for square and cubic."""
    return text.translate(_CORNER_MARKS)


def remove_brackets(text: str) -> str:
    """Without full-width brackets and backquotes; a double dash becomes a space."""
    return text.translate(_BRACKETS).replace("——", " ")
