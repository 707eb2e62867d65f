"""The sampler: order of candidates, rows of a batch, masks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ttsfleet_runtime.llm.sampling import SamplingRows, mask_logits, nucleus, sample
from ttsfleet_runtime.messages import Sampling

VOCABULARY = 500


def rows(count: int, *samplings: Sampling, history: Tensor | None = None, outputs: int = 0) -> SamplingRows:
    each = list(samplings) * count if len(samplings) == 1 else list(samplings)
    return SamplingRows(
        history=torch.full((count, 10), -1) if history is None else history,
        counts=torch.full((count,), outputs),
        top_k=torch.tensor([sampling.top_k for sampling in each]),
        win_size=torch.tensor([sampling.win_size for sampling in each]),
        top_p=torch.tensor([sampling.top_p for sampling in each], dtype=torch.float64),
        tau_r=torch.tensor([sampling.tau_r for sampling in each], dtype=torch.float64),
    )


def logits_of(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 4


def uniforms_of(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_probabilities_are_ordered_by_id() -> None:
    logits = torch.full((1, VOCABULARY), -3.0)
    logits[0, [7, 400, 33]] = 2.0
    ids, _, _ = nucleus(logits, rows(1, Sampling(top_p=1.0)), 6)
    assert ids.tolist() == [[7, 33, 400, 0, 1, 2]]


def test_probabilities_of_candidates_are_those_of_the_softmax_to_the_bit() -> None:
    logits = logits_of(3)
    ids, probabilities, _ = nucleus(logits, rows(3, Sampling()), 25)
    expected = torch.softmax(logits, 1).gather(1, ids).double()
    assert torch.equal(probabilities, expected)


@pytest.mark.parametrize(
    ("top_p", "top_k", "count"),
    [(0.49, 25, 1), (0.5, 25, 1), (0.51, 25, 2), (0.8, 25, 3), (0.8, 2, 2), (1.0, 3, 3), (0.76, 25, 3)],
)
def test_the_nucleus_takes_the_crossing_token_and_at_most_top_k(top_p: float, top_k: int, count: int) -> None:
    logits = torch.full((1, VOCABULARY), -math.inf)
    logits[0, [5, 9, 2, 3]] = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    _, _, taken = nucleus(logits, rows(1, Sampling(top_p=top_p, top_k=top_k)), 25)
    assert taken.item() == count


def test_a_row_does_not_depend_on_its_company() -> None:
    logits, uniforms = logits_of(16), uniforms_of(16)
    together, _ = sample(logits, rows(16, Sampling()), uniforms, 25)
    alone = [sample(logits[i : i + 1], rows(1, Sampling()), uniforms[i : i + 1], 25)[0] for i in range(16)]
    assert together.tolist() == [int(token) for token in alone]


def test_a_row_does_not_depend_on_how_many_candidates_others_ask_for() -> None:
    logits, uniforms = logits_of(16), uniforms_of(16)
    narrow, _ = sample(logits, rows(16, Sampling()), uniforms, 25)
    wide, _ = sample(logits, rows(16, Sampling()), uniforms, 64)
    assert torch.equal(narrow, wide)


def test_each_row_has_its_own_parameters() -> None:
    logits = logits_of(1).expand(2, -1).clone()
    uniforms = torch.full((2, 2), 0.999, dtype=torch.float64)
    greedy, open_ = sample(logits, rows(2, Sampling(top_k=1), Sampling(top_p=1.0, top_k=25)), uniforms, 25)[0]
    assert greedy == logits[0].argmax()
    assert open_ != greedy


@pytest.mark.parametrize(
    ("age", "win_size", "tau_r", "repeated"),
    [(1, 10, 0.1, True), (10, 10, 0.1, True), (4, 3, 0.3, False), (3, 3, 0.3, True), (1, 10, 0.2, False)],
)
def test_a_token_of_the_window_is_drawn_again_without_itself(
    age: int, win_size: int, tau_r: float, repeated: bool
) -> None:
    outputs = 23
    logits = torch.full((1, VOCABULARY), -60.0)
    logits[0, 5], logits[0, 6] = 60.0, 20.0
    history = torch.full((1, 10), 77)
    history[0, (outputs - age) % 10] = 5
    sampling = Sampling(win_size=win_size, tau_r=tau_r)
    tokens, draws = sample(logits, rows(1, sampling, history=history, outputs=outputs), uniforms_of(1), 25)
    assert (tokens.item(), draws.item()) == ((6, 2) if repeated else (5, 1))


def test_the_second_draw_is_from_everything() -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 5] = 20.0
    history = torch.full((1, 10), 5)
    uniforms = torch.tensor([[0.0, 0.999]], dtype=torch.float64)
    tokens, _ = sample(logits, rows(1, Sampling(), history=history, outputs=10), uniforms, 25)
    assert tokens.item() == VOCABULARY - 1


def test_draws_follow_the_distribution() -> None:
    logits = torch.full((1, VOCABULARY), -math.inf)
    logits[0, [3, 1, 2]] = torch.tensor([0.6, 0.3, 0.1]).log()
    uniforms = torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1, None].expand(-1, 2)
    tokens, _ = sample(logits.expand(1000, -1), rows(1000, Sampling(top_p=1.0)), uniforms, 25)
    counts = torch.bincount(tokens, minlength=4)[1:4]
    assert counts.tolist() == pytest.approx([300, 100, 600], abs=1)


def test_masks_forbid_the_named_ids_for_the_rows_that_ask() -> None:
    logits = torch.zeros(3, VOCABULARY)
    before_min = torch.tensor([True, False, False])
    ignore_eos = torch.tensor([False, False, True])
    mask_logits(logits, 490, before_min, torch.tensor([490, 491]), ignore_eos)
    assert (logits == -math.inf).nonzero().tolist() == [[0, 490], [2, 490], [2, 491]]
