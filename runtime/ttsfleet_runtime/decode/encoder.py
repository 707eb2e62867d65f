"""Speech tokens -> mu: the look-ahead convolutions and the two conformer stacks.

Source: tests/goldens/FORMAT.md, section 10.

One sequence at a time. Attention has a relative position term q . W_pos PE(i - j): PE and W_pos are constants, so
their product is a table per layer over all differences, grown on demand. Scores against the table are computed for
a block of queries at a time, for the differences that this block can meet, and shifted into place by strides; the
blocks are the mask's chunks when streaming, so that no product is computed and then masked. On CUDA one block with a
mask serves, since launches cost more than products there.

The upsampling (repeat each frame twice, then five taps) is folded into three taps on the unrepeated frames with two
sets of outputs: the same sums with two fifths fewer products.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import FlowInfo
from ttsfleet_runtime.decode.weights import RowConv, Weights

_EMBED_EPS = 1e-5
_CONFORMER_EPS = 1e-12
_QUERY_BLOCK = 128
_TABLE_STEP = 256


def position_encoding(reach: int, size: int, device: torch.device) -> Tensor:
    """Sinusoids of the differences reach - 1, ..., 0, ..., 1 - reach: [2 * reach - 1, size], float32."""
    difference = torch.arange(reach - 1, -reach, -1, device=device, dtype=torch.float64)
    rate = torch.arange(0, size, 2, device=device, dtype=torch.float64) * (-math.log(10000.0) / size)
    angle = difference[:, None] * rate.exp()
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).to(torch.float32)


class RelativeAttention:
    """Multi-head self-attention with learnt content and position biases, full or chunk-causal."""

    def __init__(self, weights: Weights, num_heads: int) -> None:
        self.num_heads = num_heads
        self.qkv = weights.dense("linear_qkv")
        self.out = weights.dense("linear_out")
        self.linear_pos = weights.dense("linear_pos", bias=False)
        self.bias_u = weights["pos_bias_u"]
        self.bias_v = weights["pos_bias_v"]
        self.device, self.dtype = weights.device, weights.dtype
        self._reach = 0
        self._table = torch.empty(0)

    def positions(self, length: int) -> Tensor:
        """The table for sequences up to `length`: [heads, head_dim, 2 * reach - 1], differences descending."""
        if length > self._reach:
            self._reach = -(-length // _TABLE_STEP) * _TABLE_STEP
            encoding = position_encoding(self._reach, self.bias_u.numel(), self.device).to(self.dtype)
            table = self.linear_pos(encoding).view(-1, self.num_heads, self.bias_u.shape[1])
            self._table = table.permute(1, 2, 0).contiguous()
        return self._table

    def __call__(self, x: Tensor, chunk: int | None) -> Tensor:
        """x: [frames, size] -> [frames, size]. chunk: None for full attention, else frames per mask chunk."""
        length = x.shape[0]
        qkv = self.qkv(x).view(length, 3, self.num_heads, -1)
        q, k, v = qkv.permute(1, 2, 0, 3)
        content, position = q + self.bias_u[:, None], q + self.bias_v[:, None]
        out = torch.empty(length, self.num_heads, q.shape[2], device=x.device, dtype=x.dtype)
        on_cpu = x.device.type == "cpu"
        step = (chunk or _QUERY_BLOCK) if on_cpu else length
        for begin in range(0, length, step):
            end = min(begin + step, length)
            keys = end if chunk is not None else length
            bias = self._position_scores(position[:, begin:end], begin, keys)
            if not on_cpu:
                bias = self._masked(bias, chunk)
            mixed = F.scaled_dot_product_attention(
                content[None, :, begin:end], k[None, :, :keys], v[None, :, :keys], attn_mask=bias[None]
            )
            out[begin:end] = mixed[0].transpose(0, 1)
        return self.out(out.flatten(1))

    @staticmethod
    def _masked(bias: Tensor, chunk: int | None) -> Tensor:
        """Chunk mask over [heads, frames, frames], laid out afresh: fused kernels need aligned rows."""
        if chunk is None:
            return bias.contiguous()
        chunk_of = torch.arange(bias.shape[2], device=bias.device) // chunk
        return bias.masked_fill(chunk_of[None, :] > chunk_of[:, None], float("-inf"))

    def _position_scores(self, queries: Tensor, begin: int, num_keys: int) -> Tensor:
        """queries: [heads, n, head_dim] from frame `begin` -> scaled scores [heads, n, num_keys], a strided view."""
        num_queries = queries.shape[1]
        table = self.positions(max(num_keys, begin + num_queries))
        last_query = begin + num_queries - 1
        first_column = self._reach - 1 - last_query
        width = num_queries + num_keys - 1
        scores = torch.matmul(queries, table[:, :, first_column : first_column + width])
        scores.mul_(1.0 / math.sqrt(queries.shape[2]))
        # Row i starts at difference last_query, but its own first difference is i steps further on.
        return scores.as_strided(
            (scores.shape[0], num_queries, num_keys), (num_queries * width, width - 1, 1), num_queries - 1
        )


class ConformerLayer:
    """Pre-norm attention and feed-forward, without convolution module. Adds to its input in place."""

    def __init__(self, weights: Weights, num_heads: int) -> None:
        self.attention = RelativeAttention(weights.under("self_attn"), num_heads)
        self.norm_mha = weights.norm("norm_mha")
        self.norm_ff = weights.norm("norm_ff")
        self.up = weights.dense("feed_forward.w_1")
        self.down = weights.dense("feed_forward.w_2")

    def __call__(self, x: Tensor, chunk: int | None) -> Tensor:
        size = (x.shape[1],)
        x.add_(self.attention(F.layer_norm(x, size, *self.norm_mha, _CONFORMER_EPS), chunk))
        normed = F.layer_norm(x, size, *self.norm_ff, _CONFORMER_EPS)
        return x.add_(self.down(F.silu(self.up(normed), inplace=True)))


class _Embed:
    """Linear, layer norm, and the factor sqrt(size)."""

    def __init__(self, weights: Weights) -> None:
        self.linear = weights.dense("out.0")
        self.norm = weights.norm("out.1")

    def __call__(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return F.layer_norm(y, (y.shape[1],), *self.norm, _EMBED_EPS).mul_(math.sqrt(y.shape[1]))


def _fold_upsampling(weight: Tensor, bias: Tensor) -> RowConv:
    """[size, size, 5] after repeating frames -> [2 * size, size, 3] before; even output frames first."""
    w0, w1, w2, w3, w4 = weight.unbind(2)
    even = torch.stack([w0 + w1, w2 + w3, w4], dim=2)
    odd = torch.stack([w0, w1 + w2, w3 + w4], dim=2)
    return RowConv(torch.cat([even, odd]), torch.cat([bias, bias]))


class TokenEncoder:
    """Embedded speech tokens -> mu. Holds no state of any request."""

    def __init__(self, info: FlowInfo, weights: Weights, projection: Weights) -> None:
        """weights: under `encoder.`; projection: where `encoder_proj` is."""
        self.info = info
        heads = info.encoder_heads
        self.embed = _Embed(weights.under("embed"))
        self.lookahead = weights.conv("pre_lookahead_layer.conv1")
        self.lookback = weights.conv("pre_lookahead_layer.conv2")
        self.layers = [ConformerLayer(weights.under(f"encoders.{i}"), heads) for i in range(info.encoder_blocks)]
        self.upsample = _fold_upsampling(weights["up_layer.conv.weight"], weights["up_layer.conv.bias"])
        self.up_embed = _Embed(weights.under("up_embed"))
        self.up_layers = [ConformerLayer(weights.under(f"up_encoders.{i}"), heads) for i in range(info.up_blocks)]
        self.after_norm = weights.norm("after_norm")
        self.projection = projection.dense("encoder_proj")

    def __call__(self, embedded: Tensor, num_context: int, *, streaming: bool) -> Tensor:
        """embedded: [tokens, size], the last `num_context` of them seen by the look-ahead only.

        Returns mu: [2 * (tokens - num_context), mel_bins].
        """
        chunk = self.info.encoder_chunk if streaming else None
        x = self._look_ahead(self.embed(embedded), num_context)
        for layer in self.layers:
            x = layer(x, chunk)
        ratio = self.info.token_mel_ratio
        x = self.up_embed(self.upsample.causal(x).view(x.shape[0] * ratio, -1))
        for layer in self.up_layers:
            x = layer(x, None if chunk is None else chunk * ratio)
        return self.projection(F.layer_norm(x, (x.shape[1],), *self.after_norm, _EMBED_EPS))

    def _look_ahead(self, rows: Tensor, num_context: int) -> Tensor:
        if num_context == 0:
            main, rows = rows, F.pad(rows, (0, 0, 0, self.info.pre_lookahead_len))
        else:
            main = rows[:-num_context]
        ahead = F.leaky_relu_(self.lookahead(rows), 0.01)
        return self.lookback.causal(ahead).add_(main)
