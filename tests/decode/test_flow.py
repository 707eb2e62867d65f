"""The flow model in company: jobs of different length, step and kind advance together as they would alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.decode.encoder import position_encoding
from ttsfleet_runtime.decode.estimator import mish_
from ttsfleet_runtime.decode.flow import FlowJob, FlowModel
from ttsfleet_runtime.decode.noise import MAX_FLOW_FRAMES, flow_noise
from ttsfleet_runtime.errors import CheckpointError, InvalidRequestError

CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # fp32 sums in another order, over ten steps


@pytest.fixture(scope="module")
def model(random_v2_bundle: Path) -> FlowModel:
    return FlowModel.load(random_v2_bundle, read_model_info(random_v2_bundle).flow, "cpu")


def begin(model: FlowModel, num_tokens: int, num_prompt: int, *, streaming: bool, finalize: bool = True) -> FlowJob:
    generator = torch.Generator().manual_seed(num_tokens)
    return model.begin(
        torch.randint(0, model.info.vocab_size, (num_tokens,), generator=generator),
        torch.randint(0, model.info.vocab_size, (num_prompt,), generator=generator),
        torch.randn(2 * num_prompt, model.info.mel_bins, generator=generator),
        torch.randn(model.info.spk_embed_dim, generator=generator),
        streaming=streaming,
        finalize=finalize,
    )


def several(model: FlowModel) -> list[FlowJob]:
    return [
        begin(model, 40, 0, streaming=False),
        begin(model, 28, 25, streaming=True, finalize=False),
        begin(model, 3, 10, streaming=True),
        begin(model, 61, 7, streaming=False),
    ]


@pytest.fixture(scope="module")
def alone(model: FlowModel) -> list[torch.Tensor]:
    jobs = several(model)
    for job in jobs:
        model.advance([job], 10)
    return [job.mel for job in jobs]


def test_jobs_together_equal_jobs_alone(model: FlowModel, alone: list[torch.Tensor]) -> None:
    jobs = several(model)
    model.advance(jobs, 10)
    for job, mel in zip(jobs, alone, strict=True):
        assert job.done
        torch.testing.assert_close(job.mel, mel, **CLOSE)


def test_jobs_at_different_steps_advance_together(model: FlowModel, alone: list[torch.Tensor]) -> None:
    jobs = several(model)
    for steps, job in enumerate(jobs):
        model.advance([job], 3 * steps)
    assert [job.step for job in jobs] == [0, 3, 6, 9]
    model.advance(jobs, 2)
    assert [job.step for job in jobs] == [2, 5, 8, 10]
    model.advance(jobs, 100)
    assert [job.step for job in jobs] == [10] * 4
    for job, mel in zip(jobs, alone, strict=True):
        torch.testing.assert_close(job.mel, mel, **CLOSE)


def test_a_finished_job_is_left_alone(model: FlowModel) -> None:
    job = begin(model, 10, 0, streaming=False)
    model.advance([job], 10)
    mel = job.mel.clone()
    model.advance([job], 5)
    assert torch.equal(job.mel, mel)


def test_the_shared_noise_survives_a_job(model: FlowModel) -> None:
    before = flow_noise(80).clone()
    job = begin(model, 40, 0, streaming=False)
    model.advance([job], 1)
    assert torch.equal(flow_noise(80), before)


def test_earlier_chunks_do_not_change_when_later_tokens_come(model: FlowModel) -> None:
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, model.info.vocab_size, (103,), generator=generator)
    embedding = torch.randn(model.info.spk_embed_dim, generator=generator)
    nothing, no_mel = tokens[:0], torch.zeros(0, model.info.mel_bins)
    jobs = [
        model.begin(tokens[:n], nothing, no_mel, embedding, streaming=True, finalize=False) for n in (28, 53, 103)
    ]
    model.advance(jobs, 10)
    for earlier, later in itertools.pairwise(jobs):
        torch.testing.assert_close(later.mel[: earlier.mel.shape[0]], earlier.mel, **CLOSE)


def test_mel_has_two_frames_per_token_and_leaves_the_look_ahead_unsaid(model: FlowModel) -> None:
    whole = begin(model, 28, 25, streaming=True)
    partial = begin(model, 28, 25, streaming=True, finalize=False)
    assert (whole.frames, whole.mel.shape[0]) == (106, 56)
    assert (partial.frames, partial.mel.shape[0]) == (100, 50)


def test_more_frames_than_the_fixed_noise_are_refused(model: FlowModel) -> None:
    with pytest.raises(InvalidRequestError, match=f"15002 mel frames together; at most {MAX_FLOW_FRAMES}"):
        begin(model, 7501, 0, streaming=False)


def test_a_missing_weight_is_named(random_v2_bundle: Path, tmp_path: Path) -> None:
    info = read_model_info(random_v2_bundle).flow
    weights = load_file(random_v2_bundle / "flow.safetensors")
    del weights["encoder.after_norm.weight"]
    with pytest.raises(CheckpointError, match=r"'encoder\.after_norm\.weight' is missing"):
        FlowModel(info, weights, "cpu")
    with pytest.raises(CheckpointError, match=r"flow\.safetensors"):
        FlowModel.load(tmp_path, info, "cpu")


def test_mish_equals_its_definition_over_the_whole_range() -> None:
    x = torch.cat([torch.linspace(-100.0, 100.0, 20001), torch.tensor([-1e4, -0.0, 0.0, 1e4])])
    expected = F.mish(x.double()).float()
    torch.testing.assert_close(mish_(x.clone()), expected, rtol=2e-6, atol=1e-7)


def test_position_encoding_depends_on_the_difference_only() -> None:
    small, large = (position_encoding(reach, 16, torch.device("cpu")) for reach in (5, 40))
    assert small.shape == (9, 16)
    torch.testing.assert_close(large[35:44], small)
    assert small[4].tolist() == [0.0, 1.0] * 8
