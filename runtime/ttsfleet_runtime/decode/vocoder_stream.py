"""Joining vocoder calls into one stream: what a request carries from chunk to chunk.

Source: tests/goldens/FORMAT.md, section 15.

The vocoder is not causal, so each chunk is spoken again from eight mel frames before its border: with the source of
those frames kept (the excitation must not jump there), and with the audio of the overlap cross-faded. 3,840 samples
(eight frames) of each chunk but the last are therefore held back until the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ttsfleet_runtime.decode.hift import HiFT

OVERLAP_FRAMES = 8

NoiseFunction = Callable[[int, int], Tensor]
"""(first sample of the segment, number of samples) -> N(0, 1), [samples, harmonics]."""


@dataclass(frozen=True, eq=False)
class VocoderInput:
    """What one vocoder call takes: mel [frames, mel_bins], noise [480 * frames, harmonics], source of the overlap."""

    mel: Tensor
    noise: Tensor
    cache_source: Tensor | None


@lru_cache(maxsize=8)
def _fade(overlap: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rising and falling half of a symmetric Hamming window: [overlap] each."""
    window = torch.from_numpy(np.hamming(2 * overlap)).to(device, torch.float32)
    return window[:overlap], window[overlap:]


class StreamVocoder:
    """The state of one request's vocoder stream, on the vocoder's device.

    Use `push`, or, to batch several streams into one vocoder call, `prepare` each, `HiFT.vocode` once, `accept` each.
    A complete utterance is one `push` with `final`.
    """

    def __init__(self, hift: HiFT) -> None:
        self._hift = hift
        self._overlap = OVERLAP_FRAMES * hift.samples_per_frame
        self._next_frame = 0
        self.cache_mel: Tensor | None = None  # [8, mel_bins]
        self.cache_source: Tensor | None = None  # [3840]
        self.cache_speech: Tensor | None = None  # [3840], after fading

    def prepare(self, mel_new: Tensor, noise_fn: NoiseFunction) -> VocoderInput:
        """The vocoder call that speaks `mel_new` ([frames, mel_bins]); changes nothing."""
        mel = mel_new if self.cache_mel is None else torch.cat([self.cache_mel, mel_new.to(self.cache_mel.device)])
        first_frame = self._next_frame - (mel.shape[0] - mel_new.shape[0])
        rate = self._hift.samples_per_frame
        return VocoderInput(mel, noise_fn(first_frame * rate, mel.shape[0] * rate), self.cache_source)

    def accept(self, call: VocoderInput, waveform: Tensor, source: Tensor, *, final: bool) -> Tensor:
        """Take the result of `call`; returns the samples that can be played now (all of them if `final`)."""
        if self.cache_speech is not None:
            rising, falling = _fade(self._overlap, waveform.device)
            head = waveform[: self._overlap] * rising + self.cache_speech * falling
            waveform = torch.cat([head, waveform[self._overlap :]])
        num_cached_frames = 0 if self.cache_mel is None else OVERLAP_FRAMES
        self._next_frame += call.mel.shape[0] - num_cached_frames
        if final:
            self.cache_mel = self.cache_source = self.cache_speech = None
            return waveform
        self.cache_mel = call.mel[-OVERLAP_FRAMES:].to(waveform.device).clone()
        self.cache_source = source[-self._overlap :].clone()
        self.cache_speech = waveform[-self._overlap :].clone()
        return waveform[: -self._overlap]

    def push(self, mel_new: Tensor, noise_fn: NoiseFunction, final: bool) -> Tensor:
        """Speak `mel_new` ([frames, mel_bins], at least eight in a first call that is not final): [samples]."""
        call = self.prepare(mel_new, noise_fn)
        waveform, source = self._hift.vocode([call.mel], [call.noise], [call.cache_source])[0]
        return self.accept(call, waveform, source, final=final)


def resample_mel(mel: Tensor, speed: float) -> Tensor:
    """Change the speaking rate: [frames, mel_bins] -> [int(frames / speed), mel_bins], linear in time.

    speed: 2.0 is twice as fast. At least one frame remains.
    """
    if speed == 1.0:
        return mel
    frames = max(1, int(mel.shape[0] / speed))
    resampled = F.interpolate(mel.T[None], size=frames, mode="linear", align_corners=False)
    return resampled[0].T.contiguous()
