"""Write a safetensors file one tensor at a time, so that converting a model needs memory for one tensor only.

`safetensors.torch.save_file` wants all tensors in memory at once: 2 GB for a released LLM in fp32. The layout is
the same (8-byte header length, JSON header, data), with the header padded so that data starts 64-byte aligned.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ttsfleet_runtime.errors import CheckpointError

_ALIGNMENT = 64
_CODES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32"}


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: `make` is called when its turn comes; the result is cast to `dtype`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def planned(tensor: Tensor, dtype: torch.dtype) -> Planned:
    return Planned(tuple(tensor.shape), dtype, lambda: tensor)


def write_tensor_file(
    path: Path, tensors: Mapping[str, Planned], *, source: Path, wrote: Callable[[int], None]
) -> None:
    """Write `tensors` in order and fsync. `wrote` gets the bytes of each tensor; `source` is named in errors.

    Raises CheckpointError when a value is not finite in the target dtype.
    """
    header: dict[str, object] = {}
    offset = 0
    for name, plan in tensors.items():
        end = offset + plan.nbytes
        header[name] = {"dtype": _CODES[plan.dtype], "shape": list(plan.shape), "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-(8 + len(head)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little"))
        file.write(head)
        for name, plan in tensors.items():
            tensor = plan.make()
            assert tuple(tensor.shape) == plan.shape, (name, tensor.shape, plan.shape)
            cast = tensor.to(plan.dtype).contiguous()
            if plan.dtype.is_floating_point and not torch.isfinite(cast).all():
                raise CheckpointError(_not_finite(source, name, tensor, plan.dtype))
            # through bytes because numpy has no bfloat16; torch has no stable buffer interface
            file.write(cast.reshape(-1).view(torch.uint8).numpy().data)
            wrote(plan.nbytes)
        file.flush()
        os.fsync(file.fileno())


def _not_finite(source: Path, name: str, tensor: Tensor, dtype: torch.dtype) -> str:
    if torch.isfinite(tensor).all():
        largest = float(tensor.abs().max())
        return f"{source}: {name} reaches {largest:g}, which {dtype} cannot hold; use bf16 or fp32"
    return f"{source}: {name} holds NaN or infinite values"
