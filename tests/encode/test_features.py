"""Resampling and features against the recorded reference, in the arithmetic that production uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ttsfleet_runtime.checkpoint.bundle import MelInfo
from ttsfleet_runtime.encode.features import kaldi_filter_bank, prompt_mel, whisper_log_mel
from ttsfleet_runtime.encode.resample import resample

CASES = {"fe_short_16k": 16_000, "fe_tones_48k_odd": 48_000, "fe_voice_rms_22k": 22_050}
FMAX = {2: 8000.0, 3: None}


def relative_to_peak(produced: np.ndarray, recorded: np.ndarray) -> float:
    """Largest difference of logarithmic features [frames, bands] on the linear scale, over each frame's peak."""
    difference = np.abs(np.exp(produced.astype(np.float64)) - np.exp(recorded.astype(np.float64)))
    return float((difference / np.exp(recorded).max(axis=1, keepdims=True)).max())


@pytest.fixture(params=CASES, ids=list(CASES))
def case(
    request: pytest.FixtureRequest, goldens_dir: Path
) -> tuple[int, dict[str, np.ndarray], dict[str, np.ndarray]]:
    name = str(request.param)
    return (
        CASES[name],
        load_file(goldens_dir / "v2" / f"{name}.safetensors"),
        load_file(goldens_dir / "v3" / f"{name}.safetensors"),
    )


Case = tuple[int, dict[str, np.ndarray], dict[str, np.ndarray]]


def test_16_khz_signal_equals_the_recorded_one(case: Case) -> None:
    rate, v2, _ = case
    np.testing.assert_allclose(resample(v2["in.wav"][0], rate, 16_000), v2["out.wav16k"][0], rtol=0, atol=1e-7)


def test_prompt_mel_agrees_within_float32_of_the_peak(case: Case) -> None:
    rate, v2, v3 = case
    wave = resample(v2["in.wav"][0], rate, 24_000)
    for version, recorded in ((2, v2), (3, v3)):
        mel = prompt_mel(wave, 24_000, MelInfo(n_fft=1920, hop=480, num_mels=80, fmin=0.0, fmax=FMAX[version]))
        assert mel.shape == recorded["out.mel24k"][0].shape
        assert relative_to_peak(mel, recorded["out.mel24k"][0]) < 2e-6


def test_whisper_log_mel_agrees_at_the_recorded_tolerance(case: Case) -> None:
    rate, v2, _ = case
    log_mel = whisper_log_mel(resample(v2["in.wav"][0], rate, 16_000))
    np.testing.assert_allclose(log_mel, v2["out.whisper_logmel128"][0], rtol=0, atol=1e-4)


def test_kaldi_filter_bank_agrees_at_the_recorded_tolerance(case: Case) -> None:
    rate, v2, _ = case
    banks = kaldi_filter_bank(resample(v2["in.wav"][0], rate, 16_000))
    np.testing.assert_allclose(banks - banks.mean(axis=0), v2["out.kaldi_fbank80_cmn"], rtol=0, atol=2e-3)


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 32_000, 44_056, 44_100, 44_101, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("target", [16_000, 24_000])
def test_a_tone_keeps_its_frequency_and_level_at_any_rate(rate: int, target: int) -> None:
    def tone(hz: int) -> np.ndarray:
        return np.sin(2 * np.pi * 440 * np.arange(hz // 2) / hz).astype(np.float32)

    resampled = resample(tone(rate), rate, target)
    inner = slice(target // 20, -target // 20)
    assert len(resampled) == -(-len(tone(rate)) * target // rate)
    np.testing.assert_allclose(resampled[inner], tone(target)[: len(resampled)][inner], atol=2e-3)


def test_frequencies_above_the_target_are_removed() -> None:
    high = np.sin(2 * np.pi * 11_000 * np.arange(44_100) / 44_100).astype(np.float32)
    assert np.abs(resample(high, 44_100, 16_000)[1000:-1000]).max() < 0.01


def test_an_empty_signal_stays_empty() -> None:
    assert resample(np.zeros(0, np.float32), 44_100, 16_000).shape == (0,)
