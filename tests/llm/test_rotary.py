"""The two forms of rotary positions agree where it counts: in the scores."""

from __future__ import annotations

import torch
from torch import Tensor

from ttsfleet_runtime.llm.rotary import ComplexRotary, HalfSplitRotary, Rotary

HEADS, KV_HEADS, HEAD_DIM, HIDDEN = 4, 2, 64, 32


def scores(rotary: Rotary, weight: Tensor, x: Tensor, positions: Tensor) -> Tensor:
    """Query-key products of every head, [kv_heads, group, rows, rows]."""
    qkv = x @ rotary.arrange(weight).T
    rotary.turn(qkv, rotary.select(positions))
    q = qkv[:, : HEADS * HEAD_DIM].view(-1, KV_HEADS, HEADS // KV_HEADS, HEAD_DIM)
    k = qkv[:, HEADS * HEAD_DIM : (HEADS + KV_HEADS) * HEAD_DIM].view(-1, KV_HEADS, HEAD_DIM)
    return torch.einsum("ihgd,jhd->hgij", q, k)


def test_scores_of_both_forms_are_equal() -> None:
    generator = torch.Generator().manual_seed(0)
    angles = torch.arange(300, dtype=torch.float32)[:, None] / 1e6 ** (torch.arange(32) / 32)
    weight = torch.randn((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN, generator=generator)
    x = torch.randn(7, HIDDEN, generator=generator)
    positions = torch.tensor([0, 1, 2, 17, 100, 250, 299])
    complex_form = scores(ComplexRotary(HEADS + KV_HEADS, angles), weight, x, positions)
    half_split = HalfSplitRotary(HEADS + KV_HEADS, angles, torch.device("cpu"), torch.float32)
    torch.testing.assert_close(complex_form, scores(half_split, weight, x, positions), rtol=1e-4, atol=2e-3)


def test_values_are_left_alone() -> None:
    angles = torch.arange(300, dtype=torch.float32)[:, None] / 1e6 ** (torch.arange(32) / 32)
    qkv = torch.randn(3, (HEADS + 2 * KV_HEADS) * HEAD_DIM)
    values = qkv[:, (HEADS + KV_HEADS) * HEAD_DIM :].clone()
    rotary = ComplexRotary(HEADS + KV_HEADS, angles)
    rotary.turn(qkv, rotary.select(torch.tensor([5, 6, 7])))
    assert torch.equal(qkv[:, (HEADS + KV_HEADS) * HEAD_DIM :], values)
