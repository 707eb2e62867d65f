"""RMSNorm fused with the residual addition before it.

One program normalises one row: x and the residual are read once, the sum and the normalised row are written once,
where plain PyTorch reads and writes the row five times in as many launches. In an LLM step of a few rows the launches
are what counts (about 3 us each on an H100), so the whole row is one block: hidden sizes up to 16,384.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttsfleet_kernels import reference

MAX_HIDDEN = 16384


@triton.jit  # type: ignore[untyped-decorator]
def add_rms_norm_fwd_kernel(  # type: ignore[no-untyped-def]
    x_ptr,  # [rows, hidden], contiguous
    residual_ptr,  # [rows, hidden], contiguous; unused without HAS_RESIDUAL
    weight_ptr,  # [hidden]
    out_ptr,  # [rows, hidden]
    total_ptr,  # [rows, hidden]; unused without HAS_RESIDUAL
    hidden,
    eps,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK_HIDDEN)
    mask = columns < hidden
    offsets = row * hidden + columns
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0)
    if HAS_RESIDUAL:
        x = x + tl.load(residual_ptr + offsets, mask=mask, other=0.0)
        tl.store(total_ptr + offsets, x, mask=mask)
    wide = x.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / hidden + eps)
    weight = tl.load(weight_ptr + columns, mask=mask, other=0.0)
    normalised = (wide * scale).to(x_ptr.dtype.element_ty) * weight
    tl.store(out_ptr + offsets, normalised, mask=mask)


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(normalised, sum) as `reference.add_rms_norm`; the kernel on CUDA, plain PyTorch elsewhere.

    x, residual: [rows, hidden], contiguous, same dtype; weight: [hidden]. Raises ValueError for other layouts.
    """
    if not x.is_cuda:
        return reference.add_rms_norm(x, residual, weight, eps)
    return launch_add_rms_norm(x, residual, weight, eps)


def launch_add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The kernel itself, on CUDA or in Triton's interpreter."""
    rows, hidden = x.shape
    if hidden > MAX_HIDDEN:
        raise ValueError(f"hidden size {hidden} exceeds the {MAX_HIDDEN} that one block holds")
    if not x.is_contiguous() or (residual is not None and not residual.is_contiguous()):
        raise ValueError("x and residual must be contiguous")
    out = torch.empty_like(x)
    total = x if residual is None else torch.empty_like(x)
    add_rms_norm_fwd_kernel[(rows,)](
        x,
        x if residual is None else residual,
        weight,
        out,
        total,
        hidden,
        eps,
        HAS_RESIDUAL=residual is not None,
        BLOCK_HIDDEN=triton.next_power_of_2(hidden),
    )
    return out, total
