"""SwiGLU's elementwise part: silu(gate) * up in one pass over the fused gate-up projection."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttsfleet_kernels import reference

_BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def silu_mul_fwd_kernel(  # type: ignore[no-untyped-def]
    gate_up_ptr,  # [rows, 2 * ffn], contiguous, gate first
    out_ptr,  # [rows, ffn]
    ffn,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < ffn
    gate = tl.load(gate_up_ptr + row * 2 * ffn + columns, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + row * 2 * ffn + ffn + columns, mask=mask, other=0.0)
    # The product is rounded as PyTorch rounds it: silu to the storage type first.
    activated = (gate * tl.sigmoid(gate)).to(up.dtype)
    tl.store(out_ptr + row * ffn + columns, activated * up, mask=mask)


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up. gate_up: [rows, 2 * ffn] -> [rows, ffn]; the kernel on CUDA, plain PyTorch elsewhere."""
    return launch_silu_mul(gate_up) if gate_up.is_cuda else reference.silu_mul(gate_up)


def launch_silu_mul(gate_up: Tensor) -> Tensor:
    """The kernel itself, on CUDA or in Triton's interpreter. Raises ValueError unless gate_up is contiguous."""
    if not gate_up.is_contiguous():
        raise ValueError("gate_up must be contiguous")
    rows, width = gate_up.shape
    ffn = width // 2
    out = torch.empty(rows, ffn, dtype=gate_up.dtype, device=gate_up.device)
    silu_mul_fwd_kernel[(rows, triton.cdiv(ffn, _BLOCK))](gate_up, out, ffn, BLOCK=_BLOCK)
    return out
