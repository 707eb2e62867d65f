"""Cardinals as English speakers say them."""

from __future__ import annotations

import pytest

from ttsfleet_runtime.encode.number_words import number_words, spell_out_numbers


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("0", "zero"),
        ("00", "zero"),
        ("007", "seven"),
        ("13", "thirteen"),
        ("20", "twenty"),
        ("42", "forty-two"),
        ("100", "one hundred"),
        ("101", "one hundred and one"),
        ("999", "nine hundred and ninety-nine"),
        ("1000", "one thousand"),
        ("1001", "one thousand and one"),
        ("1100", "one thousand, one hundred"),
        ("12345", "twelve thousand, three hundred and forty-five"),
        ("1000000", "one million"),
        ("1002000", "one million, two thousand"),
        ("1002003", "one million, two thousand and three"),
        ("1" + 33 * "0", "one decillion"),
        ("12" * 20, " ".join(["one two"] * 20)),
        ("٣", "three"),
        ("²", "zero"),
    ],
)
def test_a_run_of_digits_is_read_as_one_number(digits: str, words: str) -> None:
    assert number_words(digits) == words


def test_numbers_are_replaced_in_place() -> None:
    assert spell_out_numbers("3.14 is pi, 7x") == "three.fourteen is pi, sevenx"
    assert spell_out_numbers("none here") == "none here"
    assert spell_out_numbers("") == ""
