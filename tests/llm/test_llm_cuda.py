"""The same engine on a GPU: eager and captured steps, one step late."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.llm.engine import Engine, EngineSizes, build_engine
from ttsfleet_runtime.llm.graph import buckets, smallest_at_least
from ttsfleet_runtime.llm.scheduler import SchedulerLimits
from ttsfleet_runtime.llm.sequence import SequenceSpec

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
LENGTH = 40


def speak(engine: Engine) -> list[list[int]]:
    vocabulary = engine.scheduler.vocabulary
    sequences = []
    for index in range(6):
        rows = tuple(vocabulary.prompt_rows([(7 * index + step) % 700 for step in range(10 + 9 * index)], []))
        spec = SequenceSpec(rows, seed=index, segment=0, min_tokens=LENGTH, max_tokens=LENGTH, ignore_eos=True)
        sequences.append(engine.scheduler.add(spec))
    while engine.step() is not None:
        pass
    assert engine.blocks.num_held == 0
    return [sequence.outputs for sequence in sequences]


def make(bundle: Path, device: str, num_blocks: int = 64) -> Engine:
    info = read_model_info(bundle)
    limits = SchedulerLimits(max_running=8, max_rows=160, max_step_rows=64)
    sizes = EngineSizes(limits, num_blocks)
    return build_engine(bundle, info.styles[0], info.llm, sizes, device=torch.device(device), dtype=torch.float32)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("num_blocks", [64, 20], ids=["roomy", "preempting"])
def test_the_gpu_speaks_what_the_cpu_speaks(random_v2_bundle: Path, graphs: bool, num_blocks: int) -> None:
    expected = speak(make(random_v2_bundle, "cpu"))
    engine = make(random_v2_bundle, "cuda", num_blocks)
    if graphs:
        engine.runner.capture_graphs(max_batch=4, max_context=128)
    spoken = speak(engine)
    # Sums in another order may tip a draw once in thousands; what follows it then differs.
    same = sum(a == b for a, b in zip(spoken, expected, strict=True))
    assert same >= len(expected) - 1


@pytest.mark.parametrize(
    ("smallest", "largest", "sizes"),
    [(1, 8, [1, 2, 4, 8]), (1, 6, [1, 2, 4, 6]), (1, 1, [1]), (256, 512, [256, 512]), (256, 700, [256, 512, 700])],
)
def test_graph_sizes_double_up_to_the_largest(smallest: int, largest: int, sizes: list[int]) -> None:
    assert buckets(smallest, largest) == sizes


@pytest.mark.parametrize(("wanted", "found"), [(1, 1), (3, 4), (8, 8), (9, None)])
def test_the_smallest_graph_that_is_large_enough_is_used(wanted: int, found: int | None) -> None:
    assert smallest_at_least([1, 2, 4, 8], wanted) == found
