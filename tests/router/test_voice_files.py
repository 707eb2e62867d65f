"""What a stage keeps of voices: read once, bounded, and refused with a reason when a file is no good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ttsfleet_runtime.errors import InvalidRequestError, UnavailableError
from ttsfleet_runtime.voices import VoiceEntry, VoiceFiles, voice_path, write_voice


def _write(run_dir: Path, hash_: str, tokens: list[int]) -> None:
    mel = np.zeros((2 * len(tokens), 80), np.float32)
    write_voice(run_dir, hash_, VoiceEntry(np.array(tokens, np.int32), mel, np.zeros(192, np.float32)))


@pytest.fixture
def reads() -> list[list[int]]:
    """Each entry that was read, by its tokens."""
    return []


@pytest.fixture
def voices(tmp_path: Path, reads: list[list[int]]) -> VoiceFiles[int]:
    for number in range(3):
        _write(tmp_path, f"v{number}", [number])

    def form(entry: VoiceEntry) -> int:
        reads.append(entry.speech_tokens.tolist())
        return int(entry.speech_tokens.sum())

    return VoiceFiles(tmp_path, form, capacity=2, num_codes=10)


def test_the_least_recently_used_voice_is_read_again(voices: VoiceFiles[int], reads: list[list[int]]) -> None:
    assert [voices.get(f"v{number}") for number in (0, 1, 0, 2, 0, 1)] == [0, 1, 0, 2, 0, 1]
    assert reads == [[0], [1], [2], [1]]
    assert len(voices) == 2


def test_a_dropped_voice_is_read_again(voices: VoiceFiles[int], reads: list[list[int]]) -> None:
    voices.get("v1")
    voices.drop(["v1", "unknown"])
    assert len(voices) == 0
    voices.get("v1")
    assert reads == [[1], [1]]


@pytest.mark.parametrize("capacity", [0, 1])
def test_one_voice_is_kept_at_least(tmp_path: Path, capacity: int) -> None:
    _write(tmp_path, "v", [4])
    voices = VoiceFiles(tmp_path, lambda entry: entry, capacity=capacity, num_codes=5)
    assert voices.get("v") is voices.get("v")


def test_no_name_a_missing_file_a_damaged_one_and_another_models_are_told_apart(tmp_path: Path) -> None:
    _write(tmp_path, "other", [4, 5])
    _write(tmp_path, "negative", [-1])
    voice_path(tmp_path, "damaged").write_bytes(b"no tensors")
    voices = VoiceFiles(tmp_path, lambda entry: entry, capacity=2, num_codes=5)
    with pytest.raises(InvalidRequestError, match="names no voice"):
        voices.get("")
    for gone in ("missing", "damaged"):
        with pytest.raises(UnavailableError, match=f"voice {gone} cannot be read") as raised:
            voices.get(gone)
        assert raised.value.retry_after_seconds == 1
    with pytest.raises(InvalidRequestError, match="from 4 to 5; this model knows 0 to 4"):
        voices.get("other")
    with pytest.raises(InvalidRequestError, match="made for another model"):
        voices.get("negative")
    assert len(voices) == 0
