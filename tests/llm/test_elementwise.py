"""The LM with the kernels' form of its small operations is the LM with the CPU's form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.llm.elementwise import KernelElementwise, PlainElementwise
from ttsfleet_runtime.llm.engine import EngineSizes, build_engine
from ttsfleet_runtime.llm.scheduler import SchedulerLimits
from ttsfleet_runtime.llm.sequence import SequenceSpec
from ttsfleet_runtime.llm.step_plan import PrefillChunk

EPSILON = 1e-6
CPU = torch.device("cpu")
# One reduction in another order, and one rounding of bfloat16.
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1.6e-2}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("shape", [(1, 8), (3, 256), (17, 96)], ids=str)
def test_both_forms_agree(dtype: torch.dtype, with_residual: bool, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    x, residual = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    weight = torch.randn(shape[1], generator=generator).to(dtype)
    results = []
    for form in (PlainElementwise(EPSILON, CPU), KernelElementwise(EPSILON)):
        total = residual.clone() if with_residual else None
        results.append((*form.add_norm(x.clone(), total, weight), form.silu_mul(x.clone())))
    tolerance = TOLERANCE[dtype]
    for plain, kernel in zip(*results, strict=True):
        torch.testing.assert_close(kernel, plain, rtol=tolerance, atol=tolerance)


def test_a_forward_pass_is_the_same_with_both_forms(random_v2_bundle: Path) -> None:
    info = read_model_info(random_v2_bundle)
    limits = SchedulerLimits(max_running=2, max_rows=128, max_step_rows=128)
    hidden = []
    for form in (None, KernelElementwise(info.llm.rms_norm_eps)):
        engine = build_engine(
            random_v2_bundle, info.styles[0], info.llm, EngineSizes(limits, 16), device=CPU, dtype=torch.float32
        )
        if form is not None:
            engine.runner.model.elementwise = form
        rows = tuple(engine.scheduler.vocabulary.prompt_rows(list(range(20)), [1, 2, 3]))
        engine.scheduler.add(SequenceSpec(rows, seed=1, segment=0, min_tokens=1, max_tokens=1))
        plan = engine.scheduler.schedule()
        assert plan is not None
        (chunk,) = plan.prefill
        assert isinstance(chunk, PrefillChunk)
        hidden.append(engine.runner.prefill_hidden(chunk))
    torch.testing.assert_close(hidden[1], hidden[0], rtol=1e-4, atol=1e-4)
