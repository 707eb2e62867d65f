"""The two noises of the audio stage: the flow's fixed start and the vocoder's excitation."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ttsfleet_runtime import philox
from ttsfleet_runtime.errors import InvalidRequestError

MAX_FLOW_FRAMES = 15000
_MEL_BINS = 80
_HARMONICS = 9


@lru_cache(maxsize=4)
def _flow_table(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(1, _MEL_BINS, MAX_FLOW_FRAMES, generator=generator)
    return table[0].T.contiguous().to(device)


def flow_noise(num_frames: int, device: torch.device | str = "cpu") -> Tensor:
    """Start of the ODE: the same table for every model and request, read from the first prompt frame.

    Returns [num_frames, 80] float32, a view that must not be written to. Raises InvalidRequestError beyond 15,000
    frames (300 s of prompt and speech together), where the table ends.
    """
    if num_frames > MAX_FLOW_FRAMES:
        raise InvalidRequestError(
            f"prompt and speech are {num_frames} mel frames together; at most {MAX_FLOW_FRAMES} (300 s) fit the "
            "model's fixed noise; send shorter text or a shorter prompt"
        )
    return _flow_table(torch.device(device))[:num_frames]


def vocoder_noise(
    seed: int,
    segment: int,
    first_sample: int,
    num_samples: int,
    harmonics: int = _HARMONICS,
    device: torch.device | str = "cpu",
) -> Tensor:
    """N(0, 1) for samples from `first_sample` of a segment: [num_samples, harmonics] float32."""
    return philox.normals(seed, segment, first_sample, num_samples, harmonics, device)
