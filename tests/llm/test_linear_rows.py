"""The products under the LM: a row's bits do not depend on the number of rows around it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ttsfleet_runtime.llm.linear import ROW_QUANTUM, make_linear, pad_rows

# Shapes of the tiny model, of the random test model and of the released one.
SHAPES = [
    (256, 512),
    (256, 256),
    (256, 1280),
    (640, 256),
    (256, 2190),
    (128, 256),
    (256, 6564),
    (896, 1152),
    (4864, 896),
]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_of_padded_batches_are_bit_identical(shape: tuple[int, int]) -> None:
    inputs, outputs = shape
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    bias = torch.randn(outputs, generator=generator)
    x = torch.randn(128, inputs, generator=generator)
    linear = make_linear(weight, bias)
    full = linear(x)
    torch.testing.assert_close(full, F.linear(x, weight, bias), rtol=1e-4, atol=1e-4)
    for count in (4, 8, 12, 16, 20, 32, 48, 64, 112):
        assert torch.equal(linear(x[:count]), full[:count]), count
        order = torch.randperm(count, generator=generator)
        assert torch.equal(linear(x[order]), full[order]), count


@pytest.mark.parametrize(("count", "padded"), [(1, 4), (4, 4), (5, 8), (13, 16)])
def test_batches_are_padded_to_the_quantum(count: int, padded: int) -> None:
    assert pad_rows(count) == padded
    assert pad_rows(count) % ROW_QUANTUM == 0
