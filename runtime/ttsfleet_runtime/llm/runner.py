"""Runs step plans on a device: `launch(plan) -> ticket`, later `collect(ticket)`.

The runner owns the KV cache and the slots and decides nothing. A launch only enqueues work: what the next step
needs (sampled ids, histories, positions) stays on the device, so a step can be launched before the previous one is
collected, and the host waits for the device in `collect` alone. On the CPU a launch computes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ttsfleet_runtime import philox
from ttsfleet_runtime.llm.attention import Segment, SegmentPlanner, round_context, shift
from ttsfleet_runtime.llm.graph import DecodeGraphs
from ttsfleet_runtime.llm.linear import pad_rows
from ttsfleet_runtime.llm.model import SpeechLM
from ttsfleet_runtime.llm.sampling import NUM_DRAWS, mask_logits, sample
from ttsfleet_runtime.llm.sequence import Sequence
from ttsfleet_runtime.llm.slots import SlotRows, Slots
from ttsfleet_runtime.llm.step_plan import DecodeRow, PrefillChunk, SampledToken, StepPlan
from ttsfleet_runtime.messages import MAX_TOP_K

# (seeds, segments, positions: int64 [rows]; draws) -> float64 [rows, draws] in [0, 1)
UniformSource = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True, slots=True)
class RunnerSizes:
    """num_blocks: usable KV blocks. num_slots: sequences at once. max_rows: rows of one sequence."""

    num_blocks: int
    num_slots: int
    max_rows: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """A launched step: who sampled, with which epoch, and where the ids arrive ([samples] int64 on the host)."""

    sampled: tuple[tuple[Sequence, int], ...]
    tokens: tuple[Tensor, ...]
    ready: torch.cuda.Event | None


class Runner:
    """One model on one device. Not thread-safe."""

    def __init__(self, model: SpeechLM, sizes: RunnerSizes, uniforms: UniformSource = philox.uniforms) -> None:
        info = model.info
        self.model = model
        self._uniforms = uniforms
        self._exact = model.device.type == "cpu"
        self._block_size = model.kv_shape.block_size
        max_blocks = round_context(sizes.max_rows) // self._block_size + 1
        self._slots = Slots(sizes.num_slots, max_blocks, model.device)
        self._cache = model.new_cache(sizes.num_blocks)
        self._planner = SegmentPlanner(model.kv_shape, self._exact, sizes.max_rows, model.embedding)
        self._stop_ids = torch.tensor(sorted(info.stop_ids), dtype=torch.int64, device=model.device)
        self._graphs: DecodeGraphs | None = None
        self.last_hidden: Tensor | None = None
        self.last_logits: Tensor | None = None
        self.last_num_draws: Tensor | None = None

    def capture_graphs(self, max_batch: int, max_context: int) -> None:
        """CUDA only: decode steps up to these sizes run as captured graphs from now on."""
        assert not self._exact
        graphs = DecodeGraphs(self._decode, self._slots.padding, self.model.device)
        graphs.capture(max_batch, min(max_context, self._slots.block_tables.shape[1] * self._block_size))
        self._graphs = graphs

    @torch.inference_mode()
    def launch(self, plan: StepPlan) -> Ticket:
        """Enqueue one step. Reads the planned sequences now; they may change after."""
        sampled: list[Sequence] = []
        tokens: list[Tensor] = []
        for chunk in plan.prefill:
            self._slots.refresh(chunk.sequence)
        for row in plan.decode:
            self._slots.refresh(row.sequence)
        if plan.decode:
            rows = sorted(plan.decode, key=self._order)
            tokens.append(self._to_host(self._launch_decode(rows), len(rows)))
            sampled += [row.sequence for row in rows]
        if plan.prefill:
            finishing = [chunk.sequence for chunk in plan.prefill if chunk.samples]
            first = self._launch_prefill(plan.prefill)
            if first is not None:
                tokens.append(self._to_host(first, len(finishing)))
                sampled += finishing
        ready = None
        if not self._exact:
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        return Ticket(tuple((sequence, sequence.epoch) for sequence in sampled), tuple(tokens), ready)

    def collect(self, ticket: Ticket) -> list[SampledToken]:
        """Wait for the step and return its samples, in the order of the plan's sequences within each part."""
        if ticket.ready is not None:
            ticket.ready.synchronize()
        ids = [token for part in ticket.tokens for token in part.tolist()]
        pairs = zip(ticket.sampled, ids, strict=True)
        return [SampledToken(sequence, epoch, token) for (sequence, epoch), token in pairs]

    @torch.inference_mode()
    def prefill_hidden(self, chunk: PrefillChunk) -> Tensor:
        """Final-norm hidden states [rows, hidden] of one chunk, nothing sampled (for verification)."""
        self._slots.refresh(chunk.sequence)
        hidden, starts = self._forward_chunks((chunk,))
        return hidden[starts[0] : starts[0] + chunk.end - chunk.begin]

    def reload(self, sequence: Sequence) -> None:
        """Make the device take the sequence's state (last row, history, counts) from the host again."""
        self._slots.invalidate(sequence.slot)

    def logits_are_finite(self) -> bool:
        """Whether the last sampled step was sound. Waits for the device; -inf marks masked ids."""
        return self.last_logits is None or not bool((self.last_logits.isnan() | self.last_logits.isposinf()).any())

    def memory_bytes(self) -> int | None:
        """Device memory that this process holds, or None on the CPU."""
        return None if self._exact else torch.cuda.memory_reserved(self.model.device)

    # --- decode ---------------------------------------------------------------------------------------------

    def _order(self, row: DecodeRow) -> int:
        return self._planner.sort_key(row.position)

    def _launch_decode(self, rows: list[DecodeRow]) -> Tensor:
        slots = [row.sequence.slot for row in rows]
        longest = max(row.position for row in rows) + 1
        if self._graphs is not None:
            graphed = self._graphs.replay(slots, longest)
            if graphed is not None:
                return graphed
        if self._exact:
            slots += [self._slots.padding] * (pad_rows(len(slots)) - len(slots))
            contexts = [round_context(row.position + 1) for row in rows]
            max_top_k = max(row.sequence.spec.sampling.top_k for row in rows)
        else:
            contexts = [round_context(longest)] * len(slots)
            max_top_k = MAX_TOP_K
        return self._decode(self._indices(slots), contexts, max_top_k)

    def _decode(self, indices: Tensor, contexts: list[int], max_top_k: int) -> Tensor:
        """One decode step of the slots `indices` [rows]; contexts as `SegmentPlanner.decode`. Returns ids [rows]."""
        rows = self._slots.gather(indices)
        tables = self._slots.block_tables.index_select(0, indices)
        positions = rows.positions.clone()
        mapping = self._slot_mapping(tables, positions)
        segments = self._planner.decode(tables, positions, contexts)
        hidden = self.model.forward(rows.row_ids, positions, mapping, self._cache, segments)
        return self._sample(indices, rows, hidden, max_top_k, len(contexts))

    def _slot_mapping(self, tables: Tensor, positions: Tensor) -> Tensor:
        size = self._block_size
        blocks = tables.gather(1, (positions // size)[:, None]).squeeze(1)
        return blocks * size + positions % size

    # --- prefill --------------------------------------------------------------------------------------------

    def _launch_prefill(self, chunks: tuple[PrefillChunk, ...]) -> Tensor | None:
        """Compute the chunks; sample for those that finish. Returns their ids, or None."""
        hidden, starts = self._forward_chunks(chunks)
        last = []
        slots = []
        max_top_k = 1
        for chunk, start in zip(chunks, starts, strict=True):
            if chunk.samples:
                last.append(start + chunk.end - chunk.begin - 1)
                slots.append(chunk.sequence.slot)
                max_top_k = max(max_top_k, chunk.sequence.spec.sampling.top_k)
        if not last:
            return None
        num_samples = len(last)
        if self._exact:
            padding = pad_rows(num_samples) - num_samples
            last += [0] * padding
            slots += [self._slots.padding] * padding
        indices = self._indices(slots)
        rows = self._slots.gather(indices)
        return self._sample(indices, rows, hidden[self._indices(last)], max_top_k, num_samples)

    def _forward_chunks(self, chunks: tuple[PrefillChunk, ...]) -> tuple[Tensor, list[int]]:
        """All chunks in one pass. Returns hidden states and the first row of each chunk."""
        ids: list[int] = []
        positions: list[int] = []
        mapping: list[int] = []
        segments: list[Segment] = []
        starts = []
        for chunk in chunks:
            start, sequence = len(ids), chunk.sequence
            starts.append(start)
            count = chunk.end - chunk.begin
            ids += sequence.rows[chunk.begin : chunk.end]
            places = range(chunk.begin, chunk.end)
            positions += places
            mapping += [
                sequence.blocks[place // self._block_size] * self._block_size + place % self._block_size
                for place in places
            ]
            table = self._slots.block_tables[sequence.slot]
            planned = self._planner.prefill(table, chunk.begin, count, sequence.num_prompt_rows)
            segments += [shift(segment, start) for segment in planned]
            padding = self._padded(count) - count
            ids += [0] * padding
            positions += [0] * padding
            mapping += [0] * padding
        inputs = self._indices(ids + positions + mapping).view(3, -1)
        return self.model.forward(inputs[0], inputs[1], inputs[2], self._cache, segments), starts

    def _padded(self, count: int) -> int:
        """Rows of a chunk with padding: whole query blocks on the CPU."""
        if not self._exact:
            return count
        return pad_rows(-(-count // self._block_size) * self._block_size)

    # --- both -----------------------------------------------------------------------------------------------

    def _sample(self, indices: Tensor, rows: SlotRows, hidden: Tensor, max_top_k: int, num_samples: int) -> Tensor:
        """Ids of the first `num_samples` rows; what follows was only there to fill the products."""
        info = self.model.info
        logits = self.model.logits(hidden)
        if num_samples < len(logits):
            logits, indices, rows = logits[:num_samples], indices[:num_samples], rows.first(num_samples)
        mask_logits(logits, info.masked_before_min, rows.before_min, self._stop_ids, rows.ignore_eos)
        uniforms = self._uniforms(rows.seeds, rows.segments, rows.counts, NUM_DRAWS)
        tokens, num_draws = sample(logits, rows.sampling(), uniforms, max_top_k)
        rows.advance(tokens, info.speech_offset)
        self._slots.scatter(indices, rows)
        self.last_hidden, self.last_logits, self.last_num_draws = hidden, logits, num_draws
        return tokens

    def _indices(self, values: list[int]) -> Tensor:
        host = torch.tensor(values, dtype=torch.int64)
        return host if self._exact else host.pin_memory().to(self.model.device, non_blocking=True)

    def _to_host(self, tokens: Tensor, count: int) -> Tensor:
        if self._exact:
            return tokens[:count]
        host = torch.empty(count, dtype=torch.int64, pin_memory=True)
        host.copy_(tokens[:count], non_blocking=True)
        return host
