"""Acoustic features of a prompt, equal to the reference's: 24 kHz mel, Whisper log-mel, Kaldi filter bank.

Computed in float64, returned in float32. In bands far below the peak the logarithm shows the rounding noise of frame
mean, window and Fourier transform, so that two libraries differ there by up to 0.01 (measured: torch's float32
against this); an `Arithmetic` can be passed in for a comparison value by value. Windows and filter banks are computed
once per set of dimensions. Formulas: Slaney's Auditory Toolbox mel scale (librosa's default), HTK mel scale (Kaldi).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from ttsfleet_runtime.checkpoint.bundle import MelInfo

Samples = NDArray[np.float32]
Features = NDArray[np.float32]

Window = Literal["hann", "povey"]

RATE_HZ = 16_000
"""Of the speech tokenizer's and the speaker encoder's input."""

_WHISPER_FFT, _WHISPER_HOP, _WHISPER_MELS = 400, 160, 128
_KALDI_WINDOW, _KALDI_HOP, _KALDI_FFT, _KALDI_MELS, _KALDI_LOW_HZ = 400, 160, 512, 80, 20.0
_FLOAT_EPSILON = 1.1920928955078125e-07


@dataclass(frozen=True)
class Arithmetic:
    """The two operations whose rounding shows in silent bands.

    mean: of each frame, [frames, k] float32 to [frames, 1]
    spectra: frames [frames, k], a window of k and n >= k to the spectra [frames, n // 2 + 1] of the windowed frames
    """

    mean: Callable[[NDArray[np.float32]], NDArray[np.floating]]
    spectra: Callable[[NDArray[np.float32], Window, int], NDArray[np.complexfloating]]


def _mean(frames: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(frames.mean(axis=1, keepdims=True, dtype=np.float64))


def _spectra(frames: NDArray[np.float32], window: Window, n_fft: int) -> NDArray[np.complex128]:
    return np.fft.rfft(frames * _window(window, frames.shape[1]), n=n_fft, axis=1)


FLOAT64 = Arithmetic(_mean, _spectra)
"""What production uses."""


def prompt_mel(samples: Samples, sample_rate: int, mel: MelInfo, arithmetic: Arithmetic = FLOAT64) -> Features:
    """The flow's prompt feature. samples: [n] at `sample_rate`; returns [n // hop, num_mels], natural log.

    Reflect-padded by (n_fft - hop) / 2, not centred. Needs more samples than that padding.
    """
    padded = np.pad(samples, (mel.n_fft - mel.hop) // 2, mode="reflect")
    power = _power(arithmetic.spectra(_frames(padded, mel.n_fft, mel.hop), "hann", mel.n_fft))
    fmax = sample_rate / 2 if mel.fmax is None else mel.fmax
    banks = slaney_filters(sample_rate, mel.n_fft, mel.num_mels, mel.fmin, fmax)
    return np.log(np.maximum(np.sqrt(power + 1e-9) @ banks, 1e-5)).astype(np.float32)


def whisper_log_mel(samples: Samples, arithmetic: Arithmetic = FLOAT64) -> Features:
    """The speech tokenizer's input. samples: [n] at 16 kHz; returns [128, n // 160]."""
    padded = np.pad(samples, _WHISPER_FFT // 2, mode="reflect")
    frames = _frames(padded, _WHISPER_FFT, _WHISPER_HOP)[:-1]
    power = _power(arithmetic.spectra(frames, "hann", _WHISPER_FFT))
    banks = slaney_filters(RATE_HZ, _WHISPER_FFT, _WHISPER_MELS, 0.0, RATE_HZ / 2)
    log_mel = np.log10(np.maximum(power @ banks, 1e-10))
    log_mel = (np.maximum(log_mel, log_mel.max() - 8.0) + 4.0) / 4.0
    return np.ascontiguousarray(log_mel.T, dtype=np.float32)


def kaldi_filter_bank(samples: Samples, arithmetic: Arithmetic = FLOAT64) -> Features:
    """Log mel energies as Kaldi computes them, without dither.

    samples: [n] at 16 kHz, n >= 400; returns [1 + (n - 400) // 160, 80], natural log.
    Frames lie wholly inside the signal. The speaker encoder takes them less their mean over time.
    """
    frames = _frames(samples, _KALDI_WINDOW, _KALDI_HOP)
    centred = np.asarray(frames - arithmetic.mean(frames), dtype=np.float32)
    previous = np.concatenate([centred[:, :1], centred[:, :-1]], axis=1)
    emphasized = np.asarray(centred - np.float32(0.97) * previous, dtype=np.float32)
    power = _power(arithmetic.spectra(emphasized, "povey", _KALDI_FFT))
    return np.log(np.maximum(power @ _kaldi_filters(), _FLOAT_EPSILON)).astype(np.float32)


def _frames(samples: Samples, size: int, hop: int) -> NDArray[np.float32]:
    """[1 + (n - size) // hop, size], a view."""
    return sliding_window_view(samples, size)[::hop]


def _power(spectrum: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    power: NDArray[np.float64] = spectrum.real.astype(np.float64) ** 2 + spectrum.imag.astype(np.float64) ** 2
    return power


@lru_cache(maxsize=8)
def _window(name: Window, size: int) -> NDArray[np.float64]:
    """Periodic Hann window, or Kaldi's: a symmetric Hann window to the power of 0.85."""
    period = size if name == "hann" else size - 1
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / period)
    return window if name == "hann" else window**0.85


@lru_cache(maxsize=8)
def slaney_filters(rate_hz: int, n_fft: int, num_mels: int, fmin: float, fmax: float) -> NDArray[np.float64]:
    """Triangular filters of equal area, [n_fft // 2 + 1, num_mels]; linear below 1 kHz, logarithmic above."""
    edges = _slaney_to_hz(np.linspace(_hz_to_slaney(fmin), _hz_to_slaney(fmax), num_mels + 2))
    bins = np.linspace(0, rate_hz / 2, n_fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))
    return filters


_LINEAR_HZ_PER_MEL = 200 / 3
_LOG_START_HZ = 1000.0
_LOG_START_MEL = _LOG_START_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def _hz_to_slaney(hz: float) -> float:
    if hz < _LOG_START_HZ:
        return hz / _LINEAR_HZ_PER_MEL
    return float(_LOG_START_MEL + np.log(hz / _LOG_START_HZ) / _LOG_STEP)


def _slaney_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mel * _LINEAR_HZ_PER_MEL
    logarithmic = _LOG_START_HZ * np.exp(_LOG_STEP * (mel - _LOG_START_MEL))
    return np.where(mel < _LOG_START_MEL, linear, logarithmic)


@lru_cache(maxsize=1)
def _kaldi_filters() -> NDArray[np.float64]:
    """[257, 80]: triangles on the HTK mel scale from 20 Hz to Nyquist; the Nyquist bin counts for nothing."""
    edges = np.linspace(_htk_mel(_KALDI_LOW_HZ), _htk_mel(RATE_HZ / 2), _KALDI_MELS + 2)
    bins = _htk_mel(np.arange(_KALDI_FFT // 2, dtype=np.float64) * RATE_HZ / _KALDI_FFT)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.zeros((_KALDI_FFT // 2 + 1, _KALDI_MELS))
    filters[:-1] = np.maximum(0, np.minimum(rising, falling))
    return filters


def _htk_mel(hz: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log(1.0 + np.asarray(hz, dtype=np.float64) / 700.0))
