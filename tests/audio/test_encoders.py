"""Every format decodes to what was pushed, whole and streamed, and a stream holds back little."""

from __future__ import annotations

import io
import struct

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from ttsfleet_runtime.audio.encoders import AudioEncoder, encode_file
from ttsfleet_runtime.audio.formats import AudioFormat, content_type, pcm_seconds

RATE = 24000
COMPRESSED = [AudioFormat.MP3, AudioFormat.OPUS, AudioFormat.AAC, AudioFormat.FLAC]
MAX_HELD_BACK_SECONDS = {"pcm": 0.0, "wav": 0.0, "opus": 0.03, "flac": 0.04, "mp3": 0.05, "aac": 0.1}
MIN_CORRELATION = {"flac": 0.9999, "wav": 0.9999, "pcm": 0.9999, "mp3": 0.98, "aac": 0.98, "opus": 0.97}


def speechlike(seconds: float, rate: int = RATE) -> NDArray[np.int16]:
    """A gliding harmonic tone under a slow envelope: no period along which two cuts could match by accident."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * (140 * time + 25 * time**2)
    tone = sum(np.sin(k * phase) / k for k in range(1, 6))
    return (tone * 6000 * (0.6 + 0.4 * np.sin(2 * np.pi * 2.3 * time))).astype(np.int16)


def decoded(data: bytes, audio_format: AudioFormat, rate: int = RATE) -> NDArray[np.float64]:
    """Samples of a file at `rate`, by FFmpeg; raw PCM as it is."""
    if audio_format is AudioFormat.PCM:
        return np.frombuffer(data, "<i2").astype(np.float64)
    with av.open(io.BytesIO(data)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
        frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float64)


def best_correlation(original: NDArray[np.int16], copy: NDArray[np.float64]) -> float:
    """Correlation at the best delay of -1 to 100 ms: lossy codecs shift by their priming."""
    reference = original.astype(np.float64)
    copy = np.concatenate([np.zeros(RATE // 1000), copy])
    scores = []
    for delay in range(RATE // 10):
        length = min(len(reference), len(copy) - delay)
        scores.append(np.corrcoef(reference[:length], copy[delay : delay + length])[0, 1])
    return float(max(scores))


def streamed(audio_format: AudioFormat, samples: NDArray[np.int16], piece: int, rate: int = RATE) -> list[bytes]:
    encoder = AudioEncoder.for_format(audio_format, rate)
    pieces = [encoder.push(samples[i : i + piece].tobytes()) for i in range(0, len(samples), piece)]
    return [*pieces, encoder.finish()]


@pytest.mark.parametrize("audio_format", list(AudioFormat))
@pytest.mark.parametrize("piece", [480, 7777, 48000])
def test_a_stream_decodes_to_what_was_pushed(audio_format: AudioFormat, piece: int) -> None:
    samples = speechlike(2.0)
    copy = decoded(b"".join(streamed(audio_format, samples, piece)), audio_format)
    assert 0 <= len(copy) / RATE - 2.0 < 0.15
    assert best_correlation(samples, copy) > MIN_CORRELATION[audio_format]


@pytest.mark.parametrize("audio_format", list(AudioFormat))
def test_a_whole_file_decodes_to_what_was_given(audio_format: AudioFormat) -> None:
    samples = speechlike(2.0)
    copy = decoded(encode_file(audio_format, samples.tobytes(), RATE), audio_format)
    assert -0.03 < len(copy) / RATE - 2.0 < 0.15
    assert best_correlation(samples, copy) > MIN_CORRELATION[audio_format]


@pytest.mark.parametrize("audio_format", list(AudioFormat))
def test_a_stream_holds_back_no_more_than_its_codec_needs(audio_format: AudioFormat) -> None:
    samples = speechlike(2.0)
    arrived = b"".join(streamed(audio_format, samples, 480)[:-1])
    held_back = 2.0 - len(decoded(arrived, audio_format)) / RATE
    assert held_back <= MAX_HELD_BACK_SECONDS[audio_format] + 1e-9


@pytest.mark.parametrize("audio_format", [AudioFormat.FLAC, AudioFormat.WAV, AudioFormat.MP3, AudioFormat.OPUS])
def test_a_whole_file_tells_its_length(audio_format: AudioFormat) -> None:
    data = encode_file(audio_format, speechlike(1.5).tobytes(), RATE)
    assert soundfile.info(io.BytesIO(data)).duration == pytest.approx(1.5, abs=0.06)


@pytest.mark.parametrize("audio_format", [AudioFormat.FLAC, AudioFormat.WAV])
def test_lossless_formats_return_the_very_samples(audio_format: AudioFormat) -> None:
    samples = speechlike(0.7)
    copy, rate = soundfile.read(io.BytesIO(encode_file(audio_format, samples.tobytes(), RATE)), dtype="int16")
    assert rate == RATE
    np.testing.assert_array_equal(copy, samples)


def test_a_streamed_wav_header_does_not_claim_a_length() -> None:
    data = b"".join(streamed(AudioFormat.WAV, speechlike(0.1), 480))
    assert data[:4] == b"RIFF"
    assert struct.unpack("<I", data[4:8]) == (0xFFFFFFFF,)
    assert data[36:40] == b"data"
    assert struct.unpack("<I", data[40:44]) == (0xFFFFFFFF,)


@pytest.mark.parametrize("audio_format", list(AudioFormat))
def test_a_stream_without_samples_finishes(audio_format: AudioFormat) -> None:
    encoder = AudioEncoder.for_format(audio_format, RATE)
    assert isinstance(encoder.push(b"") + encoder.finish(), bytes)
    assert isinstance(encode_file(audio_format, b"", RATE), bytes)


@pytest.mark.parametrize("audio_format", COMPRESSED)
def test_a_sample_rate_that_a_codec_lacks_is_resampled(audio_format: AudioFormat) -> None:
    samples = speechlike(1.0, 22050)
    data = b"".join(streamed(audio_format, samples, 2205, 22050))
    assert 0 <= len(decoded(data, audio_format, 22050)) / 22050 - 1.0 < 0.15


def test_pcm_names_its_rate_in_the_content_type() -> None:
    assert content_type(AudioFormat.PCM, 24000) == "audio/pcm; rate=24000; channels=1"
    assert pcm_seconds(48000, 24000) == 1.0
