"""One LLM step: schedule, launch, collect what is due, apply. Knows no messages and no clock.

On CUDA one step is always in flight: the next is launched before the last is collected, so the device does not
wait for the host. A sequence that turns out to have ended may thereby have computed one row too many; its result
is void, and its blocks may be reused at once, because the device works in launch order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ttsfleet_runtime.llm.block_manager import BlockManager
from ttsfleet_runtime.llm.runner import Runner, Ticket
from ttsfleet_runtime.llm.scheduler import Scheduler
from ttsfleet_runtime.llm.sequence import Accepted, Sequence


@dataclass(frozen=True, slots=True)
class Progress:
    """What one sample meant for its sequence."""

    sequence: Sequence
    accepted: Accepted


@dataclass(slots=True)
class Engine:
    """Scheduler and runner of one style. `max_in_flight`: steps launched and not collected (0 on the CPU)."""

    scheduler: Scheduler
    runner: Runner
    max_in_flight: int = 0
    batch_size: int = 0
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
