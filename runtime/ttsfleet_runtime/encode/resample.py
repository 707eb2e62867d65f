"""Sample rate conversion by a windowed sinc, equal to torchaudio's default (Hann window, width 6, roll-off 0.99).

After division by the greatest common divisor, output sample k * new + p lies at input k * orig + p * orig / new and
is a dot product of 2 * width + 1 inputs around it with the kernel of phase p. Products are added tap by tap, each
fused with one rounding to float32: the order and rounding of torch's convolution, bit for bit for most rates. That
matters because the logarithmic features show the rounding noise of silent bands. The float64 detour below is an
exact product and one rounding, which is what a fused multiply-add does. Only the taps around a sample are computed,
so rates without a common divisor (44 101 Hz) cost no more than others. Source of the maths: J. O. Smith, "Digital
Audio Resampling Home Page", windowed-sinc interpolation.
"""

from __future__ import annotations

from math import ceil, gcd

import numpy as np
from numpy.typing import NDArray

_WIDTH = 6
_ROLLOFF = 0.99
_BLOCK = 1 << 15
"""Output samples at a time: the working set stays in the second-level cache."""


def resample(samples: NDArray[np.float32], rate_hz: int, target_hz: int) -> NDArray[np.float32]:
    """samples: [n] float32 at `rate_hz`; returns [ceil(n * target / rate)] float32 at `target_hz`."""
    if rate_hz == target_hz:
        return samples
    divisor = gcd(rate_hz, target_hz)
    orig, new = rate_hz // divisor, target_hz // divisor
    width = ceil(_WIDTH * orig / (min(orig, new) * _ROLLOFF))
    length = ceil(new * len(samples) / orig)
    padded = np.zeros(len(samples) + 2 * width + 2)
    padded[width : width + len(samples)] = samples
    phases = min(new, length)
    kernels = _kernels(np.arange(phases), orig, new, width)
    resampled = np.empty(length, dtype=np.float32)
    for start in range(0, length, _BLOCK):
        index = np.arange(start, min(start + _BLOCK, length))
        resampled[start : start + len(index)] = _dot(padded, index * orig // new, kernels[:, index % new])
    return resampled


def _dot(padded: NDArray[np.float64], first: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sum over k of padded[first + k] * weights[k], rounded to float32 after each addition. weights: [taps, n]."""
    total = np.zeros(len(first))
    for tap, weight in enumerate(weights):
        total = (padded[first + tap] * weight + total).astype(np.float32).astype(np.float64)
    return total.astype(np.float32)


def _kernels(phases: NDArray[np.int64], orig: int, new: int, width: int) -> NDArray[np.float64]:
    """[2 * width + 1, phases]: weights of the inputs from `width` before to `width` behind each phase's own.

    Positions are in groups of `orig` inputs; the phase's is rounded to float32, as torchaudio has it.
    """
    own = phases * orig // new
    taps = (own[None, :] + np.arange(-width, width + 1)[:, None]) / orig
    offsets = taps - (phases.astype(np.float32) / np.float32(new))[None, :].astype(np.float64)
    cutoff = min(orig, new) * _ROLLOFF
    x = np.clip(offsets * cutoff, -_WIDTH, _WIDTH)
    window = np.cos(x * (np.pi / (2 * _WIDTH))) ** 2
    weights: NDArray[np.float64] = (np.sinc(x) * window * (cutoff / orig)).astype(np.float32).astype(np.float64)
    return weights
