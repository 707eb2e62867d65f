"""Registered voices: what is refused, what survives a restart, and storage that fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ttsfleet_runtime.checkpoint.bundle import ModelInfo, read_model_info
from ttsfleet_runtime.config.plan import LimitsPlan
from ttsfleet_runtime.errors import (
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    TTSFleetError,
    UnavailableError,
)
from ttsfleet_runtime.router.voice_registry import VoiceRegistry
from ttsfleet_runtime.voices import read_voice


@pytest.fixture(scope="module")
def model(tiny_en_bundle: Path) -> ModelInfo:
    return read_model_info(tiny_en_bundle)


def _registry(directory: Path, model: ModelInfo, **limits: int) -> VoiceRegistry:
    registry = VoiceRegistry(directory, model, LimitsPlan(**limits))
    registry.load_registered()
    return registry


def test_a_models_own_voices_get_one_entry_for_sft_and_one_with_the_prompt(
    tmp_path: Path, model: ModelInfo, tiny_en_bundle: Path
) -> None:
    registry = _registry(tmp_path / "voices", model)
    pinned = dict(registry.load_builtin(tiny_en_bundle, tmp_path))
    heart = registry["heart"]
    assert heart.has_prompt
    assert pinned[heart.sft_hash] == 0
    assert pinned[heart.voice_hash] == len(read_voice(tmp_path, heart.voice_hash).speech_tokens) > 0


def test_a_registered_voice_survives_a_restart(tmp_path: Path, model: ModelInfo) -> None:
    _registry(tmp_path, model).register("anna", b"recording", "Hello.")
    again = _registry(tmp_path, model)
    assert again["anna"].audio() == b"recording"
    assert again["anna"].prompt_text == "Hello."
    again.delete("anna")
    assert "anna" not in _registry(tmp_path, model)


@pytest.mark.parametrize(
    ("name", "audio", "transcript", "error"),
    [
        ("../evil", b"x", "", InvalidRequestError),
        ("", b"x", "", InvalidRequestError),
        ("taken", b"x", "", InvalidRequestError),
        ("big", b"x" * 11, "", TooLargeError),
        ("wordy", b"x", "y" * 6, TooLargeError),
        ("third", b"x", "", InvalidRequestError),
    ],
)
def test_a_registration_that_cannot_be_is_refused(
    tmp_path: Path, model: ModelInfo, name: str, audio: bytes, transcript: str, error: type[TTSFleetError]
) -> None:
    registry = _registry(tmp_path, model, prompt_bytes=10, prompt_text_chars=5, registered_voices=1)
    registry.register("taken", b"x", "")
    with pytest.raises(error):
        registry.check_new(name, audio, transcript)


def test_a_damaged_record_is_skipped_and_named_in_the_log(
    tmp_path: Path, model: ModelInfo, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "alone.json").write_bytes(b'["alone","",1.0,"h"]')
    assert len(_registry(tmp_path, model)) == 0
    assert "bad.json" in caplog.text


def test_storage_that_fails_is_an_error_for_the_client_and_not_for_the_router(
    tmp_path: Path, model: ModelInfo
) -> None:
    directory = tmp_path / "voices"
    registry = _registry(directory, model)
    registry.register("anna", b"recording", "")
    shutil.rmtree(directory)
    with pytest.raises(UnavailableError, match="voices_dir"):
        registry["anna"].audio()
    directory.write_text("a file where the directory was")
    with pytest.raises(UnavailableError, match="voices_dir"):
        registry.register("bert", b"x", "")


def test_a_voice_that_is_not_there_cannot_be_deleted(tmp_path: Path, model: ModelInfo) -> None:
    with pytest.raises(NotFoundError):
        _registry(tmp_path, model).delete("nobody")
