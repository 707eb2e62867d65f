"""One sequence in an engine of its own, for golden cases: given uniforms, everything else as in production."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ttsfleet_runtime.checkpoint.bundle import LLMInfo, read_model_info
from ttsfleet_runtime.llm.engine import Engine, EngineSizes, build_engine
from ttsfleet_runtime.llm.scheduler import SchedulerLimits
from ttsfleet_runtime.llm.sequence import Accepted
from ttsfleet_runtime.llm.step_plan import StepPlan
from ttsfleet_runtime.verify.registry import Context

_SIZES = EngineSizes(SchedulerLimits(max_running=4, max_rows=1024, max_step_rows=128), num_blocks=80)


class GivenUniforms:
    """The uniforms of a case, in order: each draw that the sampler really makes takes one."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = torch.from_numpy(values.astype(np.float64))
        self.used = 0

    def __call__(self, seeds: Tensor, segments: Tensor, positions: Tensor, num_draws: int) -> Tensor:
        window = self._values[self.used : self.used + num_draws].to(seeds.device)
        return window.expand(seeds.shape[0], num_draws)


class Session:
    """One sequence in an engine of its own."""

    def __init__(self, context: Context, uniforms: np.ndarray | None = None) -> None:
        assert context.bundle_dir is not None
        model = read_model_info(context.bundle_dir)
        self.info: LLMInfo = model.llm
        self.uniforms = GivenUniforms(np.full(2, 0.5) if uniforms is None else uniforms)
        self.engine: Engine = build_engine(
            context.bundle_dir,
            model.styles[0],
            model.llm,
            _SIZES,
            device=torch.device(context.device),
            dtype=torch.float32,
            uniforms=self.uniforms,
        )
        self.engine.max_in_flight = 0
        self.runner, self.scheduler = self.engine.runner, self.engine.scheduler
        self.vocabulary = self.scheduler.vocabulary

    def step(self) -> list[Accepted]:
        """One engine step; the draws that it used are taken from the given uniforms."""
        progress = self.engine.step() or []
        if progress:
            assert self.runner.last_num_draws is not None
            self.uniforms.used += int(self.runner.last_num_draws[0])
        return [item.accepted for item in progress]

    def plan(self) -> StepPlan:
        """The next step of the one sequence, which has one."""
        plan = self.scheduler.schedule()
        assert plan is not None
        return plan
