"""The audio formats that a client can ask for, and how HTTP names them."""

from __future__ import annotations

from enum import StrEnum

BYTES_PER_SAMPLE = 2


class AudioFormat(StrEnum):
    """`response_format` of the speech API; the values are OpenAI's."""

    MP3 = "mp3"
    OPUS = "opus"
    AAC = "aac"
    FLAC = "flac"
    WAV = "wav"
    PCM = "pcm"


def content_type(audio_format: AudioFormat, sample_rate: int) -> str:
    """The Content-Type of a body in this format. `pcm` carries its rate, since nothing in the body does."""
    match audio_format:
        case AudioFormat.MP3:
            return "audio/mpeg"
        case AudioFormat.OPUS:
            return "audio/ogg; codecs=opus"
        case AudioFormat.AAC:
            return "audio/aac"
        case AudioFormat.FLAC:
            return "audio/flac"
        case AudioFormat.WAV:
            return "audio/wav"
        case AudioFormat.PCM:
            return f"audio/pcm; rate={sample_rate}; channels=1"


def pcm_seconds(num_bytes: int, sample_rate: int) -> float:
    """Duration of signed 16-bit mono PCM."""
    return num_bytes / BYTES_PER_SAMPLE / sample_rate
