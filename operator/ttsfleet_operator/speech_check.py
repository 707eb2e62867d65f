"""Whether a WAV file can be the speech that was asked for: its rate, its length for the text, and whether it sounds.

It hears no words: silence, a constant, noise at full scale, a cut or endless answer are found; a wrong sentence of a
plausible length is not. Pure; `ttsfleet check` and with it `helm test` use it.
"""

from __future__ import annotations

import math
import sys
import wave
from array import array
from dataclasses import dataclass
from io import BytesIO

from ttsfleet_operator.errors import SpeechError

FULL_SCALE = 32768.0
FLOOR_DBFS = -100.0  # shown for digital silence, whose level has no logarithm
QUIET_DBFS = -50.0  # speech is tens of decibels above
LOUD_DBFS = -3.0  # a sine at full scale; speech lies far below
LOWEST_SHARE = 0.2  # of the windows of an utterance that sound; pauses are the rest
WINDOW_SECONDS = 0.02
SAMPLE_RATES_HZ = (8000, 48000)
# Seconds per letter or digit: from hurried English to slow Chinese, where one character is a syllable.
SECONDS_PER_CHARACTER = (0.025, 0.6)
PAUSE_SECONDS = 3.0  # before, between and after the words, at most


@dataclass(frozen=True)
class SpeechMeasures:
    """What can be told of a recording. Levels are in dBFS, without a constant offset of the samples."""

    sample_rate_hz: int
    channels: int
    seconds: float
    level_dbfs: float
    sounding_share: float

    def __str__(self) -> str:
        return (
            f"{self.seconds:.2f} s at {self.sample_rate_hz} Hz, level {self.level_dbfs:.1f} dBFS, "
            f"{self.sounding_share:.0%} of it sounding"
        )


def measure_wav(body: bytes) -> SpeechMeasures:
    """Raises SpeechError when the body is no WAV file of 16-bit samples."""
    try:
        with wave.open(BytesIO(body)) as reader:
            width, channels, rate = reader.getsampwidth(), reader.getnchannels(), reader.getframerate()
            raw = reader.readframes(reader.getnframes())
    except (wave.Error, EOFError) as error:
        raise SpeechError(f"the answer of {len(body)} bytes is not a WAV file: {error}") from error
    if width != 2:
        raise SpeechError(f"the WAV file has samples of {8 * width} bits; speech servers send 16")
    samples = array("h", raw[: len(raw) - len(raw) % (2 * channels)])
    if sys.byteorder == "big":
        samples.byteswap()
    offset = sum(samples) / len(samples) if samples else 0.0
    window = max(1, int(WINDOW_SECONDS * rate)) * channels
    windows = [_level_dbfs(samples[start : start + window], offset) for start in range(0, len(samples), window)]
    return SpeechMeasures(
        sample_rate_hz=rate,
        channels=channels,
        seconds=len(samples) / channels / rate,
        level_dbfs=_level_dbfs(samples, offset),
        sounding_share=sum(level > QUIET_DBFS for level in windows) / len(windows) if windows else 0.0,
    )


def faults_of(measures: SpeechMeasures, text: str) -> list[str]:
    """Why the recording cannot be `text` spoken, each with the value and what is plausible; empty when it can."""
    faults: list[str] = []
    lowest, highest = SAMPLE_RATES_HZ
    if not lowest <= measures.sample_rate_hz <= highest:
        faults.append(f"sample rate {measures.sample_rate_hz} Hz (plausible: {lowest} to {highest})")
    shortest, longest = plausible_seconds(text)
    if not shortest <= measures.seconds <= longest:
        faults.append(f"{measures.seconds:.2f} s for this text (plausible: {shortest:.1f} to {longest:.1f})")
    if measures.level_dbfs < QUIET_DBFS:
        faults.append(
            f"silence: level {measures.level_dbfs:.1f} dBFS (plausible: {QUIET_DBFS:.0f} to {LOUD_DBFS:.0f})"
        )
    elif measures.level_dbfs > LOUD_DBFS:
        faults.append(f"noise: level {measures.level_dbfs:.1f} dBFS (plausible: {QUIET_DBFS:.0f} to {LOUD_DBFS:.0f})")
    elif measures.sounding_share < LOWEST_SHARE:
        faults.append(
            f"mostly silence: {measures.sounding_share:.0%} of it sounds (plausible: {LOWEST_SHARE:.0%} or more)"
        )
    return faults


def plausible_seconds(text: str) -> tuple[float, float]:
    """The shortest and the longest that `text` can take, in any language."""
    characters = sum(character.isalnum() for character in text)
    fastest, slowest = SECONDS_PER_CHARACTER
    return characters * fastest, PAUSE_SECONDS + characters * slowest


def _level_dbfs(samples: array[int], offset: float) -> float:
    """Root mean square in decibels of full scale."""
    if not samples:
        return FLOOR_DBFS
    power = sum((sample - offset) ** 2 for sample in samples) / len(samples)
    return max(FLOOR_DBFS, 20 * math.log10(math.sqrt(power) / FULL_SCALE)) if power else FLOOR_DBFS
