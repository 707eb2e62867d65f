"""A voice entry from a prompt, through the shipped model's own networks."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.config.plan import LimitsPlan
from ttsfleet_runtime.encode.audio import PromptAudio, load_audio
from ttsfleet_runtime.encode.prompt import SpeakerEncoder, SpeechTokenizer, VoiceEncoder, align
from ttsfleet_runtime.errors import CheckpointError


def test_the_entry_of_the_shipped_prompt_is_the_registered_voice(
    voice_encoder: VoiceEncoder, tiny_en_data: Path, tiny_en_bundle: Path
) -> None:
    entry = voice_encoder.encode(load_audio((tiny_en_data / "heart.wav").read_bytes(), LimitsPlan()))
    registered = load_file(tiny_en_bundle / "voices.safetensors")
    tokens = registered["heart/speech_token"].reshape(-1)
    assert (entry.speech_tokens == tokens).mean() > 0.97
    mel = registered["heart/mel"].reshape(-1, 80)
    assert np.abs(entry.mel - mel).mean() < 1e-3
    # The registered vector is a mean over many recordings of the voice.
    speaker, mean = entry.speaker_embedding, registered["heart/embedding"].reshape(-1)
    assert speaker @ mean / np.linalg.norm(speaker) / np.linalg.norm(mean) > 0.9


@pytest.mark.parametrize("seconds", [0.1, 0.13, 1.0, 2.51, 29.99])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_tokens_and_mel_cover_the_same_time(voice_encoder: VoiceEncoder, seconds: float, rate_hz: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, int(seconds * rate_hz)).astype(np.float32)
    entry = voice_encoder.encode(PromptAudio(noise, rate_hz))
    assert entry.mel.shape == (2 * len(entry.speech_tokens), 80)
    assert len(entry.speech_tokens) == pytest.approx(seconds * 25, abs=1.5)
    assert np.isfinite(entry.mel).all()


def test_alignment_keeps_the_shorter_of_both() -> None:
    mel = np.zeros((125, 80), np.float32)
    for num_tokens, expected in ((63, 62), (62, 62), (50, 50), (0, 0)):
        tokens, aligned = align(np.arange(num_tokens, dtype=np.int32), mel, 2)
        assert (len(tokens), len(aligned)) == (expected, 2 * expected)


def test_a_missing_or_damaged_onnx_file_is_named(tmp_path: Path, tiny_en_bundle: Path) -> None:
    with pytest.raises(CheckpointError, match=r"speaker\.onnx: no such file"):
        SpeakerEncoder(tmp_path / "speaker.onnx", 1)
    (tmp_path / "speaker.onnx").write_bytes(b"half a model")
    with pytest.raises(CheckpointError, match=r"speaker\.onnx: not a usable ONNX model"):
        SpeakerEncoder(tmp_path / "speaker.onnx", 1)
    model = read_model_info(tiny_en_bundle)
    with pytest.raises(CheckpointError, match="has 1 inputs, expected 2"):
        SpeechTokenizer(Path(model.speaker_onnx), 1, 6561)


def test_a_stereo_mp3_gives_the_tokens_of_its_wave(voice_encoder: VoiceEncoder, tiny_en_data: Path) -> None:
    wave, rate = soundfile.read(tiny_en_data / "heart.wav", dtype="float32")
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([wave, wave], axis=1), rate, format="MP3")
    ours = voice_encoder.encode(load_audio(buffer.getvalue(), LimitsPlan()))
    original = voice_encoder.encode(PromptAudio(wave, rate))
    length = min(len(ours.speech_tokens), len(original.speech_tokens))
    assert abs(len(ours.speech_tokens) - len(original.speech_tokens)) <= 4
    assert length > 90
