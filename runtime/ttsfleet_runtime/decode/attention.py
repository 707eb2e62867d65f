"""Self-attention over a packed buffer, full or chunk-causal per sequence.

Chunk-causal: the query at frame i sees the keys j with j // chunk <= i // chunk, counted from the sequence's first
frame. On the CPU each chunk of queries attends to exactly its keys, without a mask and without wasted products;
the copies of a layout (guidance rows) share one call. On CUDA all sequences go through one padded, masked call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsfleet_runtime.decode.packing import PackedLayout


class PackedAttention:
    """Attention for one layout and one choice of full or chunk-causal per sequence; used by every layer."""

    def __init__(
        self,
        layout: PackedLayout,
        streaming: Sequence[bool],
        *,
        chunk: int,
        num_heads: int,
        head_dim: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        padded: bool | None = None,
    ) -> None:
        """padded: one padded call, or sequence by sequence; None = what suits the device."""
        self.layout = layout
        self.streaming = tuple(streaming)
        self.chunk = chunk
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.padded = torch.device(device).type != "cpu" if padded is None else padded
        self._out = torch.zeros(layout.rows, num_heads * head_dim, device=device, dtype=dtype)
        if self.padded:
            self._index, self._mask, self._source = self._padding(torch.device(device))

    def __call__(self, qkv: Tensor) -> Tensor:
        """qkv: [rows, 3 * heads * head_dim], q then k then v -> [rows, heads * head_dim].

        Gap rows of the result are zero. The result is overwritten by the next call.
        """
        return self._attend_padded(qkv) if self.padded else self._attend_each(qkv)

    def _attend_each(self, qkv: Tensor) -> Tensor:
        layout = self.layout
        shape = (layout.copies, layout.rows_per_copy)
        packed = qkv.view(*shape, 3, self.num_heads, self.head_dim)
        out = self._out.view(*shape, self.num_heads, self.head_dim)
        for start, length, streaming in zip(layout.starts, layout.lengths, self.streaming, strict=True):
            q, k, v = packed[:, start : start + length].permute(2, 0, 3, 1, 4)
            step = self.chunk if streaming else length
            for begin in range(0, length, step):
                end = min(begin + step, length)
                mixed = F.scaled_dot_product_attention(q[:, :, begin:end], k[:, :, :end], v[:, :, :end])
                out[:, start + begin : start + end] = mixed.transpose(1, 2)
        return self._out

    def _attend_padded(self, qkv: Tensor) -> Tensor:
        padded = qkv.view(-1, 3, self.num_heads, self.head_dim)[self._index]
        q, k, v = padded.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask)
        rows = mixed.transpose(1, 2).flatten(2).flatten(0, 1)
        self._out.index_copy_(0, self._index_rows, rows[self._source])
        return self._out

    def _padding(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Row index [sequences, longest], mask [sequences, 1, longest, longest], and where valid rows lie."""
        layout = self.layout
        lengths = torch.tensor(layout.lengths * layout.copies)
        starts = torch.tensor(
            [copy * layout.rows_per_copy + s for copy in range(layout.copies) for s in layout.starts]
        )
        frame = torch.arange(int(lengths.max()))
        valid = frame[None] < lengths[:, None]
        index = torch.where(valid, starts[:, None] + frame, 0)
        chunk_of = frame // self.chunk
        causal = chunk_of[None, :] <= chunk_of[:, None]
        full = ~torch.tensor(self.streaming * layout.copies)
        mask = valid[:, None, :] & (causal[None] | full[:, None, None])
        self._index_rows = index[valid].to(device, non_blocking=True)
        source = torch.arange(valid.numel())[valid.flatten()]
        return (
            index.to(device, non_blocking=True),
            mask[:, None].to(device, non_blocking=True),
            source.to(device, non_blocking=True),
        )
