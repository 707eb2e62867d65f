"""Golden cases of constant tables: the flow's fixed noise, the fade and the STFT window."""

from __future__ import annotations

import torch

from ttsfleet_runtime.decode import vocoder_stream
from ttsfleet_runtime.decode.noise import flow_noise
from ttsfleet_runtime.decode.spectrum import ShortTransform
from ttsfleet_runtime.verify.registry import Case, Context, Outputs, golden


@golden("fixed_noise")
def fixed_noise(case: Case, context: Context) -> Outputs:
    """The first frames of the flow's noise, [1, 80, frames]. The other tables of this case are version 3's."""
    num_frames = case.outputs["flow_rand_noise_600"].shape[-1]
    return {"flow_rand_noise_600": flow_noise(num_frames, context.device).T[None].cpu().numpy()}


@golden("windows")
def windows(case: Case, context: Context) -> Outputs:
    """The cross-fade's window [7680], rising half then falling half, and the STFT's window [16].

    The transform keeps its window inside one matrix; the column of frequency 0 is the window itself.
    """
    device = torch.device(context.device)
    halves = vocoder_stream._fade(case.outputs["hamming_7680"].shape[0] // 2, device)
    n_fft = case.outputs["istft_hann16"].shape[0]
    transform = ShortTransform(n_fft, n_fft // 4, device)
    return {
        "hamming_7680": torch.cat(halves).cpu().numpy(),
        "istft_hann16": transform.forward_matrix[:, 0].cpu().numpy(),
    }
