"""The stage: batches, order, cancellation, what a failing job does, and texts that do not wait for a voice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.encode.audio import PromptAudio
from ttsfleet_runtime.encode.stage import EncodeStage, build
from ttsfleet_runtime.encode.text import TextEncoder
from ttsfleet_runtime.errors import InvalidRequestError
from ttsfleet_runtime.messages import (
    AnyMessage,
    Cancel,
    DropVoices,
    EncodeText,
    EncodeVoice,
    Mode,
    TextEncoded,
    VoiceEncoded,
)
from ttsfleet_runtime.stage import ROUTER, StageContext
from ttsfleet_runtime.voices import VoiceEntry, read_voice

DEADLINE_SECONDS = 20.0


class HeldVoices:
    """A voice encoder that computes nothing until `gate` is opened; raises `failure` when there is one."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.failure: Exception | None = None
        self.started: list[float] = []

    def encode(self, audio: PromptAudio) -> VoiceEntry:
        self.started.append(audio.seconds)
        assert self.gate.wait(DEADLINE_SECONDS)
        if self.failure is not None:
            raise self.failure
        return VoiceEntry(np.arange(3, dtype=np.int32), np.zeros((6, 80), np.float32), np.ones(192, np.float32))


@contextmanager
def opened(voices: HeldVoices) -> Iterator[None]:
    """Open the gate at the end, so that a failing test leaves no thread behind."""
    try:
        yield
    finally:
        voices.gate.set()


@pytest.fixture(scope="module")
def heart(tiny_en_data: Path) -> bytes:
    return (tiny_en_data / "heart.wav").read_bytes()


def make_stage(
    run_dir: Path, texts: TextEncoder, voices: HeldVoices, *, paral: int = 4, batch: int = 8
) -> EncodeStage:
    plan = EnginePlan(model_dir="", encode_paral_num=paral, encode_max_batch_size=batch)
    return EncodeStage(run_dir, plan, texts, voices)


def text(key: str, words: str = "Hello there.") -> EncodeText:
    return EncodeText(key=key, text=words, mode=Mode.SFT)


def answers(stage: EncodeStage) -> list[AnyMessage]:
    outgoing = stage.poll()
    assert all(item.to == ROUTER for item in outgoing)
    return [item.message for item in outgoing]


def keys(messages: list[AnyMessage]) -> list[str]:
    return [message.key for message in messages if isinstance(message, TextEncoded)]


def run_until_idle(stage: EncodeStage) -> list[AnyMessage]:
    messages: list[AnyMessage] = []
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not stage.idle():
        stage.step()
        messages += answers(stage)
        assert time.monotonic() < deadline
    return messages


@pytest.mark.parametrize(
    ("paral", "batch", "sizes"), [(4, 8, [4, 4, 2]), (8, 8, [8, 2]), (8, 3, [3, 3, 3, 1]), (1, 8, [1] * 10)]
)
def test_batches_are_bounded_by_both_parameters_and_keep_the_order(
    tmp_path: Path, text_encoder: TextEncoder, paral: int, batch: int, sizes: list[int]
) -> None:
    stage = make_stage(tmp_path, text_encoder, HeldVoices(), paral=paral, batch=batch)
    for index in range(10):
        stage.submit(text(str(index)))
    batches: list[list[str]] = []
    while stage.step():
        batches.append(keys(answers(stage)))
    assert [len(batch) for batch in batches] == sizes
    assert [key for batch in batches for key in batch] == [str(index) for index in range(10)]
    assert stage.idle()


def test_a_long_text_ends_its_batch(tmp_path: Path, text_encoder: TextEncoder) -> None:
    stage = make_stage(tmp_path, text_encoder, HeldVoices())
    for message in (text("long", "Word. " * 600), text("short"), text("also short")):
        stage.submit(message)
    stage.step()
    assert keys(answers(stage)) == ["long"]
    stage.step()
    assert keys(answers(stage)) == ["short", "also short"]


def test_a_cancelled_text_is_dropped_and_not_answered(tmp_path: Path, text_encoder: TextEncoder) -> None:
    stage = make_stage(tmp_path, text_encoder, HeldVoices())
    for key in "abc":
        stage.submit(text(key))
    stage.submit(Cancel(key="b"))
    stage.submit(Cancel(key="unknown"))
    assert keys(run_until_idle(stage)) == ["a", "c"]


def test_messages_for_other_stages_are_ignored(tmp_path: Path, text_encoder: TextEncoder) -> None:
    stage = make_stage(tmp_path, text_encoder, HeldVoices())
    stage.submit(DropVoices(voice_hashes=["x"]))
    assert not stage.step()
    assert stage.idle()


