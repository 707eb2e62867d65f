"""The vocoder's short-time Fourier transform and its inverse as two small matrix products.

16-point transform, hop 4: the window and the transform are one matrix, frames are rows. The forward transform is
centred with reflect padding, the inverse trims the same half window, so 480 samples of a mel frame are 120 hops and
a signal of 120 T hops has 120 T + 1 frames.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


class ShortTransform:
    """Windowed real DFT with its inverse. Periodic Hann window; n_fft must be a multiple of the hop."""

    def __init__(self, n_fft: int, hop: int, device: torch.device | str) -> None:
        self.n_fft, self.hop = n_fft, hop
        self.num_bins = n_fft // 2 + 1
        sample = torch.arange(n_fft, dtype=torch.float64)
        window = 0.5 - 0.5 * torch.cos(2.0 * math.pi * sample / n_fft)
        angle = 2.0 * math.pi * sample[:, None] * torch.arange(self.num_bins) / n_fft
        forward = torch.cat([angle.cos(), -angle.sin()], dim=1) * window[:, None]
        twice = torch.full((self.num_bins,), 2.0, dtype=torch.float64)
        twice[0] = twice[-1] = 1.0
        inverse = torch.cat([angle.cos() * twice, -angle.sin() * twice], dim=1).T * window / n_fft
        overlaps = (window**2).view(-1, hop)
        envelope = torch.stack([overlaps[:-1].sum(0), overlaps.sum(0), overlaps[1:].sum(0)])
        self.forward_matrix = forward.to(device, torch.float32)  # [n_fft, 2 * bins]
        self.inverse_matrix = inverse.to(device, torch.float32)  # [2 * bins, n_fft]
        self.inverse_envelope = (1.0 / envelope).to(device, torch.float32)  # first hop, inner hops, last hop

    def analyse(self, signal: Tensor) -> Tensor:
        """signal: [samples], a multiple of the hop -> [samples / hop + 1, 2 * bins], real parts then imaginary."""
        half = self.n_fft // 2
        padded = F.pad(signal[None], (half, half), mode="reflect")[0]
        return padded.unfold(0, self.n_fft, self.hop) @ self.forward_matrix

    def overlap_add(self, spectrum: Tensor) -> Tensor:
        """spectrum: [frames, 2 * bins] -> [frames + n_fft / hop - 1, hop] windowed sums, not yet normalised.

        Frames that are zero contribute nothing, so several signals can lie in one buffer, apart by a window.
        """
        pieces = (spectrum @ self.inverse_matrix).view(-1, self.n_fft // self.hop, self.hop)
        frames, overlaps = pieces.shape[:2]
        out = spectrum.new_zeros(frames + overlaps - 1, self.hop)
        for piece in range(overlaps):
            out[piece : piece + frames] += pieces[:, piece]
        return out

    def normalise(self, sums: Tensor) -> Tensor:
        """sums: [hops, hop], the hops of one signal after trimming half a window -> [hops * hop] samples.

        Only the first and the last hop lack one overlapping frame (n_fft = 4 hops).
        """
        out = sums * self.inverse_envelope[1]
        out[0] = sums[0] * self.inverse_envelope[0]
        out[-1] = sums[-1] * self.inverse_envelope[2]
        return out.flatten()
