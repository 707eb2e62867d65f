"""What is left to vocode of a flow call's mel: one pass for a chunk of a stream, several windows for a whole file.

A pass over a long file would hold up every stream behind it (1.6 s for 30 s of audio, one core), so a file is spoken
in windows that the scheduler can pass over. That is exact: given the source, a sample depends on 13 mel frames and on
6,900 source samples (15 frames) to each side, so a window with a margin of 15 frames gives the samples of the whole
pass, up to rounding. f0 and source are computed once over the whole, since the phase runs through; they are a tenth
of the work. Windows of 200 frames are also faster than the whole (buffers stay in cache).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ttsfleet_runtime.decode.hift import HiFT
from ttsfleet_runtime.decode.vocoder_stream import NoiseFunction, StreamVocoder, VocoderInput

MARGIN_FRAMES = 15
WINDOW_FRAMES = 170


class VocoderWork(Protocol):
    """Vocoder passes still to do for one flow call."""

    @property
    def frames(self) -> int:
        """Mel frames of the next pass."""
        ...

    def prepare(self) -> VocoderInput:
        """The next pass; changes nothing, so that it can be tried again."""
        ...

    def accept(self, call: VocoderInput, waveform: Tensor, source: Tensor) -> Tensor | None:
        """Take a pass's result: the call's audio [samples] once all passes are done, else None."""
        ...


class ChunkWork:
    """One pass: a chunk of a stream, joined to the one before it."""

    def __init__(self, stream: StreamVocoder, mel: Tensor, noise: NoiseFunction, *, final: bool) -> None:
        """mel: float32 [frames, mel_bins], the chunk's new frames."""
        self._stream = stream
        self._mel = mel
        self._noise = noise
        self._final = final

    @property
    def frames(self) -> int:
        cached = self._stream.cache_mel
        return self._mel.shape[0] + (0 if cached is None else cached.shape[0])

    def prepare(self) -> VocoderInput:
        return self._stream.prepare(self._mel, self._noise)

    def accept(self, call: VocoderInput, waveform: Tensor, source: Tensor) -> Tensor | None:
        return self._stream.accept(call, waveform, source, final=self._final)


class FileWork:
    """A whole segment in windows of equal length, the last one shorter."""

    def __init__(self, hift: HiFT, mel: Tensor, noise: NoiseFunction, *, window_frames: int = WINDOW_FRAMES) -> None:
        """mel: float32 [frames, mel_bins]."""
        self._hift = hift
        self._mel = mel
        self._noise = noise
        num_windows = -(-mel.shape[0] // window_frames)
        self._window = -(-mel.shape[0] // num_windows)
        self._begin = 0
        self._source: Tensor | None = None
        self._waves: list[Tensor] = []

    @property
    def frames(self) -> int:
        first, last = self._bounds()
        return last - first

    def prepare(self) -> VocoderInput:
        if self._source is None:
            rate = self._hift.samples_per_frame
            self._source = self._hift.source(
                self._hift.f0(self._mel), self._noise(0, self._mel.shape[0] * rate).to(self._hift.device)
            )
        first, last = self._bounds()
        rate = self._hift.samples_per_frame
        source = self._source[first * rate : last * rate]
        # The window's source is given whole, so that its noise is never heard.
        noise = torch.zeros(1, 1, device=source.device).expand(source.shape[0], self._hift.info.nb_harmonics + 1)
        return VocoderInput(self._mel[first:last], noise, source)

    def accept(self, call: VocoderInput, waveform: Tensor, source: Tensor) -> Tensor | None:
        first, _ = self._bounds()
        end = min(self._begin + self._window, self._mel.shape[0])
        rate = self._hift.samples_per_frame
        self._waves.append(waveform[(self._begin - first) * rate : (end - first) * rate].clone())
        self._begin = end
        return torch.cat(self._waves) if end == self._mel.shape[0] else None

    def _bounds(self) -> tuple[int, int]:
        """First and last (exclusive) frame of the next window with its margins."""
        last = self._begin + self._window + MARGIN_FRAMES
        return max(self._begin - MARGIN_FRAMES, 0), min(last, self._mel.shape[0])
