"""In a batch or alone, in windows or whole: the audio stage's arithmetic gives the same result. Random shapes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.decode.attention import PackedAttention
from ttsfleet_runtime.decode.flow import FlowJob, FlowModel
from ttsfleet_runtime.decode.hift import HiFT
from ttsfleet_runtime.decode.packing import PackedLayout
from ttsfleet_runtime.decode.vocoder_work import FileWork

SEEDS = range(4)
# Sums of other lengths come in another order: relative to values of order 5, 1e-5 is a few float32 roundings.
FLOW_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def flow(random_v2_bundle: Path) -> FlowModel:
    return FlowModel.load(random_v2_bundle, read_model_info(random_v2_bundle).flow, "cpu")


@pytest.fixture(scope="module")
def hift(random_v2_bundle: Path) -> HiFT:
    return HiFT.load(random_v2_bundle, read_model_info(random_v2_bundle).hift, "cpu")


def some_job(flow: FlowModel, seed: int) -> FlowJob:
    """A job of random length, prompt and mask; the same seed gives the same job."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    num_prompt = rng.choice([0, 0, 1, 30, 61])
    tokens = torch.randint(0, flow.info.vocab_size, (rng.choice([4, 5, 25, 28, 53, 90]),), generator=generator)
    return flow.begin(
        tokens,
        torch.randint(0, flow.info.vocab_size, (num_prompt,), generator=generator),
        torch.randn(2 * num_prompt, flow.info.mel_bins, generator=generator),
        torch.randn(flow.info.spk_embed_dim, generator=generator),
        streaming=rng.random() < 0.5,
        finalize=rng.random() < 0.5,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_jobs_that_join_pause_and_leave_are_solved_as_if_alone(flow: FlowModel, seed: int) -> None:
    rng = random.Random(seed)
    seeds = [100 * seed + number for number in range(5)]
    together = {job_seed: some_job(flow, job_seed) for job_seed in seeds}
    while unsolved := [job for job in together.values() if not job.done]:
        flow.advance(rng.sample(unsolved, rng.randint(1, len(unsolved))), rng.randint(1, 4))
    for job_seed, job in together.items():
        alone = some_job(flow, job_seed)
        flow.advance([alone], flow.info.num_steps)
        torch.testing.assert_close(job.mel, alone.mel, atol=FLOW_TOLERANCE, rtol=FLOW_TOLERANCE)


@pytest.mark.parametrize("seed", SEEDS)
def test_padded_attention_equals_attention_sequence_by_sequence(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.randint(1, 130) for _ in range(rng.randint(1, 5))]
    streaming = [rng.random() < 0.5 for _ in lengths]
    layout = PackedLayout(lengths, gap=2, copies=2, device="cpu")
    attention = PackedAttention(layout, streaming, chunk=50, num_heads=2, head_dim=16, device="cpu")
    qkv = torch.randn(layout.rows, 3 * 2 * 16, generator=torch.Generator().manual_seed(seed))
    each = attention._attend_each(qkv).clone()
    attention._index, attention._mask, attention._source = attention._padding(torch.device("cpu"))
    padded = attention._attend_padded(qkv)
    torch.testing.assert_close(padded, each, atol=1e-5, rtol=1e-5)


def some_mel(frames: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, 80, generator=generator).cumsum(0).mul_(0.1).sub_(4.0)


def some_noise(hift: HiFT, frames: int, seed: int) -> Tensor:
    samples = frames * hift.samples_per_frame
    return torch.randn(samples, hift.info.nb_harmonics + 1, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_packed_vocoder_batch_equals_its_items_alone(hift: HiFT, seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.choice([1, 2, 8, 33, 58]) for _ in range(rng.randint(2, 4))]
    mels = [some_mel(frames, seed + number) for number, frames in enumerate(lengths)]
    noises = [some_noise(hift, frames, seed + number) for number, frames in enumerate(lengths)]
    caches = [
        some_noise(hift, 8, seed)[:, 0] * 0.1 if frames >= 8 and rng.random() < 0.5 else None for frames in lengths
    ]
    with torch.inference_mode():
        packed = hift._vocode_packed(mels, noises, caches)
    for index, (wave, source) in enumerate(packed):
        alone_wave, alone_source = hift.vocode([mels[index]], [noises[index]], [caches[index]])[0]
        assert wave.shape == alone_wave.shape == (480 * lengths[index],)
        # The phase integrates f0, whose rounding differs with the batch; the waveform follows it.
        np.testing.assert_allclose(source, alone_source, atol=2e-4)
        np.testing.assert_allclose(wave, alone_wave, atol=2e-4)


@pytest.mark.parametrize("frames", [1, 40, 41, 121, 250])
def test_a_file_spoken_in_windows_equals_the_whole(hift: HiFT, frames: int) -> None:
    mel, noise = some_mel(frames, 3), some_noise(hift, frames, 3)
    whole, _ = hift.vocode([mel], [noise], [None])[0]
    work = FileWork(hift, mel, lambda first, count: noise[first : first + count], window_frames=40)
    audio = None
    passes = 0
    with torch.inference_mode():
        while audio is None:
            assert work.frames <= 70
            call = work.prepare()
            audio = work.accept(call, *hift.vocode([call.mel], [call.noise], [call.cache_source])[0])
            passes += 1
    assert passes == -(-frames // 40)
    np.testing.assert_allclose(audio, whole, atol=1e-5)
