"""English words for runs of digits: the rule that remains when no text normaliser has written numbers out."""

from __future__ import annotations

import unicodedata


def _words(listing: str) -> list[str]:
    return listing.split()


_UNITS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES = _words(
    "thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion decillion"
)
_MAX_DIGITS = 3 * (len(_SCALES) + 1)


def spell_out_numbers(text: str) -> str:
    """`text` with each run of digit characters (superscripts too) as English words."""
    pieces: list[str] = []
    start = 0
    while start < len(text):
        end = start
        is_digit = text[start].isdigit()
        while end < len(text) and text[end].isdigit() == is_digit:
            end += 1
        run = text[start:end]
        pieces.append(number_words(run) if is_digit else run)
        start = end
    return "".join(pieces)


def number_words(digits: str) -> str:
    """A run of digit characters as one cardinal; beyond decillions it is read digit by digit.

    Characters without a decimal value (superscripts) do not count; nothing but those is zero.
    """
    values = [unicodedata.decimal(char) for char in digits if unicodedata.decimal(char, None) is not None]
    while len(values) > 1 and values[0] == 0:
        del values[0]
    if len(values) > _MAX_DIGITS:
        return " ".join(_UNITS[value] for value in values)
    number = int("".join(map(str, values)) or "0")
    if number < 1000:
        return _below_thousand(number)
    groups: list[str] = []
    rest, last = divmod(number, 1000)
    for scale in _SCALES:
        rest, group = divmod(rest, 1000)
        if group:
            groups.insert(0, f"{_below_thousand(group)} {scale}")
    words = ", ".join(groups)
    if not last:
        return words
    return f"{words}{' and ' if last < 100 else ', '}{_below_thousand(last)}"


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    if not hundreds:
        return _below_hundred(rest)
    head = f"{_UNITS[hundreds]} hundred"
    return f"{head} and {_below_hundred(rest)}" if rest else head


def _below_hundred(number: int) -> str:
    if number < 20:
        return _UNITS[number]
    tens, unit = divmod(number, 10)
    return f"{_TENS[tens - 2]}-{_UNITS[unit]}" if unit else _TENS[tens - 2]
