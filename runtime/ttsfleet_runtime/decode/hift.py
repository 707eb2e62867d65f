"""Mel -> waveform: the HiFT vocoder of CosyVoice2 (tests/goldens/FORMAT.md, section 13), always in float32.

Not causal: a sample depends on 13 mel frames to each side and on its source. A batch on CUDA is packed into one
row buffer with gaps of four mel frames (no convolution reaches further at any rate), zeroed before each convolution,
so every item comes out as if alone. On the CPU items run one after the other without gaps: the convolutions are at
their best rate with a single utterance already, and its buffers stay in cache.

Rows: the three stages run at 8, 40 and 120 rows per mel frame, the last with one row more (reflected on the left),
as the spectrum of 120 T hops has 120 T + 1 frames. Each transposed convolution is a plain one with as many sets of
output channels as it has phases; laid out in rows, its output needs no reordering.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import HiFTInfo
from ttsfleet_runtime.decode.hift_layers import Margins, ResBlock, StageRows
from ttsfleet_runtime.decode.packing import PackedLayout
from ttsfleet_runtime.decode.source import HarmonicSource
from ttsfleet_runtime.decode.spectrum import ShortTransform
from ttsfleet_runtime.decode.weights import RowConv, Weights

_GAP_FRAMES = 4
_FINAL_SLOPE = 0.01
_MAX_MAGNITUDE = 100.0
_SAMPLE_RATE = 24000


def _fold_transposed(weight: Tensor, bias: Tensor, rate: int) -> RowConv:
    """[in, out, taps] of a transposed convolution with stride `rate` -> [rate * out, in, 3], phase-major.

    Output sample rate * t + p takes tap p + pad + rate * (t - i) of input i; only i = t - 1, t, t + 1 are in reach.
    """
    channels_in, channels_out, taps = weight.shape
    padding = (taps - rate) // 2
    folded = weight.new_zeros(rate, channels_out, channels_in, 3)
    for phase in range(rate):
        for neighbour in range(3):
            tap = phase + padding + rate * (1 - neighbour)
            if 0 <= tap < taps:
                folded[phase, :, :, neighbour] = weight[:, :, tap].T
    return RowConv(folded.flatten(0, 1), bias.repeat(rate))


class HiFT:
    """Weights of the vocoder on one device. Holds no state of any request."""

    def __init__(self, info: HiFTInfo, weights: Mapping[str, Tensor], device: torch.device | str) -> None:
        self._build(info, Weights(weights, device))

    @classmethod
    def load(cls, bundle_dir: Path, info: HiFTInfo, device: torch.device | str) -> HiFT:
        """Read `hift.safetensors` of a bundle. Raises CheckpointError naming the file or the missing key."""
        model = cls.__new__(cls)
        model._build(info, Weights.load(bundle_dir / "hift.safetensors", device))
        return model

    @torch.inference_mode()
    def _build(self, info: HiFTInfo, weights: Weights) -> None:
        self.info = info
        self.device = weights.device
        self.hops_per_frame = math.prod(info.upsample_rates)
        self.samples_per_frame = self.hops_per_frame * info.istft_hop
        self.transform = ShortTransform(info.istft_n_fft, info.istft_hop, weights.device)
        self.source = HarmonicSource(
            info, weights, samples_per_frame=self.samples_per_frame, sample_rate=_SAMPLE_RATE
        )
        self.f0_convs = [weights.conv(f"f0_predictor.condnet.{2 * i}") for i in range(5)]
        self.f0_classifier = weights.dense("f0_predictor.classifier")
        self.conv_pre = weights.conv("conv_pre")
        self.conv_post = weights.conv("conv_post")
        num_stages, num_kernels = len(info.upsample_rates), len(info.resblock_kernels)
        self.ups = [
            _fold_transposed(weights[f"ups.{i}.weight"], weights[f"ups.{i}.bias"], rate)
            for i, rate in enumerate(info.upsample_rates)
        ]
        self._spectrum_margin = max(math.prod(info.upsample_rates[1:]) // 2, 1)
        self.source_downs = [
            weights.conv(f"source_downs.{i}", stride=math.prod(info.upsample_rates[i + 1 :]))
            for i in range(num_stages)
        ]
        self.source_resblocks = [
            ResBlock(weights.under(f"source_resblocks.{i}"), dilations)
            for i, dilations in enumerate(info.source_resblock_dilations)
        ]
        self.resblocks = [
            [
                ResBlock(weights.under(f"resblocks.{i * num_kernels + j}"), dilations)
                for j, dilations in enumerate(info.resblock_dilations)
            ]
            for i in range(num_stages)
        ]

    @torch.inference_mode()
    def f0(self, mel: Tensor) -> Tensor:
        """mel: [frames, mel_bins] -> [frames], Hz."""
        rows = self._levels([mel.shape[0]])[0]
        return self._f0(self._packed([mel], rows), rows)[: mel.shape[0]]

    @torch.inference_mode()
    def decode(self, mel: Tensor, source: Tensor) -> Tensor:
        """mel: [frames, mel_bins], source: [480 * frames] -> waveform [480 * frames]."""
        levels = self._levels([mel.shape[0]])
        return self._decode(self._packed([mel], levels[0]), [source.to(self.device)], levels)[0]

    @torch.inference_mode()
    def vocode(
        self,
        mels: Sequence[Tensor],
        noises: Sequence[Tensor],
        cache_sources: Sequence[Tensor | None],
    ) -> list[tuple[Tensor, Tensor]]:
        """Waveform and source of each item, each as if it were alone.

        mels: [frames_i, mel_bins]; noises: [480 * frames_i, harmonics], N(0, 1); cache_sources: samples that replace
        the head of the item's source, or None. Returns (waveform, source), [480 * frames_i] float32 each.
        """
        if self.device.type != "cpu":
            return self._vocode_packed(mels, noises, cache_sources)
        return [
            self._vocode_packed([mel], [noise], [cache])[0]
            for mel, noise, cache in zip(mels, noises, cache_sources, strict=True)
        ]

    def _vocode_packed(
        self, mels: Sequence[Tensor], noises: Sequence[Tensor], cache_sources: Sequence[Tensor | None]
    ) -> list[tuple[Tensor, Tensor]]:
        levels = self._levels([mel.shape[0] for mel in mels])
        frames = levels[0]
        packed = self._packed(mels, frames)
        f0 = self._f0(packed, frames)
        sources = []
        for index, (noise, cache) in enumerate(zip(noises, cache_sources, strict=True)):
            start = frames.starts[index]
            item_f0 = f0[start : start + frames.lengths[index]]
            sources.append(self._excitation(item_f0, noise, cache))
        return list(zip(self._decode(packed, sources, levels), sources, strict=True))

    def _excitation(self, f0: Tensor, noise: Tensor, cache: Tensor | None) -> Tensor:
        if cache is not None and cache.shape[0] == noise.shape[0]:
            return cache.to(self.device, copy=True)
        source = self.source(f0, noise.to(self.device, non_blocking=True))
        if cache is not None:
            source[: cache.shape[0]] = cache.to(self.device, non_blocking=True)
        return source

    def _levels(self, lengths: Sequence[int]) -> list[StageRows]:
        """The layout at each rate: mel frames, then each stage; the last has one row more per item."""
        layout = PackedLayout(lengths, gap=_GAP_FRAMES, copies=1, device="cpu")
        rates = [math.prod(self.info.upsample_rates[:i]) for i in range(len(self.info.upsample_rates) + 1)]
        return [StageRows(layout, rate, int(rate == rates[-1]), self.device) for rate in rates]

    def _packed(self, mels: Sequence[Tensor], rows: StageRows) -> Tensor:
        packed = torch.zeros(rows.num_rows, mels[0].shape[1], device=self.device)
        for start, length, mel in zip(rows.starts, rows.lengths, mels, strict=True):
            packed[start : start + length] = mel.to(self.device, non_blocking=True)
        return packed

    def _f0(self, mel: Tensor, rows: StageRows) -> Tensor:
        """mel: [num_rows, mel_bins] with zeros between and beyond items -> [num_rows], Hz."""
        x = mel
        for conv in self.f0_convs:
            x = F.elu_(conv.same(rows.zero_gaps(x)))
            x[rows.num_used :] = 0.0
        return self.f0_classifier(x)[:, 0].abs()

    def _decode(self, mel: Tensor, sources: Sequence[Tensor], levels: Sequence[StageRows]) -> list[Tensor]:
        """mel: as for `_f0`; sources: [480 * frames_i] -> waveforms [480 * frames_i]."""
        spectrum = self._source_spectrum(sources, levels[-1])
        x = self.conv_pre.same(mel)
        for stage, rate in enumerate(self.info.upsample_rates):
            x = self._upsample(x, stage, rate, levels)
            rows, blocks = levels[stage + 1], self.resblocks[stage]
            reach = max(block.reach for block in [self.source_resblocks[stage], *blocks])
            margins = Margins(rows, x.shape[1], reach, self.device)
            x.add_(self.source_resblocks[stage](self._downsample(spectrum, stage, rows), margins))
            first, *others = [block(x, margins) for block in blocks]
            for other in others:
                first.add_(other)
            x = first.mul_(1.0 / len(blocks))
        x = self._clean(F.leaky_relu_(x, _FINAL_SLOPE), levels[-1])
        return self._synthesise(self.conv_post.same(x), levels[-1])

    @staticmethod
    def _clean(x: Tensor, rows: StageRows) -> Tensor:
        """Zero what lies between and beyond items, in place."""
        x[rows.num_used :] = 0.0
        return rows.zero_gaps(x)

    def _upsample(self, x: Tensor, stage: int, rate: int, levels: Sequence[StageRows]) -> Tensor:
        """[num_rows of the level before, channels] -> [num_rows of the stage, channels / 2]."""
        x = self._clean(F.leaky_relu_(x, self.info.lrelu_slope), levels[stage])
        up = self.ups[stage]
        x = up.same(x).view(-1, up.channels_out // rate)
        if stage < len(self.ups) - 1:
            return x
        rows = levels[-1]
        out = x.new_empty(rows.num_rows, x.shape[1])
        out[1:] = x
        for start in rows.starts:
            out[start] = x[start + 1]  # one row more on the left of each item: the reflection of its second
        return out

    def _source_spectrum(self, sources: Sequence[Tensor], rows: StageRows) -> Tensor:
        """[num_rows of the last level, 2 * bins] between margins for `_downsample`, zero where no item is."""
        margin = self._spectrum_margin
        spectrum = torch.zeros(rows.num_rows + 2 * margin, 2 * self.transform.num_bins, device=self.device)
        for start, length, source in zip(rows.starts, rows.lengths, sources, strict=True):
            spectrum[margin + start : margin + start + length] = self.transform.analyse(source)
        return spectrum

    def _downsample(self, spectrum: Tensor, stage: int, rows: StageRows) -> Tensor:
        conv = self.source_downs[stage]
        first = self._spectrum_margin - conv.stride // 2
        return conv(spectrum[first : first + (rows.num_rows - 1) * conv.stride + conv.taps])

    def _synthesise(self, x: Tensor, rows: StageRows) -> list[Tensor]:
        """x: [num_rows, 2 * bins], log-magnitudes then arguments of the phase's sine -> a waveform per item."""
        bins = self.transform.num_bins
        used = x[: rows.num_used]
        magnitude = used[:, :bins].exp().clamp_(max=_MAX_MAGNITUDE)
        phase = used[:, bins:].sin()
        spectrum = rows.zero_gaps(torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1))
        sums = self.transform.overlap_add(spectrum)
        trim = self.info.istft_n_fft // self.info.istft_hop // 2
        limit = self.info.audio_limit
        waves = []
        for start, length in zip(rows.starts, rows.lengths, strict=True):
            hops = sums[start + trim : start + trim + length - 1]
            waves.append(self.transform.normalise(hops).clamp_(-limit, limit))
        return waves
