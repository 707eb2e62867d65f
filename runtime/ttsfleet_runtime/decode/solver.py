"""The ODE from noise to mel: Euler steps with classifier-free guidance, for any set of jobs at once.

Jobs may differ in length, step and streaming flag. A batch is packed once and advanced until the steps asked for are
done or a job has taken its last one; then the remaining jobs are packed anew. Rows are doubled for guidance: the
first copy is conditional, the second has mu, speaker and prompt mel at zero but the same x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import FlowInfo
from ttsfleet_runtime.decode.attention import PackedAttention
from ttsfleet_runtime.decode.estimator import CONTEXT_ROWS, Estimator, TimeBiases
from ttsfleet_runtime.decode.packing import PackedLayout

# Beyond this a layer's activations leave the L2 cache: 8 jobs of 3 to 5.5 s took 55 ms per second of audio in one
# batch, 46 ms in groups (tiny-en, one core of an AMD EPYC with 1 MiB L2, 2026-11). Below it batching saves overhead.
_CPU_GROUP_FRAMES = 600


@dataclass(eq=False)
class FlowJob:
    """One mel in the making. The solver replaces `x` and counts `step`; nothing else changes."""

    mu: Tensor  # [frames, mel_bins]
    cond: Tensor  # [frames, mel_bins], the prompt mel in its first frames, zero elsewhere
    x: Tensor  # [frames, mel_bins], float32: noise at step 0, mel when done
    spk: Tensor  # [mel_bins]
    step: int
    streaming: bool  # chunk-causal attention
    num_prompt_frames: int
    num_steps: int = 10
    condition: Tensor | None = field(default=None, repr=False)  # of the estimator, computed on the first step

    @property
    def frames(self) -> int:
        return self.x.shape[0]

    @property
    def done(self) -> bool:
        return self.step >= self.num_steps

    @property
    def mel(self) -> Tensor:
        """[frames - num_prompt_frames, mel_bins]: the generated part (of `x`, so meaningful once done)."""
        return self.x[self.num_prompt_frames :]


def time_grid(num_steps: int) -> tuple[Tensor, Tensor]:
    """t at the start of each step and the step widths: two [num_steps] float32 tensors on the CPU.

    The cosine schedule 1 - cos(pi i / 2n); t is carried as a float32 sum of its widths, as the reference does.
    """
    span = 1.0 - torch.cos(torch.linspace(0.0, 1.0, num_steps + 1) * 0.5 * math.pi)
    t, starts, widths = span[0], [], []
    for index in range(1, num_steps + 1):
        width = span[index] - t
        starts.append(t)
        widths.append(width)
        t = t + width
    return torch.stack(starts), torch.stack(widths)


class Solver:
    """Euler steps over an estimator. Holds tables, no state of any request."""

    def __init__(self, info: FlowInfo, estimator: Estimator) -> None:
        self.info = info
        self.estimator = estimator
        self.t_starts, self.t_widths = time_grid(info.num_steps)
        self.biases = estimator.time_biases(self.t_starts.to(estimator.device))

    def advance(self, jobs: Sequence[FlowJob], num_steps: int) -> None:
        """Take `num_steps` Euler steps in each job, or as many as it has left."""
        remaining = num_steps
        active = [job for job in jobs if not job.done]
        while active and remaining > 0:
            together = min(remaining, min(job.num_steps - job.step for job in active))
            for group in self._groups(active):
                self._advance_together(group, together)
            remaining -= together
            active = [job for job in active if not job.done]

    def _groups(self, jobs: Sequence[FlowJob]) -> list[list[FlowJob]]:
        """All jobs in one batch on CUDA; on the CPU as many as fit the caches, in order."""
        if self.estimator.device.type != "cpu":
            return [list(jobs)]
        groups: list[list[FlowJob]] = []
        room = 0
        for job in jobs:
            if job.frames > room or not groups:
                groups.append([])
                room = _CPU_GROUP_FRAMES
            groups[-1].append(job)
            room -= job.frames
        return groups

    def velocity(self, job: FlowJob) -> Tensor:
        """The vector field at the job's x and step: [2, frames, mel_bins], conditional and unconditional."""
        batch = _Batch(self, [job])
        rows = batch.velocity([job.step])
        return rows.view(2, -1, rows.shape[1])[:, : job.frames]

    def _advance_together(self, jobs: Sequence[FlowJob], num_steps: int) -> None:
        batch = _Batch(self, jobs)
        for offset in range(num_steps):
            batch.euler_step([job.step + offset for job in jobs])
        for job, x in zip(jobs, batch.layout.unpack(batch.x), strict=True):
            job.x = x
            job.step += num_steps


class _Batch:
    """Packed jobs for some consecutive steps."""

    def __init__(self, solver: Solver, jobs: Sequence[FlowJob]) -> None:
        self.solver = solver
        estimator, info = solver.estimator, solver.info
        device = estimator.device
        self.layout = PackedLayout([job.frames for job in jobs], gap=CONTEXT_ROWS, copies=2, device=device)
        self.attention = PackedAttention(
            self.layout,
            [job.streaming for job in jobs],
            chunk=info.estimator_chunk,
            num_heads=info.estimator_heads,
            head_dim=info.estimator_head_dim,
            device=device,
            dtype=estimator.dtype,
        )
        for job in jobs:
            if job.condition is None:
                job.condition = estimator.condition(job.mu, job.spk, job.cond)
        self.x = self.layout.pack([job.x for job in jobs])
        self.condition = self.layout.pack([job.condition for job in jobs if job.condition is not None])

    def euler_step(self, steps: Sequence[int]) -> None:
        """x += dt * ((1 + w) v_conditional - w v_unconditional); `steps`: each job's own."""
        conditional, unconditional = self.velocity(steps).to(torch.float32).chunk(2)
        weight = self.solver.info.cfg_rate
        guided = conditional.mul_(1.0 + weight).sub_(unconditional, alpha=weight)
        if len(set(steps)) == 1:
            self.x.add_(guided, alpha=float(self.solver.t_widths[steps[0]]))
        else:
            rows = self.layout.rows_of(steps)[: self.layout.rows_per_copy]
            widths = self.solver.t_widths[rows].to(self.x.device, non_blocking=True)
            self.x.addcmul_(guided, widths[:, None])
        self.layout.zero_gaps(self.x)

    def velocity(self, steps: Sequence[int]) -> Tensor:
        """[2 * rows_per_copy, mel_bins] at the current x."""
        estimator = self.solver.estimator
        projected = estimator.project(self.x)
        hidden = projected.new_empty(self.layout.rows, projected.shape[1])
        conditional, unconditional = hidden.chunk(2)
        torch.add(projected, self.condition, out=conditional)
        torch.add(projected, estimator.condition_bias, out=unconditional)
        return estimator.velocity(hidden, self._biases(steps), self.layout, self.attention)

    def _biases(self, steps: Sequence[int]) -> TimeBiases:
        table = self.solver.biases
        if len(set(steps)) == 1:
            return TimeBiases(table[steps[0] : steps[0] + 1], None)
        return TimeBiases(table, self.layout.rows_of(steps).to(table.device, non_blocking=True))
