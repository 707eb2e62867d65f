"""Attention over the paged KV cache, in plain PyTorch: gather the blocks, then scaled-dot-product attention.

Layout: one tensor per layer, [num_blocks + 1, block_size, 2 * num_kv_heads * head_dim]; a row is keys then values,
as the fused QKV projection delivers them, so writing is one `index_copy_`. Block 0 takes the writes of padding.

A forward pass is described by *segments*: runs of consecutive query rows that are computed by one call, each with
its block indices and additive mask. Query heads that share a KV head are folded into the query axis, so nothing
is repeated in memory.

On the CPU the segments are chosen so that a row's result depends on its own sequence only, to the bit:
- decode rows are grouped by their own context length rounded up to CONTEXT_QUANTUM (a batch item of the CPU
  kernel is computed on its own, so company in a group does not matter, only the group's length);
- prompt rows are computed in query blocks that lie on the absolute grid of KV blocks;
- rows behind the prompt that are recomputed after preemption are treated as the decode rows they were.
On CUDA a decode batch is one segment, padded to a context bucket, and a prefill chunk is one segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CONTEXT_QUANTUM = 64


@dataclass(frozen=True, slots=True)
class KVShape:
    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int

    @property
    def row_size(self) -> int:
        return 2 * self.num_kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Segment:
    """Query rows [begin, end): `batch` items of `queries` rows each.

    blocks: [batch * context / block_size] int32, the blocks of the items' contexts
    mask: [batch | 1, 1, queries_folded, context] additive, 0 or -inf; queries_folded = group * queries, or 1
    """

    begin: int
    end: int
    batch: int
    blocks: Tensor
    mask: Tensor


def round_context(length: int) -> int:
    return -(-length // CONTEXT_QUANTUM) * CONTEXT_QUANTUM


def attend(q: Tensor, cache: Tensor, segments: list[Segment], shape: KVShape, out: Tensor) -> None:
    """q, out: [rows, num_heads * head_dim]; cache: one layer. Rows outside all segments keep what `out` holds."""
    kv_heads, head_dim = shape.num_kv_heads, shape.head_dim
    group = shape.num_heads // kv_heads
    for segment in segments:
        batch = segment.batch
        queries = (segment.end - segment.begin) // batch
        rows = q[segment.begin : segment.end]
        kv = cache.index_select(0, segment.blocks).view(batch, -1, 2, kv_heads, head_dim)
        keys, values = kv.transpose(1, 3).unbind(2)
        if queries == 1:
            folded = rows.view(batch, kv_heads, group, head_dim)
            result = F.scaled_dot_product_attention(folded, keys, values, attn_mask=segment.mask)
            out[segment.begin : segment.end] = result.reshape(batch, -1)
        else:
            folded = rows.view(batch, queries, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4)
            folded = folded.reshape(batch, kv_heads, group * queries, head_dim)
            result = F.scaled_dot_product_attention(folded, keys, values, attn_mask=segment.mask)
            result = result.view(batch, kv_heads, group, queries, head_dim).permute(0, 3, 1, 2, 4)
            out[segment.begin : segment.end] = result.reshape(batch * queries, -1)


def length_mask(positions: Tensor, context: int, dtype: torch.dtype) -> Tensor:
    """[rows, 1, 1, context]: row i sees contexts 0 .. positions[i]. positions: [rows] int64."""
    hidden = torch.arange(context, device=positions.device) > positions[:, None]
    mask = torch.zeros(hidden.shape, dtype=dtype, device=positions.device)
    return mask.masked_fill_(hidden, -torch.inf)[:, None, None, :]


def causal_mask(start: int, queries: int, group: int, context: int, like: Tensor) -> Tensor:
    """[1, 1, group * queries, context]: query i at position start + i sees contexts up to itself."""
    positions = torch.arange(start, start + queries, device=like.device)
    mask = length_mask(positions, context, like.dtype)[:, 0, 0, :]
    return mask.repeat(group, 1)[None, None]


class SegmentPlanner:
    """Turns positions into segments. `exact` = choose them so that a row does not depend on its company (CPU)."""

    def __init__(self, shape: KVShape, exact: bool, max_rows: int, like: Tensor) -> None:
        """max_rows: longest sequence. like: any tensor with the dtype and device of the queries."""
        self._shape = shape
        self._exact = exact
        self._like = like
        self._past = round_context(max_rows)
        self._diagonal: Tensor | None = None

    def sort_key(self, position: int) -> int:
        """Decode rows of one step must be in ascending order of this."""
        return round_context(position + 1) if self._exact else 0

    def decode(self, tables: Tensor, positions: Tensor, contexts: list[int]) -> list[Segment]:
        """Segments of decode rows.

        tables: [rows, blocks] int32; positions: [rows] int64; contexts: the padded context per row, ascending, for
        as many rows as are real (padding rows behind them get no attention). Equal contexts make one segment.
        """
        segments = []
        begin = 0
        while begin < len(contexts):
            context = contexts[begin]
            end = begin + contexts.count(context)
            segments.append(self._rowwise(begin, end, tables[begin:end], positions[begin:end], context))
            begin = end
        return segments

    def prefill(self, table: Tensor, start: int, count: int, num_prompt: int) -> list[Segment]:
        """Segments of a chunk: rows [start, start + count) of one sequence whose first `num_prompt` are prompt."""
        if not self._exact:
            return [self._chunk(table, 0, start, count)]
        segments = []
        row, size = 0, self._shape.block_size
        while row < count and start + row < num_prompt:
            # A last, partly filled block is computed whole; its surplus rows are padding of the chunk.
            segments.append(self._prompt_block(table, row, start + row))
            row += size
        row = min(row, max(num_prompt - start, 0))
        if row < count:
            positions = torch.arange(start + row, start + count)
            contexts = [round_context(start + index + 1) for index in range(row, count)]
            tables = table[None].expand(count - row, -1)
            for segment in self.decode(tables, positions, contexts):
                segments.append(shift(segment, row))
        return segments

    def _rowwise(self, begin: int, end: int, tables: Tensor, positions: Tensor, context: int) -> Segment:
        num_blocks = -(-context // self._shape.block_size)
        context = num_blocks * self._shape.block_size
        blocks = tables[:, :num_blocks].reshape(-1)
        return Segment(begin, end, end - begin, blocks, length_mask(positions, context, self._like.dtype))

    def _prompt_block(self, table: Tensor, row: int, position: int) -> Segment:
        size = self._shape.block_size
        group = self._shape.num_heads // self._shape.num_kv_heads
        index = position // size
        if self._diagonal is None:
            # Row i hides what lies more than i behind `past`; a window that ends at past + size is the mask of any
            # query block, so one table serves all positions.
            self._diagonal = causal_mask(self._past, size, group, self._past + size, self._like)
        mask = self._diagonal[..., self._past - position :]
        return Segment(row, row + size, 1, table[: index + 1], mask)

    def _chunk(self, table: Tensor, row: int, start: int, count: int) -> Segment:
        num_blocks = -(-(start + count) // self._shape.block_size)
        group = self._shape.num_heads // self._shape.num_kv_heads
        mask = causal_mask(start, count, group, num_blocks * self._shape.block_size, self._like)
        return Segment(row, row + count, 1, table[:num_blocks], mask)


def shift(segment: Segment, rows: int) -> Segment:
    """The same segment, `rows` query rows further down."""
    return Segment(segment.begin + rows, segment.end + rows, segment.batch, segment.blocks, segment.mask)
