"""What each mode makes of a text and its prompt text, and which texts are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ttsfleet_runtime.config.plan import LimitsPlan
from ttsfleet_runtime.encode.normalize import TextNormalizer
from ttsfleet_runtime.encode.text import MAX_SEGMENT_TOKENS, TextEncoder
from ttsfleet_runtime.encode.tokenizer import TextTokenizer
from ttsfleet_runtime.encode.verbalize import Verbalizer
from ttsfleet_runtime.messages import EncodeText, Mode, TextEncoded


@pytest.fixture(scope="module")
def random_encoder(tokenizer: TextTokenizer) -> TextEncoder:
    """Over the tokenizer of the recorded model inputs."""
    return TextEncoder(tokenizer, TextNormalizer(tokenizer.count, Verbalizer()), LimitsPlan())


def encode(encoder: TextEncoder, text: str, mode: Mode = Mode.SFT, prompt_text: str = "") -> TextEncoded:
    (answer,) = encoder.encode_batch([EncodeText(key="k", text=text, mode=mode, prompt_text=prompt_text)])
    assert answer.key == "k"
    return answer


TEXT = "收到好友从远方寄来的生日礼物。"
TRANSCRIPT = "希望你以后能够做的比我还好呦。"
INSTRUCTION = "用四川话说这句话"
RECORDED = [
    ("inference_zero_shot", Mode.ZERO_SHOT, TEXT, TRANSCRIPT),
    ("inference_instruct2", Mode.INSTRUCT2, TEXT, INSTRUCTION),
    ("inference_instruct2", Mode.INSTRUCT2, TEXT, INSTRUCTION + "<|endofprompt|>"),
    ("inference_sft", Mode.SFT, TEXT, TRANSCRIPT),
]


@pytest.mark.parametrize(("name", "mode", "text", "prompt_text"), RECORDED)
def test_ids_are_those_that_the_reference_passes_to_its_model(
    random_encoder: TextEncoder, goldens_dir: Path, name: str, mode: Mode, text: str, prompt_text: str
) -> None:
    recorded = json.loads((goldens_dir / "common" / "model_inputs.json").read_text())["v2"][name]
    answer = encode(random_encoder, text, mode, prompt_text)
    assert [call["text"]["values"] for call in recorded] == answer.segments
    assert recorded[0].get("prompt_text", {"values": []})["values"] == answer.prompt_ids


def test_cross_lingual_has_no_prompt_ids(text_encoder: TextEncoder) -> None:
    assert encode(text_encoder, "Hello.", Mode.CROSS_LINGUAL, "Ignored.").prompt_ids == []


def test_a_prompt_text_gets_no_final_full_stop(text_encoder: TextEncoder) -> None:
    answer = encode(text_encoder, "same words", Mode.ZERO_SHOT, "same words")
    assert answer.segments[0][: len(answer.prompt_ids)] == answer.prompt_ids
    assert len(answer.segments[0]) == len(answer.prompt_ids) + 1


NASTY = {
    "tabs": "tabs\tand\tmore",
    "narrow no-break space": "10\u202f000 and x\u202fy",
    "phoneme": "[AA1][B] test",
    "right to left": "مرحبا بالعالم، كيف حالك؟",
    "4096 characters without a space": "x" * 4096,
    "control characters": "".join(map(chr, range(32))) + "a\x7f\x80\x9f",
    "digits without end": "7" * 4096,
    "one very long sentence": "word " * 800,
    "lone surrogate": "a\ud83d b\udc00",
    "surrogate pair": "a \ud83d\ude00 b",
    "only control tokens": "<|im_start|><|im_end|>",
    "null": "\x00a",
    "combining marks": "Z" + "\u0301" * 500,
    "quotes": '"' * 200 + "a",
    "backslashes": "\\" * 200 + "a",
    "braces": '} name: "x" { a',
    "currency": "5€ #1 −3 ½ № 7 ℃",
    "astral": "\U0010ffff \U000e0001a",
    "newlines": "a\n\n\r\nb\x0b\x0cc\u2028d",
    "mixed": "我\t有\u202f[AA1] 1\u00a0000 个 #1",
    "brackets": "[[[[]]]] <strong a",
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
@pytest.mark.parametrize("mode", Mode)
def test_nasty_texts_are_spoken(text_encoder: TextEncoder, mode: Mode, text: str) -> None:
    answer = encode(text_encoder, text, mode, text[:1000])
    assert answer.error is None
    assert answer.segments
    assert all(0 < len(ids) <= MAX_SEGMENT_TOKENS for ids in answer.segments)


@pytest.mark.parametrize("text", ["", " ", "\t\n", "😀", "...", "\u202f", "\x00\x01", "\ud83d", "—", "\ufeff"])
def test_a_text_with_nothing_to_speak_is_refused(text_encoder: TextEncoder, text: str) -> None:
    answer = encode(text_encoder, text)
    assert answer.error is not None
    assert (answer.error.status, answer.error.param) == (400, "input")
    assert "nothing to speak" in answer.error.message


@pytest.mark.parametrize(
    ("text", "mode", "prompt_text", "message"),
    [
        ("x" * 4097, Mode.SFT, "", "4097 characters; at most 4096"),
        ("x", Mode.ZERO_SHOT, "x" * 1025, "1025 characters; at most 1024"),
        ("x", Mode.ZERO_SHOT, " \t", "needs the transcript"),
        ("x", Mode.INSTRUCT2, "", "needs instructions"),
        ("x", Mode.INSTRUCT2, "<|endofprompt|>", "needs instructions"),
    ],
)
def test_a_refused_job_says_why(
    text_encoder: TextEncoder, text: str, mode: Mode, prompt_text: str, message: str
) -> None:
    error = encode(text_encoder, text, mode, prompt_text).error
    assert error is not None
    assert error.status == 400
    assert message in error.message


def test_a_bad_job_does_not_disturb_its_batch(text_encoder: TextEncoder) -> None:
    texts = ["One.", "...", "Two.", "x" * 5000, "Three."]
    jobs = [EncodeText(key=str(index), text=text, mode=Mode.SFT) for index, text in enumerate(texts)]
    answers = text_encoder.encode_batch(jobs)
    assert [answer.key for answer in answers] == ["0", "1", "2", "3", "4"]
    assert [answer.error is None for answer in answers] == [True, False, True, False, True]
    assert [answer.segments for answer in answers if not answer.error] == [
        encode(text_encoder, text).segments for text in texts[::2]
    ]
