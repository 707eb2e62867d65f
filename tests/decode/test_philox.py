"""Philox: the published known answers, the layout of counters, and independence from how draws are grouped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ttsfleet_runtime import philox

WORD = 2**32


def reference_block(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """The algorithm as the paper's pseudo-code has it, on unbounded integers."""
    left_0, right_0, left_1, right_1 = counter[1], counter[0], counter[3], counter[2]
    for round_index in range(10):
        k0 = (key[0] + round_index * 0x9E3779B9) % WORD
        k1 = (key[1] + round_index * 0xBB67AE85) % WORD
        high_0, low_0 = divmod(0xD2511F53 * right_0, WORD)
        high_1, low_1 = divmod(0xCD9E8D57 * right_1, WORD)
        right_0, left_0, right_1, left_1 = high_1 ^ left_0 ^ k0, low_1, high_0 ^ left_1 ^ k1, low_0
    return [right_0, left_0, right_1, left_1]


KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_rounds_give_the_published_words(counter, key, words) -> None:
    assert philox.philox4x32(counter, key) == words
    arrays = philox.philox4x32(tuple(np.array([c, c]) for c in counter), tuple(np.array([k, k]) for k in key))
    assert [int(a[1]) for a in arrays] == list(words)
    tensors = philox.philox4x32(tuple(torch.tensor([c]) for c in counter), tuple(torch.tensor([k]) for k in key))
    assert [int(t) for t in tensors] == list(words)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 + 5, 2**63 - 1, -1])
def test_uniforms_match_the_reference_for_any_batch_size(seed: int) -> None:
    positions = torch.arange(40)
    seeds, segments = torch.full((40,), seed), torch.full((40,), 3)
    together = philox.uniforms(seeds, segments, positions, 3)
    assert together.shape == (40, 3)
    assert together.dtype == torch.float64
    key = (seed % WORD, (seed >> 32) % WORD)
    for position in (0, 17, 39):
        alone = philox.uniforms(seeds[:1], segments[:1], positions[position : position + 1], 3)[0]
        expected = []
        for block in range(2):
            w = reference_block((position, block, 3, philox.SAMPLING), key)
            expected += [((w[0] >> 5) * 2**26 + (w[1] >> 6)) / 2**53, ((w[2] >> 5) * 2**26 + (w[3] >> 6)) / 2**53]
        assert alone.tolist() == together[position].tolist() == expected[:3]


def test_a_draw_does_not_depend_on_how_many_are_asked_for() -> None:
    seeds, segments, positions = torch.tensor([7]), torch.tensor([0]), torch.tensor([11])
    many = philox.uniforms(seeds, segments, positions, 50)
    assert philox.uniforms(seeds, segments, positions, 2).tolist() == many[:, :2].tolist()


def test_uniforms_keep_the_shape_of_their_arguments() -> None:
    shape = (2, 3)
    draws = philox.uniforms(
        torch.zeros(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.int64), torch.arange(6).view(shape), 2
    )
    assert draws.shape == (2, 3, 2)
    assert len(draws.unique()) == 12


def test_normals_read_the_same_wherever_the_stream_is_cut() -> None:
    whole = philox.normals(5, 1, 0, 2000, 9)
    for first, count in ((0, 1), (1, 1), (3, 500), (480, 960), (1999, 1)):
        assert torch.equal(philox.normals(5, 1, first, count, 9), whole[first : first + count])


def test_normals_are_standard_normal_and_uncorrelated_between_lanes() -> None:
    values = philox.normals(123, 0, 0, 100_000, 9)
    assert values.dtype == torch.float32
    assert abs(float(values.mean())) < 0.005
    assert abs(float(values.std()) - 1.0) < 0.005
    assert abs(float((values**4).mean()) - 3.0) < 0.05
    correlation = torch.corrcoef(values.T) - torch.eye(9)
    assert float(correlation.abs().max()) < 0.02


def test_seed_segment_and_domain_each_change_the_stream() -> None:
    base = philox.normals(1, 0, 0, 16, 9)
    assert not torch.equal(base, philox.normals(2, 0, 0, 16, 9))
    assert not torch.equal(base, philox.normals(1, 1, 0, 16, 9))
    assert philox.SAMPLING != philox.NOISE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_draws_equal_those_of_the_cpu() -> None:
    seeds = torch.tensor([1, -5, 2**40])
    segments, positions = torch.tensor([0, 1, 2]), torch.tensor([4, 5, 6])
    on_cpu = philox.uniforms(seeds, segments, positions, 5)
    on_cuda = philox.uniforms(seeds.cuda(), segments.cuda(), positions.cuda(), 5)
    assert torch.equal(on_cpu, on_cuda.cpu())
    noise = philox.normals(9, 2, 100, 1000, 9, "cuda").cpu()
    torch.testing.assert_close(noise, philox.normals(9, 2, 100, 1000, 9), rtol=1e-5, atol=1e-5)
