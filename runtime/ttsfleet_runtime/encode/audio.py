"""Reads prompt audio: any file that libsndfile knows (wav, flac, ogg, mp3, aiff, ...), as mono float32.

Size, duration, rate and channels are checked before samples are decoded, so that a small file cannot unfold into
gigabytes. Resampling is `encode.resample`'s, features are `encode.features`'.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray

from ttsfleet_runtime.config.plan import LimitsPlan
from ttsfleet_runtime.errors import InvalidRequestError, TooLargeError

MIN_RATE_HZ = 16_000
MAX_RATE_HZ = 192_000
MIN_SECONDS = 0.1
MAX_CHANNELS = 8

_PARAM = "ref_audio"


@dataclass(frozen=True)
class PromptAudio:
    """samples: [n] float32, mono, in [-1, 1] as the file has them; rate_hz: the file's own."""

    samples: NDArray[np.float32]
    rate_hz: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate_hz


def load_audio(data: bytes, limits: LimitsPlan) -> PromptAudio:
    """Decode a whole audio file from memory; channels are averaged.

    Raises TooLargeError beyond `limits.prompt_bytes`, and InvalidRequestError for what is no audio, has a rate,
    duration or channel count out of range, or holds samples that are not finite or are all zero.
    """
    if len(data) > limits.prompt_bytes:
        raise TooLargeError(
            f"prompt audio is {len(data)} bytes; at most {limits.prompt_bytes} are accepted (limits.prompt_bytes)",
            param=_PARAM,
        )
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate_hz = file.samplerate
            _check_format(rate_hz, file.channels)
            max_frames = int(limits.prompt_seconds * rate_hz)
            if file.frames > max_frames:
                raise _too_long(file.frames / rate_hz, limits)
            frames = file.read(max_frames + 1, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, EOFError, ValueError, RuntimeError) as error:
        raise InvalidRequestError(
            f"prompt audio cannot be read ({_reason(error)}); send wav, flac, ogg or mp3", param=_PARAM
        ) from error
    samples = np.ascontiguousarray(frames.mean(axis=1, dtype=np.float32))
    if len(samples) > max_frames:
        raise _too_long(len(samples) / rate_hz, limits)
    _check_samples(samples, rate_hz)
    return PromptAudio(samples, rate_hz)


def _check_format(rate_hz: int, channels: int) -> None:
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise InvalidRequestError(
            f"prompt audio has {rate_hz} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are accepted: "
            "record it at 16 kHz or more (resampling a narrow-band recording does not help)",
            param=_PARAM,
        )
    if channels > MAX_CHANNELS:
        raise InvalidRequestError(
            f"prompt audio has {channels} channels; at most {MAX_CHANNELS} are accepted: mix it down to mono",
            param=_PARAM,
        )


def _check_samples(samples: NDArray[np.float32], rate_hz: int) -> None:
    seconds = len(samples) / rate_hz
    if seconds < MIN_SECONDS:
        raise InvalidRequestError(
            f"prompt audio is {seconds:.3g} s long; at least {MIN_SECONDS} s is needed, 3 to 10 s work best",
            param=_PARAM,
        )
    if not np.isfinite(samples).all():
        raise InvalidRequestError(
            "prompt audio has samples that are not finite numbers: export it again", param=_PARAM
        )
    if not samples.any():
        raise InvalidRequestError("prompt audio is digital silence: send a recording of the voice", param=_PARAM)


def _too_long(seconds: float, limits: LimitsPlan) -> InvalidRequestError:
    return InvalidRequestError(
        f"prompt audio is {seconds:.1f} s; at most {limits.prompt_seconds:g} s is accepted (limits.prompt_seconds)",
        param=_PARAM,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        return str(error.error_string).strip().rstrip(".")
    return str(error) or type(error).__name__
