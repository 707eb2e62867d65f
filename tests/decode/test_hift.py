"""The vocoder: batches equal items alone, streams join without a jump, and each folded operator its plain form."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.decode.hift import HiFT, _fold_transposed
from ttsfleet_runtime.decode.noise import vocoder_noise
from ttsfleet_runtime.decode.spectrum import ShortTransform
from ttsfleet_runtime.decode.vocoder_stream import OVERLAP_FRAMES, StreamVocoder, resample_mel


@pytest.fixture(scope="module")
def hift(random_v2_bundle: Path) -> HiFT:
    return HiFT.load(random_v2_bundle, read_model_info(random_v2_bundle).hift, "cpu")


def some_mel(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(frames, 80, generator=torch.Generator().manual_seed(seed)) - 3.0


def noise_from(first: int, count: int) -> torch.Tensor:
    return vocoder_noise(7, 0, first, count)


@pytest.mark.parametrize("packed", [False, True], ids=["item by item", "packed"])
def test_batch_equals_items_alone(hift: HiFT, packed: bool) -> None:
    mels = [some_mel(n, n) for n in (31, 9, 64, 1)]
    noises = [vocoder_noise(3, i, 0, 480 * len(mel)) for i, mel in enumerate(mels)]
    caches = [None, torch.linspace(-1.0, 1.0, 3840), None, None]
    vocode = hift._vocode_packed if packed else hift.vocode
    together = vocode(mels, noises, caches)
    for mel, noise, cache, (waveform, source) in zip(mels, noises, caches, together, strict=True):
        [(alone, alone_source)] = hift.vocode([mel], [noise], [cache])
        assert waveform.shape == source.shape == (480 * len(mel),)
        torch.testing.assert_close(source, alone_source, rtol=0, atol=1e-4)
        torch.testing.assert_close(waveform, alone, rtol=0, atol=1e-4)


def test_the_cached_source_replaces_the_head(hift: HiFT) -> None:
    cache = torch.linspace(-0.5, 0.5, 3840)
    mel = some_mel(20)
    [(_, source)] = hift.vocode([mel], [noise_from(0, 9600)], [cache])
    assert torch.equal(source[:3840], cache)
    [(_, free)] = hift.vocode([mel], [noise_from(0, 9600)], [None])
    assert torch.equal(source[3840:], free[3840:])


def test_a_source_given_whole_is_used_and_not_shared(hift: HiFT) -> None:
    given = torch.linspace(-0.5, 0.5, 9600)
    [(_, source)] = hift.vocode([some_mel(20)], [torch.zeros(9600, 9)], [given])
    assert torch.equal(source, given)
    assert source.data_ptr() != given.data_ptr()


def test_stream_says_every_sample_once(hift: HiFT) -> None:
    mel = some_mel(90)
    stream = StreamVocoder(hift)
    chunks = [stream.push(mel[:50], noise_from, False), stream.push(mel[50:70], noise_from, False)]
    assert [len(chunk) for chunk in chunks] == [480 * (50 - OVERLAP_FRAMES), 480 * 20]
    assert stream.cache_mel is not None
    chunks.append(stream.push(mel[70:], noise_from, True))
    assert sum(len(chunk) for chunk in chunks) == 480 * 90
    assert stream.cache_mel is None


def test_noise_is_read_at_the_position_in_the_segment(hift: HiFT) -> None:
    asked: list[tuple[int, int]] = []

    def noise(first: int, count: int) -> torch.Tensor:
        asked.append((first, count))
        return noise_from(first, count)

    stream = StreamVocoder(hift)
    for begin, end, final in ((0, 50, False), (50, 70, False), (70, 90, True)):
        stream.push(some_mel(90)[begin:end], noise, final)
    assert asked == [(0, 480 * 50), (480 * 42, 480 * 28), (480 * 62, 480 * 28)]


def test_preparing_twice_changes_nothing(hift: HiFT) -> None:
    stream = StreamVocoder(hift)
    stream.push(some_mel(30), noise_from, False)
    first, second = (stream.prepare(some_mel(20, 1), noise_from) for _ in range(2))
    assert torch.equal(first.mel, second.mel)
    assert torch.equal(first.noise, second.noise)


def test_sines_follow_f0(hift: HiFT) -> None:
    sines = hift.source.sines(torch.full((50,), 240.0))
    assert sines.shape == (24000, 9)
    settled = sines[480:-480]
    for harmonic in range(9):
        crossings = int(((settled[1:, harmonic] >= 0) & (settled[:-1, harmonic] < 0)).sum())
        assert abs(crossings - 0.96 * 240 * (harmonic + 1)) <= 1
    assert float(sines.abs().max()) == pytest.approx(0.1, abs=1e-6)


def test_phase_is_continuous_over_frames_of_changing_f0(hift: HiFT) -> None:
    f0 = torch.linspace(100.0, 300.0, 40)
    fundamental = hift.source.sines(f0)[:, 0]
    steepest = 0.1 * 2.0 * math.pi * 320.0 / 24000.0
    assert float(fundamental.diff().abs().max()) < steepest


@pytest.mark.parametrize(("taps", "rate"), [(16, 8), (11, 5), (7, 3)])
def test_folded_upsampling_equals_the_transposed_convolution(taps: int, rate: int) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(6, 4, taps), torch.randn(4), torch.randn(1, 6, 30)
    expected = F.conv_transpose1d(x, weight, bias, stride=rate, padding=(taps - rate) // 2)[0].T
    folded = _fold_transposed(weight, bias, rate).same(x[0].T.contiguous()).view(-1, 4)
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-5)


def test_short_transform_equals_stft_and_its_inverse() -> None:
    torch.manual_seed(0)
    signal, window = torch.randn(960), torch.hann_window(16)
    transform = ShortTransform(16, 4, "cpu")
    spectrum = transform.analyse(signal)
    reference = torch.stft(signal, 16, 4, 16, window, return_complex=True)
    torch.testing.assert_close(spectrum, torch.cat([reference.real, reference.imag]).T, rtol=0, atol=1e-5)
    scaled = spectrum * torch.rand(18)
    inverse = torch.istft(torch.complex(scaled[:, :9].T, scaled[:, 9:].T), 16, 4, 16, window)
    got = transform.normalise(transform.overlap_add(scaled)[2:-2])
    torch.testing.assert_close(got, inverse, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("frames", "speed", "expected"), [(60, 1.0, 60), (60, 0.8, 75), (60, 1.3, 46), (1, 4.0, 1)])
def test_speed_changes_the_number_of_frames(frames: int, speed: float, expected: int) -> None:
    assert resample_mel(some_mel(frames), speed).shape == (expected, 80)
