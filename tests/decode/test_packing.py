"""Packed rows: sequences of a batch do not touch each other, whatever lies between them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ttsfleet_runtime.decode.attention import PackedAttention
from ttsfleet_runtime.decode.packing import PackedLayout
from ttsfleet_runtime.decode.weights import Dense, RowConv

LENGTHS = [(1,), (7,), (50, 1, 3), (120, 51, 50, 49)]
HEADS, HEAD_DIM, CHUNK = 2, 8, 50


@pytest.mark.parametrize("lengths", LENGTHS)
def test_unpack_gives_back_what_was_packed(lengths: tuple[int, ...]) -> None:
    layout = PackedLayout(lengths, gap=2, copies=1, device="cpu")
    sequences = [torch.randn(n, 3) for n in lengths]
    buffer = layout.pack(sequences)
    assert buffer.shape == (sum(lengths) + 2 * len(lengths), 3)
    for sequence, unpacked in zip(sequences, layout.unpack(buffer), strict=True):
        assert torch.equal(sequence, unpacked)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_causal_convolution_sees_zeros_before_each_sequence(lengths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 4, 3), torch.randn(5)
    conv = RowConv(weight, bias)
    layout = PackedLayout(lengths, gap=2, copies=2, device="cpu")
    sequences = [torch.randn(n, 4) for n in lengths]
    buffer = torch.full((layout.rows, 4), float("nan"))
    for copy in range(2):
        for start, sequence in zip(layout.starts, sequences, strict=True):
            first = copy * layout.rows_per_copy + start
            buffer[first : first + len(sequence)] = sequence
    out = conv.causal(layout.zero_gaps(buffer)).chunk(2)
    for copy in out:
        for sequence, packed in zip(sequences, layout.unpack(copy), strict=True):
            alone = F.conv1d(F.pad(sequence.T[None], (2, 0)), weight, bias)[0].T
            torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def masked_attention(qkv: torch.Tensor, streaming: bool) -> torch.Tensor:
    """One sequence with an explicit mask: [n, 3 * heads * dim] -> [n, heads * dim]."""
    n = qkv.shape[0]
    q, k, v = qkv.view(n, 3, HEADS, HEAD_DIM).double().permute(1, 2, 0, 3)
    scores = q @ k.transpose(1, 2) / HEAD_DIM**0.5
    if streaming:
        chunk = torch.arange(n) // CHUNK
        scores = scores.masked_fill(chunk[None, :] > chunk[:, None], float("-inf"))
    return (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, -1).float()


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("padded", [False, True], ids=["sequence by sequence", "one padded call"])
def test_attention_stays_inside_its_sequence_and_chunks(lengths: tuple[int, ...], padded: bool) -> None:
    torch.manual_seed(1)
    layout = PackedLayout(lengths, gap=2, copies=2, device="cpu")
    streaming = [index % 2 == 0 for index in range(len(lengths))]
    attention = PackedAttention(
        layout, streaming, chunk=CHUNK, num_heads=HEADS, head_dim=HEAD_DIM, device="cpu", padded=padded
    )
    qkv = torch.randn(layout.rows, 3 * HEADS * HEAD_DIM)
    out = attention(qkv)
    for half_in, half_out in zip(qkv.chunk(2), out.chunk(2), strict=True):
        parts = zip(layout.unpack(half_in), layout.unpack(half_out), streaming, strict=True)
        for rows, got, streams in parts:
            torch.testing.assert_close(got, masked_attention(rows, streams), rtol=1e-4, atol=1e-5)
    assert not out[layout.gap_rows].any()


@pytest.mark.parametrize("rows", [1, 2, 17, 513])
def test_dense_equals_linear(rows: int) -> None:
    torch.manual_seed(2)
    weight, bias, x = torch.randn(24, 10), torch.randn(24), torch.randn(rows, 10)
    torch.testing.assert_close(Dense(weight, bias)(x), F.linear(x, weight, bias), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(Dense(weight, None)(x), F.linear(x, weight), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("taps", "dilation", "stride"), [(1, 1, 1), (3, 1, 1), (7, 3, 1), (11, 5, 1), (30, 1, 15)])
@pytest.mark.parametrize("rows", [61, 200])
def test_row_convolution_equals_conv1d(taps: int, dilation: int, stride: int, rows: int) -> None:
    torch.manual_seed(3)
    weight, bias, x = torch.randn(6, 5, taps), torch.randn(6), torch.randn(rows, 5)
    expected = F.conv1d(x.T[None], weight, bias, stride=stride, dilation=dilation)[0].T
    got = RowConv(weight, bias, dilation=dilation, stride=stride)(x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_without_onednn_the_plain_operators_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ttsfleet_runtime.decode.weights._onednn_packs", lambda weight: False)
    torch.manual_seed(4)
    weight, bias, x = torch.randn(6, 5, 3), torch.randn(6), torch.randn(40, 5)
    conv, dense = RowConv(weight, bias), Dense(weight[:, :, 0], bias)
    assert not conv.packed
    assert not dense.packed
    torch.testing.assert_close(dense(x), F.linear(x, weight[:, :, 0], bias))
    expected = F.conv1d(x.T[None], weight, bias, padding=1)[0].T
    torch.testing.assert_close(conv.same(x), expected, rtol=1e-5, atol=1e-5)
