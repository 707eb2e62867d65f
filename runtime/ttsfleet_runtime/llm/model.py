"""The Qwen2 decoder with CosyVoice's fused embedding table and speech head.

Source: tests/goldens/FORMAT.md, sections 3 and 7.

Rows in, hidden states out; keys and values go to the paged cache. Weights come in the bundle's fused form: q, k
and v as one projection, gate and up as one. The forward pass is written for few, cheap operator calls: in a decode
step of a small model the calls, not the products, are the cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import LLMInfo
from ttsfleet_runtime.llm.attention import KVShape, Segment, attend
from ttsfleet_runtime.llm.elementwise import make_elementwise
from ttsfleet_runtime.llm.linear import Linear, make_linear
from ttsfleet_runtime.llm.rotary import make_rotary


@dataclass(frozen=True, slots=True)
class _Layer:
    input_norm: Tensor
    qkv: Linear
    o: Linear
    post_norm: Tensor
    gate_up: Linear
    down: Linear


class SpeechLM:
    """Immutable weights and tables of one style on one device. Holds no sequence state."""

    def __init__(self, info: LLMInfo, weights: Mapping[str, Tensor], max_rows: int, block_size: int) -> None:
        """weights: the bundle's keys, all on one device in one dtype. max_rows: longest sequence, for the tables."""
        self.info = info
        self.embedding = weights["embedding.weight"]
        self.device, self.dtype = self.embedding.device, self.embedding.dtype
        self.kv_shape = KVShape(
            num_heads=info.num_heads,
            num_kv_heads=info.num_kv_heads,
            head_dim=info.head_dim,
            block_size=block_size,
        )
        self._rotary = make_rotary(
            info.num_heads + info.num_kv_heads,
            info.head_dim,
            info.rope_theta,
            max_rows,
            self.device,
            self.dtype,
        )
        self._layers = [self._layer(weights, f"layers.{index}.") for index in range(info.num_layers)]
        self._norm = weights["norm.weight"]
        self._head = make_linear(weights["head.weight"], weights.get("head.bias"))
        self.elementwise = make_elementwise(self.device, info.rms_norm_eps)

    def _layer(self, weights: Mapping[str, Tensor], prefix: str) -> _Layer:
        return _Layer(
            input_norm=weights[prefix + "input_norm.weight"],
            qkv=make_linear(
                self._rotary.arrange(weights[prefix + "qkv.weight"]),
                self._rotary.arrange(weights[prefix + "qkv.bias"]),
            ),
            o=make_linear(weights[prefix + "o.weight"], None),
            post_norm=weights[prefix + "post_norm.weight"],
            gate_up=make_linear(weights[prefix + "gate_up.weight"], None),
            down=make_linear(weights[prefix + "down.weight"], None),
        )

    def new_cache(self, num_blocks: int) -> list[Tensor]:
        """Zeroed KV cache per layer: [num_blocks + 1, block_size, row]. Zeros, because padding is read too."""
        size = (num_blocks + 1, self.kv_shape.block_size, self.kv_shape.row_size)
        return [torch.zeros(size, dtype=self.dtype, device=self.device) for _ in self._layers]

    def embed(self, row_ids: Tensor) -> Tensor:
        """row_ids: [rows] int64 -> [rows, hidden]."""
        return self.embedding.index_select(0, row_ids)

    def forward(
        self,
        row_ids: Tensor,
        positions: Tensor,
        slot_mapping: Tensor,
        cache: list[Tensor],
        segments: list[Segment],
    ) -> Tensor:
        """Final-norm hidden states [rows, hidden] of the given rows; their keys and values are written to `cache`.

        row_ids, positions: [rows] int64. slot_mapping: [rows] int64, block * block_size + offset (0 for padding).
        """
        info = self.info
        num_rows = row_ids.shape[0]
        q_size = info.num_heads * info.head_dim
        factors = self._rotary.select(positions)
        add_norm, silu_mul = self.elementwise.add_norm, self.elementwise.silu_mul
        update, residual = self.embed(row_ids), None
        attended = torch.zeros((num_rows, q_size), dtype=self.dtype, device=self.device)
        for layer, layer_cache in zip(self._layers, cache, strict=True):
            normed, residual = add_norm(update, residual, layer.input_norm)
            qkv = layer.qkv(normed)
            self._rotary.turn(qkv, factors)
            layer_cache.view(-1, self.kv_shape.row_size).index_copy_(0, slot_mapping, qkv[:, q_size:])
            attend(qkv[:, :q_size], layer_cache, segments, self.kv_shape, attended)
            normed, residual = add_norm(layer.o(attended), residual, layer.post_norm)
            update = layer.down(silu_mul(layer.gate_up(normed)))
        return add_norm(update, residual, self._norm)[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden: [rows, hidden] -> [rows, speech_vocab] float32."""
        return self._head(hidden).float()
