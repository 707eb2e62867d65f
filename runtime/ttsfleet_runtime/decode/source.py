"""The vocoder's excitation: nine harmonics of f0 and noise, mixed into one signal.

Source: tests/goldens/FORMAT.md, section 13.

The phase of harmonic h is the running sum of h * f0 over frames, linear between frame centres and constant before
the first and after the last. It restarts at zero in every call. The sum is kept in float64: in float32 it loses
2e-3 rad within 6 s, and the waveform follows the phase.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import HiFTInfo
from ttsfleet_runtime.decode.weights import Weights

_UNVOICED_SHARE = 1.0 / 3.0


class HarmonicSource:
    """f0 and noise -> excitation. Always float32 or better."""

    def __init__(self, info: HiFTInfo, weights: Weights, *, samples_per_frame: int, sample_rate: int) -> None:
        self.info = info
        self.samples_per_frame = samples_per_frame
        self.sample_rate = sample_rate
        self.mix = weights["m_source.l_linear.weight"].flatten().contiguous()
        self.mix_bias = weights["m_source.l_linear.bias"]
        device = weights.device
        self.harmonics = torch.arange(1, info.nb_harmonics + 2, device=device, dtype=torch.float32)
        centres = (torch.arange(samples_per_frame, device=device, dtype=torch.float64) + 0.5) / samples_per_frame
        self._between_centres = centres[:, None]

    def voiced(self, f0: Tensor) -> Tensor:
        """f0: [frames], Hz -> [frames], 1.0 where voiced, else 0.0."""
        return (f0 > self.info.nsf_voiced_threshold).to(torch.float32)

    def sines(self, f0: Tensor) -> Tensor:
        """f0: [frames], Hz -> [frames * samples_per_frame, harmonics], amplitude nsf_alpha, voiced or not."""
        cycles_per_sample = (f0[:, None] * self.harmonics / self.sample_rate).remainder_(1.0)
        phase = cycles_per_sample.to(torch.float64).cumsum_(0).mul_(self.samples_per_frame)
        centre = torch.cat([phase[:1], phase, phase[-1:]])
        advance = centre[1:] - centre[:-1]
        cycles = torch.addcmul(centre[:-1, None].remainder(1.0), advance[:, None], self._between_centres)
        angle = cycles.sub_(cycles.floor()).to(torch.float32).mul_(2.0 * math.pi)
        half = self.samples_per_frame // 2
        return angle.view(-1, self.harmonics.shape[0])[half:-half].sin().mul_(self.info.nsf_alpha)

    def waves(self, f0: Tensor, noise: Tensor) -> Tensor:
        """Harmonics where voiced, with noise of the level that fits: [samples, harmonics].

        f0: [frames], Hz; noise: [samples, harmonics], N(0, 1), kept.
        """
        voiced = self.voiced(f0)[:, None]
        unvoiced_level = self.info.nsf_alpha * _UNVOICED_SHARE
        level = voiced * self.info.nsf_sigma + (1.0 - voiced) * unvoiced_level
        waves = self.sines(f0).view(f0.shape[0], -1).mul_(voiced)
        return waves.addcmul_(noise.reshape(f0.shape[0], -1), level).view(noise.shape)

    def __call__(self, f0: Tensor, noise: Tensor) -> Tensor:
        """f0: [frames], Hz; noise: [samples, harmonics], N(0, 1) -> the excitation [samples], in (-1, 1)."""
        return torch.mv(self.waves(f0, noise), self.mix).add_(self.mix_bias).tanh_()
