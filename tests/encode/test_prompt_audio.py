"""Reading prompt audio: what is accepted, and what is refused with which words."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ttsfleet_runtime.config.plan import LimitsPlan
from ttsfleet_runtime.encode.audio import load_audio
from ttsfleet_runtime.errors import InvalidRequestError, TooLargeError

LIMITS = LimitsPlan()


def tone(seconds: float, rate_hz: int = 24_000, channels: int = 1) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate_hz)) / rate_hz)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def as_file(wave: np.ndarray, rate_hz: int = 24_000, format_: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate_hz, format=format_, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format_", "subtype", "rate_hz"),
    [
        ("WAV", "PCM_16", 16_000),
        ("WAV", "FLOAT", 44_100),
        ("WAV", "ULAW", 22_050),
        ("FLAC", None, 48_000),
        ("OGG", "VORBIS", 24_000),
        ("OGG", "OPUS", 48_000),
        ("MP3", None, 24_000),
        ("AIFF", None, 16_000),
    ],
)
def test_formats_of_libsndfile_are_read(format_: str, subtype: str | None, rate_hz: int) -> None:
    audio = load_audio(as_file(tone(1.0, rate_hz), rate_hz, format_, subtype), LIMITS)
    assert audio.rate_hz == rate_hz
    assert audio.seconds == pytest.approx(1.0, abs=0.1)
    assert audio.samples.dtype == np.float32
    assert np.sqrt(np.mean(audio.samples**2)) == pytest.approx(0.3 / np.sqrt(2), abs=0.02)


def test_channels_are_averaged() -> None:
    wave = tone(0.5, channels=2)
    wave[:, 1] *= -0.5
    samples = load_audio(as_file(wave, subtype="FLOAT"), LIMITS).samples
    np.testing.assert_allclose(samples, 0.25 * tone(0.5)[:, 0], atol=1e-7)


def test_the_rest_of_a_truncated_file_is_used(tiny_en_data: Path) -> None:
    data = (tiny_en_data / "heart.wav").read_bytes()
    whole, half = load_audio(data, LIMITS), load_audio(data[: len(data) // 2], LIMITS)
    assert half.seconds == pytest.approx(whole.seconds / 2, abs=0.01)


def _with_nan() -> bytes:
    wave = tone(0.5)
    wave[100] = np.nan
    return as_file(wave, subtype="FLOAT")


FLAC = as_file(tone(1.0), format_="FLAC")
REFUSED = {
    "narrow band": (as_file(tone(1.0, 8_000), 8_000), "has 8000 Hz"),
    "absurd rate": (as_file(tone(0.2, 384_000), 384_000), "has 384000 Hz"),
    "too many channels": (as_file(tone(0.2, channels=9)), "has 9 channels"),
    "31 seconds": (as_file(tone(31.0, 16_000), 16_000), "is 31.0 s; at most 30 s"),
    "no samples": (as_file(tone(0.0)), "at least 0.1 s"),
    "50 milliseconds": (as_file(tone(0.05)), "is 0.05 s long"),
    "not a number": (_with_nan(), "not finite"),
    "silence": (as_file(np.zeros((24_000, 1), np.float32)), "silence"),
    "empty": (b"", "cannot be read"),
    "text": (b"this is no audio at all, just words" * 10, "cannot be read"),
    "header only": (FLAC[:20], "cannot be read"),
    "html": (b"<!doctype html><title>404</title>", "cannot be read"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_audio_is_refused_with_its_reason(data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as refused:
        load_audio(data, LIMITS)
    assert refused.value.param == "ref_audio"


def test_a_file_beyond_the_size_limit_is_not_decoded() -> None:
    with pytest.raises(TooLargeError, match="at most 1000"):
        load_audio(as_file(tone(1.0)), LimitsPlan(prompt_bytes=1000))


def test_a_damaged_stream_gives_a_typed_error_or_what_could_be_read() -> None:
    generator = np.random.default_rng(0)
    for format_ in ("WAV", "FLAC", "OGG", "MP3"):
        data = bytearray(as_file(tone(1.0), format_=format_))
        for _ in range(20):
            damaged = bytearray(data)
            for position in generator.integers(0, len(data), 20):
                damaged[position] = int(generator.integers(256))
            try:
                audio = load_audio(bytes(damaged), LIMITS)
            except InvalidRequestError:
                continue
            assert np.isfinite(audio.samples).all()