def test_texts_do_not_wait_for_a_voice(tmp_path: Path, text_encoder: TextEncoder, heart: bytes) -> None:
    voices = HeldVoices()
    stage = make_stage(tmp_path, text_encoder, voices)
    with opened(voices):
        stage.submit(EncodeVoice(voice_hash="v", audio=heart))
        stage.submit(text("a"))
        stage.step()
        assert keys(answers(stage)) == ["a"]
        assert stage.step(), "a step with a voice under way asks to be called again"
        assert not stage.idle()
    (answer,) = run_until_idle(stage)
    assert isinstance(answer, VoiceEncoded)
    assert (answer.voice_hash, answer.num_tokens, answer.error) == ("v", 3, None)
    assert answer.prompt_seconds == pytest.approx(4.08, abs=0.01)
    assert read_voice(tmp_path, "v").mel.shape == (6, 80)


def test_a_running_voice_counts_as_a_task_in_flight(tmp_path: Path, text_encoder: TextEncoder, heart: bytes) -> None:
    voices = HeldVoices()
    stage = make_stage(tmp_path, text_encoder, voices, paral=1)
    with opened(voices):
        stage.submit(EncodeVoice(voice_hash="v", audio=heart))
        stage.submit(text("a"))
        stage.step()
        assert answers(stage) == []
    assert [type(message) for message in run_until_idle(stage)] == [VoiceEncoded, TextEncoded]


def test_voices_are_computed_one_after_the_other(tmp_path: Path, text_encoder: TextEncoder, heart: bytes) -> None:
    voices = HeldVoices()
    stage = make_stage(tmp_path, text_encoder, voices)
    with opened(voices):
        for hash_ in ("v1", "v2", "v3"):
            stage.submit(EncodeVoice(voice_hash=hash_, audio=heart))
        stage.step()
        gauges = {gauge.name: gauge.value for gauge in stage.gauges()}
        assert gauges["encode_voices_waiting"] == 2
        assert gauges["encode_in_flight"] == 1
    answered = [m.voice_hash for m in run_until_idle(stage) if isinstance(m, VoiceEncoded)]
    assert answered == ["v1", "v2", "v3"]
    assert len(voices.started) == 3


@pytest.mark.parametrize(
    ("audio", "failure", "status", "words"),
    [
        (b"no audio", None, 400, "cannot be read"),
        (None, InvalidRequestError("too quiet"), 400, "too quiet"),
        (None, RuntimeError("onnx fell over"), 500, "internal error"),
        (None, MemoryError(), 500, "internal error"),
    ],
)
def test_a_voice_that_fails_is_answered_and_the_next_one_works(
    tmp_path: Path,
    text_encoder: TextEncoder,
    heart: bytes,
    audio: bytes | None,
    failure: Exception | None,
    status: int,
    words: str,
) -> None:
    voices = HeldVoices()
    voices.gate.set()
    voices.failure = failure
    stage = make_stage(tmp_path, text_encoder, voices)
    stage.submit(EncodeVoice(voice_hash="bad", audio=heart if audio is None else audio))
    (answer,) = run_until_idle(stage)
    assert isinstance(answer, VoiceEncoded)
    assert answer.error is not None
    assert answer.error.status == status
    assert words in answer.error.message
    voices.failure = None
    stage.submit(EncodeVoice(voice_hash="good", audio=heart))
    (answer,) = run_until_idle(stage)
    assert isinstance(answer, VoiceEncoded)
    assert answer.error is None


def test_an_entry_that_cannot_be_stored_is_an_unavailable_error(
    tmp_path: Path, text_encoder: TextEncoder, heart: bytes
) -> None:
    voices = HeldVoices()
    voices.gate.set()
    (tmp_path / "voices").write_text("a file where the folder should be")
    stage = make_stage(tmp_path, text_encoder, voices)
    stage.submit(EncodeVoice(voice_hash="v", audio=heart))
    (answer,) = run_until_idle(stage)
    assert isinstance(answer, VoiceEncoded)
    assert answer.error is not None
    assert answer.error.status == 503


def test_the_built_stage_encodes_text_and_voice_with_the_shipped_model(
    tmp_path: Path, tiny_en_bundle: Path, heart: bytes
) -> None:
    stage = build(
        StageContext(
            identity="encode-0",
            run_dir=tmp_path,
            bundle_dir=tiny_en_bundle,
            model=read_model_info(tiny_en_bundle),
            plan=EnginePlan(model_dir=str(tiny_en_bundle)),
        )
    )
    stage.submit(EncodeVoice(voice_hash="heart", audio=heart))
    stage.submit(EncodeText(key="k", text="Hello there.", prompt_text="I said so.", mode=Mode.ZERO_SHOT))
    spoken, voice = run_until_idle(stage)
    assert isinstance(spoken, TextEncoded)
    assert spoken.segments
    assert spoken.prompt_ids
    assert isinstance(voice, VoiceEncoded)
    entry = read_voice(tmp_path, "heart")
    assert voice.num_tokens == len(entry.speech_tokens) == 102
    assert entry.mel.shape == (204, 80)
