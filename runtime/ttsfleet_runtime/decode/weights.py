"""Reading a model's weights by name, and the two layers that carry nearly all of its arithmetic.

Layout: activations are row-major [rows, channels], time running down the rows, everywhere in `decode`. A
convolution over time sees such a buffer as a channels-last image of height 1, so neither it nor the linear layers
between convolutions ever transpose.

Trade-off: on x86 the oneDNN kernels behind `conv2d` and `mkldnn._linear_pointwise` reach twice the speed of the
BLAS behind `torch.nn.functional.linear` (217 against 103 GFLOP/s a core on an AMD EPYC with AVX-512, torch 2.11,
500 rows, 128 -> 512). The latter is an internal operator of torch; where it is missing, plain `linear` runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from ttsfleet_runtime.errors import CheckpointError

_PACKING_ROWS = 512  # a hint to oneDNN for choosing the block layout of packed weights, not a limit


class Weights:
    """Named tensors under a prefix, moved to one device and dtype as they are taken."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        prefix: str = "",
    ) -> None:
        self._tensors = tensors
        self._prefix = prefix
        self.device = torch.device(device)
        self.dtype = dtype

    @classmethod
    def load(cls, path: Path, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Weights:
        """Map a safetensors file of the bundle. Raises CheckpointError when it is missing or damaged."""
        try:
            return cls(load_file(path), device, dtype)
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: {error}; convert the model again") from error

    def under(self, prefix: str) -> Weights:
        """The same weights seen from below `prefix` (dots included by this method)."""
        return Weights(self._tensors, self.device, self.dtype, f"{self._prefix}{prefix}.")

    def __getitem__(self, name: str) -> Tensor:
        """The tensor in the model's dtype. Raises CheckpointError naming the key when it is absent."""
        key = self._prefix + name
        try:
            tensor = self._tensors[key]
        except KeyError:
            raise CheckpointError(f"weight {key!r} is missing; convert the model again") from None
        return tensor.to(self.device, self.dtype)

    def norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of a layer norm."""
        return self[f"{name}.weight"], self[f"{name}.bias"]

    def dense(self, name: str, *, bias: bool = True) -> Dense:
        return Dense(self[f"{name}.weight"].flatten(1), self[f"{name}.bias"] if bias else None)

    def conv(self, name: str, *, dilation: int = 1, stride: int = 1) -> RowConv:
        return RowConv(self[f"{name}.weight"], self[f"{name}.bias"], dilation=dilation, stride=stride)


def _onednn_packs(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch._C._has_mkldnn
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class Dense:
    """y = x W^T + b on rows. weight: [out, in], bias: [out] or None."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.bias = bias
        self.packed = _onednn_packs(weight)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _PACKING_ROWS)
        else:
            self.weight = weight.contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        """x: [rows, in] -> [rows, out], a new tensor."""
        if self.packed:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return out
        return F.linear(x, self.weight, self.bias)


class RowConv:
    """A convolution down the rows. weight: [out, in, taps] as published, bias: [out].

    Zero rows at the borders are laid out in memory rather than left to the convolution: oneDNN would generate code
    for each way in which taps can hang over: up to 4 ms for a length not seen before, against 0.4 ms.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, dilation: int = 1, stride: int = 1) -> None:
        self.channels_out, _, self.taps = weight.shape
        self.bias = bias
        self.dilation = dilation
        self.stride = stride
        self.reach = (self.taps - 1) * dilation
        image = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        self.packed = _onednn_packs(weight)
        if self.packed:
            image = torch.ops.mkldnn._reorder_convolution_weight(image, [0, 0], [1, stride], [1, dilation], 1, [])
        self.weight = image

    def __call__(self, x: Tensor) -> Tensor:
        """x: [rows, in] -> [(rows - reach - 1) // stride + 1, out], a new tensor; no padding."""
        rows, channels = x.shape
        image = x.view(1, 1, rows, channels).permute(0, 3, 1, 2)
        stride, dilation = (1, self.stride), (1, self.dilation)
        if self.packed:
            out: Tensor = torch.ops.mkldnn._convolution_pointwise(
                image, self.weight, self.bias, (0, 0), stride, dilation, 1, "none", [], ""
            )
        else:
            out = F.conv2d(image, self.weight, self.bias, stride, 0, dilation)
        return out.permute(0, 2, 3, 1).reshape(out.shape[3], self.channels_out)

    def same(self, x: Tensor) -> Tensor:
        """Output row r sees the rows around r: as many rows out as in (odd number of taps, stride 1)."""
        half = self.reach // 2
        return self(F.pad(x, (0, 0, half, half)))

    def causal(self, x: Tensor) -> Tensor:
        """Output row r sees the rows up to r: as many rows out as in (stride 1)."""
        return self(F.pad(x, (0, 0, self.reach, 0)))
