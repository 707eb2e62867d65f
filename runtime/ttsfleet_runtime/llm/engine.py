"""One LLM step: schedule, launch, collect what is due, apply. Knows no messages and no clock.

On CUDA one step is always in flight: the next is launched before the last is collected, so the device does not
wait for the host. A sequence that turns out to have ended may thereby have computed one row too many; its result
is void, and its blocks may be reused at once, because the device works in launch order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ttsfleet_runtime import philox
from ttsfleet_runtime.checkpoint.bundle import LLMInfo
from ttsfleet_runtime.llm.block_manager import BlockManager
from ttsfleet_runtime.llm.model import SpeechLM
from ttsfleet_runtime.llm.runner import Runner, RunnerSizes, Ticket, UniformSource
from ttsfleet_runtime.llm.scheduler import Scheduler, SchedulerLimits
from ttsfleet_runtime.llm.sequence import Accepted, Sequence, Vocabulary
from ttsfleet_runtime.llm.weights import load_llm_weights


@dataclass(frozen=True, slots=True)
class Progress:
    """What one sample meant for its sequence."""

    sequence: Sequence
    accepted: Accepted


@dataclass(slots=True)
class Engine:
    """Scheduler and runner of one style.

    max_in_flight: steps launched and not collected (0 on the CPU). batch_size, admitted: of the last step.
    """

    scheduler: Scheduler
    runner: Runner
    max_in_flight: int = 0
    batch_size: int = 0
    admitted: tuple[Sequence, ...] = ()
    _tickets: deque[Ticket] = field(default_factory=deque)

    @property
    def blocks(self) -> BlockManager:
        return self.scheduler.blocks

    @property
    def idle(self) -> bool:
        return not (self.scheduler.waiting or self.scheduler.active or self._tickets)

    def step(self) -> list[Progress] | None:
        """Launch at most one step and apply what has come back. None = there was nothing to do."""
        plan = self.scheduler.schedule()
        self.batch_size = len(plan.decode) if plan is not None else 0
        self.admitted = plan.admitted if plan is not None else ()
        if plan is not None:
            self._tickets.append(self.runner.launch(plan))
        elif not self._tickets:
            return None
        progress: list[Progress] = []
        while self._tickets and (plan is None or len(self._tickets) > self.max_in_flight):
            for sampled in self.runner.collect(self._tickets.popleft()):
                accepted = self.scheduler.apply(sampled)
                if accepted is not None:
                    progress.append(Progress(sampled.sequence, accepted))
        return progress


@dataclass(frozen=True, slots=True)
class EngineSizes:
    """limits: see `SchedulerLimits`. num_blocks blocks of block_size rows are the KV cache."""

    limits: SchedulerLimits
    num_blocks: int
    block_size: int = 16


def build_engine(
    bundle_dir: Path,
    style: str,
    info: LLMInfo,
    sizes: EngineSizes,
    *,
    device: torch.device,
    dtype: torch.dtype,
    uniforms: UniformSource = philox.uniforms,
) -> Engine:
    """Load one style's weights and make its engine. Raises CheckpointError for weights that do not fit."""
    limits = sizes.limits
    weights = load_llm_weights(bundle_dir, style, info, device, dtype)
    model = SpeechLM(info, weights, limits.max_rows, sizes.block_size)
    runner_sizes = RunnerSizes(num_blocks=sizes.num_blocks, num_slots=limits.max_running, max_rows=limits.max_rows)
    return Engine(
        scheduler=Scheduler(BlockManager(sizes.num_blocks, sizes.block_size), limits, Vocabulary.of(info)),
        runner=Runner(model, runner_sizes, uniforms),
        max_in_flight=0 if device.type == "cpu" else 1,
    )
