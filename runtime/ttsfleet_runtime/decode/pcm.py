"""Samples as they leave the decode stage."""

from __future__ import annotations

import torch
from torch import Tensor


def to_pcm(wave: Tensor) -> bytes:
    """Signed 16-bit little-endian PCM of a wave: round(32767 x), half to even, clipped to [-1, 1].

    wave: float [samples], any device. Raises ValueError when a sample is not finite.
    """
    if not bool(torch.isfinite(wave).all()):
        raise ValueError("the models produced samples that are not finite")
    samples = (wave.to(torch.float32).clamp(-1.0, 1.0) * 32767.0).round().to(torch.int16)
    return samples.cpu().numpy().astype("<i2", copy=False).tobytes()
