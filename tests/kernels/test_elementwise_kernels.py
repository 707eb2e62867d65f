"""The elementwise kernels against their reference: on CUDA where there is one, in Triton's interpreter elsewhere.

The interpreter is chosen when Triton decorates a kernel, so these tests run in a child Python that has
TRITON_INTERPRET=1 unless a CUDA device is present.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

_CHECK = """
import sys, torch
from ttsfleet_kernels import reference
from ttsfleet_kernels.add_rms_norm import launch_add_rms_norm
from ttsfleet_kernels.silu_mul import launch_silu_mul

device = sys.argv[1]
torch.manual_seed(0)
worst = {}

def close(name, actual, expected, dtype):
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, name
    assert not torch.isnan(actual).any(), name  # an element that no program wrote
    error = ((actual.double() - expected.double()).norm() / expected.double().norm()).item()
    # float32: one reduction in another order. Half types: one rounding of the last place.
    limit = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    assert error <= limit, (name, error, limit)
    worst[name] = max(worst.get(name, 0.0), error / limit)

empty_like = torch.empty_like
torch.empty_like = lambda t, **k: empty_like(t, **k).fill_(float("nan"))
empty = torch.empty
torch.empty = lambda *a, **k: empty(*a, **k).fill_(float("nan"))
dtypes = [torch.float32, torch.float16] + ([torch.bfloat16] if device == "cuda" else [])
for dtype in dtypes:
    for rows, hidden in [(1, 1), (3, 7), (5, 896), (2, 1024), (17, 1025)]:
        x = torch.randn(rows, hidden, device=device).to(dtype)
        residual = torch.randn(rows, hidden, device=device).to(dtype)
        weight = torch.randn(hidden, device=device).to(dtype)
        for r in (None, residual):
            for got, want, what in zip(launch_add_rms_norm(x, r, weight, 1e-6),
                                       reference.add_rms_norm(x, r, weight, 1e-6), ("norm", "sum")):
                close(f"add_rms_norm {what}", got, want, dtype)
        gate_up = torch.randn(rows, 2 * hidden, device=device).to(dtype)
        close("silu_mul", launch_silu_mul(gate_up), reference.silu_mul(gate_up), dtype)
print("checked", sorted(worst))
"""


def test_every_element_agrees_with_the_reference_at_awkward_sizes() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    environment = dict(os.environ) if device == "cuda" else {**os.environ, "TRITON_INTERPRET": "1"}
    result = subprocess.run(
        [sys.executable, "-c", _CHECK, device], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "checked ['add_rms_norm norm', 'add_rms_norm sum', 'silu_mul']" in result.stdout


def test_a_layout_that_the_kernel_cannot_read_is_refused() -> None:
    from ttsfleet_kernels.silu_mul import launch_silu_mul

    with pytest.raises(ValueError, match="contiguous"):
        launch_silu_mul(torch.zeros(4, 6).t())
