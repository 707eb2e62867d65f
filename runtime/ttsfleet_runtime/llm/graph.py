"""Decode steps as captured CUDA graphs. All graph policy is here: which sizes exist, and when one is used.

A graph is captured for each pair of a batch bucket (1, 2, 4, … graph_max_batch_size) and a context bucket (256,
512, … graph_max_len_in_batch). Its only input is the list of slots; everything else it reads and writes in place
in the slot tables and the KV cache, which never move. Unused rows of a bucket are the padding slot. All graphs
share one memory pool, so they must be replayed on one stream, one after the other: that is what a runner does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ttsfleet_runtime.messages import MAX_TOP_K

_SMALLEST_CONTEXT = 256
_WARMUP_STEPS = 2

# (slots [rows] int64, padded context per row, candidates) -> sampled ids [rows]
DecodeStep = Callable[[Tensor, list[int], int], Tensor]


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    slots: Tensor
    tokens: Tensor


class DecodeGraphs:
    """Captured decode steps of one runner."""

    def __init__(self, step: DecodeStep, padding_slot: int, device: torch.device) -> None:
        self._step = step
        self._padding_slot = padding_slot
        self._device = device
        self._batches: list[int] = []
        self._contexts: list[int] = []
        self._captured: dict[tuple[int, int], _Captured] = {}

    @torch.inference_mode()
    def capture(self, max_batch: int, max_context: int) -> None:
        """Capture all buckets, the largest first, so that the pool is allocated once."""
        self._batches = buckets(1, max_batch)
        self._contexts = buckets(min(_SMALLEST_CONTEXT, max_context), max_context)
        pool = None
        for context in reversed(self._contexts):
            for batch in reversed(self._batches):
                slots = torch.full((batch,), self._padding_slot, dtype=torch.int64, device=self._device)
                self._warm_up(slots, context)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool):
                    tokens = self._step(slots, [context] * batch, MAX_TOP_K)
                pool = pool or graph.pool()
                self._captured[batch, context] = _Captured(graph, slots, tokens)

    def replay(self, slots: list[int], longest: int) -> Tensor | None:
        """One step of these slots, whose longest context is `longest`. None = larger than any graph."""
        batch = smallest_at_least(self._batches, len(slots))
        context = smallest_at_least(self._contexts, longest)
        if batch is None or context is None:
            return None
        captured = self._captured[batch, context]
        padded = slots + [self._padding_slot] * (batch - len(slots))
        captured.slots.copy_(torch.tensor(padded, dtype=torch.int64).pin_memory(), non_blocking=True)
        captured.graph.replay()
        return captured.tokens

    def _warm_up(self, slots: Tensor, context: int) -> None:
        """Libraries initialise their workspaces on first use, which must not happen during capture."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(_WARMUP_STEPS):
                self._step(slots, [context] * slots.shape[0], MAX_TOP_K)
        torch.cuda.current_stream(self._device).wait_stream(stream)


def buckets(smallest: int, largest: int) -> list[int]:
    """smallest, doubled until it reaches largest, and largest itself."""
    sizes = []
    size = smallest
    while size < largest:
        sizes.append(size)
        size *= 2
    return [*sizes, largest]


def smallest_at_least(sizes: list[int], wanted: int) -> int | None:
    return next((size for size in sizes if size >= wanted), None)
