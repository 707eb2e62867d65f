"""On the CPU a sequence is computed the same, to the bit, whoever shares the engine and whatever happens to it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ttsfleet_runtime import philox
from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.llm.engine import Engine, EngineSizes, build_engine
from ttsfleet_runtime.llm.scheduler import SchedulerLimits
from ttsfleet_runtime.llm.sequence import SequenceSpec, Vocabulary

NUM_SEQUENCES = 8
# (seed of the sequence, output number) -> the logits that it was sampled from
Bits = dict[tuple[int, int], bytes]


class Recorded:
    """An engine, the tokens of each sequence and the bits of the logits behind them."""

    def __init__(
        self,
        bundle: Path,
        num_blocks: int = 256,
        max_rows: int = 512,
        max_running: int = 16,
        max_step_rows: int = 512,
    ) -> None:
        info = read_model_info(bundle)
        limits = SchedulerLimits(max_running=max_running, max_rows=max_rows, max_step_rows=max_step_rows)
        self.bits: Bits = {}
        self.changed: list[tuple[int, int]] = []
        self._logits = torch.empty(0)
        self.engine: Engine = build_engine(
            bundle,
            info.styles[0],
            info.llm,
            EngineSizes(limits, num_blocks),
            device=torch.device("cpu"),
            dtype=torch.float32,
            uniforms=self._uniforms,
        )
        model = self.engine.runner.model
        compute = model.logits

        def logits(hidden: Tensor) -> Tensor:
            self._logits = compute(hidden)
            return self._logits

        model.logits = logits  # type: ignore[method-assign]

    def _uniforms(self, seeds: Tensor, segments: Tensor, positions: Tensor, num_draws: int) -> Tensor:
        """Philox; on the way, note the logits of each row under its seed and output number."""
        for row, (seed, position) in enumerate(zip(seeds.tolist(), positions.tolist(), strict=True)):
            if seed == 0:
                continue  # padding
            bits = self._logits[row].numpy().tobytes()
            if self.bits.setdefault((seed, position), bits) != bits:
                self.changed.append((seed, position))
        return philox.uniforms(seeds, segments, positions, num_draws)

    def speak(self, specs: list[SequenceSpec], joins: list[int]) -> dict[int, list[int]]:
        """Tokens by seed; sequence i joins at step joins[i]."""
        tokens: dict[int, list[int]] = {spec.seed: [] for spec in specs}
        waiting = sorted(zip(joins, range(len(specs)), strict=True))
        step = 0
        while waiting or not self.engine.idle:
            while waiting and waiting[0][0] <= step:
                self.engine.scheduler.add(specs[waiting.pop(0)[1]])
            for progress in self.engine.step() or []:
                if progress.accepted.emitted is not None:
                    tokens[progress.sequence.spec.seed].append(progress.accepted.emitted)
            step += 1
        assert self.engine.blocks.num_held == 0
        return tokens


def make_specs(vocabulary: Vocabulary, seed: int) -> list[SequenceSpec]:
    """Prompts of many lengths; every other one begins with the same 40 rows; some continue prompt speech."""
    chance = random.Random(seed)

    def text(count: int) -> list[int]:
        return [chance.randrange(vocabulary.num_text_rows) for _ in range(count)]

    shared = text(40)
    specs = []
    for index in range(NUM_SEQUENCES):
        ids = (shared if index % 2 else []) + text(chance.randrange(3, 50))
        speech = (
            [chance.randrange(vocabulary.num_codes) for _ in range(chance.randrange(50))] if index % 3 == 0 else []
        )
        specs.append(
            SequenceSpec(
                rows=tuple(vocabulary.prompt_rows(ids, speech)),
                seed=index * 7919 + 1,
                segment=index % 3,
                min_tokens=30,
                max_tokens=chance.randrange(31, 80),
            )
        )
    return specs


@pytest.fixture(params=["random_v2_bundle", "tiny_en_bundle"])
def bundle(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.mark.usefixtures("threads")
def test_tokens_and_logits_are_the_same_alone_in_company_preempted_and_with_prefix_hits(bundle: Path) -> None:
    specs = make_specs(Vocabulary.of(read_model_info(bundle).llm), seed=1)
    chance = random.Random(2)
    joins = [chance.randrange(50) for _ in specs]
    alone = Recorded(bundle)
    expected: dict[int, list[int]] = {}
    for spec in specs:
        alone.engine.blocks.drop_idle()
        expected |= alone.speak([spec], [0])
    assert alone.engine.scheduler.counters.prefix_hit_rows == 0

    company = Recorded(bundle)
    tiny_cache = Recorded(bundle, num_blocks=16, max_rows=240)
    cut_prompts = Recorded(bundle, max_step_rows=20)
    two_slots = Recorded(bundle, max_running=2)
    for engine, when in ((company, joins), (tiny_cache, joins), (cut_prompts, joins), (two_slots, [0] * len(specs))):
        assert engine.speak(specs, when) == expected
        assert engine.bits == alone.bits
        assert engine.changed == []
    assert tiny_cache.engine.scheduler.counters.preemptions > 0

    late = Recorded(bundle, num_blocks=16, max_rows=240)
    late.engine.max_in_flight = 2
    assert late.speak(specs, joins) == expected
    assert late.changed == []

    hits = company.engine.scheduler.counters.prefix_hit_rows
    assert company.speak(specs, [0] * len(specs)) == expected
    assert company.changed == []
    assert company.engine.scheduler.counters.prefix_hit_rows > hits + 100


def test_another_seed_or_segment_speaks_differently(tiny_en_bundle: Path) -> None:
    engine = Recorded(tiny_en_bundle)
    first = make_specs(engine.engine.scheduler.vocabulary, seed=1)[0]
    others = []
    for seed, segment in ((1, 0), (2, 0), (1, 1), (2**63 + 5, 0)):
        spec = SequenceSpec(first.rows, seed=seed, segment=segment, min_tokens=20, max_tokens=20)
        others.append(tuple(engine.speak([spec], [0])[seed]))
    assert len(set(others)) == 4


def test_ignoring_eos_speaks_to_the_maximum(tiny_en_bundle: Path) -> None:
    engine = Recorded(tiny_en_bundle)
    rows = tuple(engine.engine.scheduler.vocabulary.prompt_rows([5, 6], []))
    spec = SequenceSpec(rows, seed=3, segment=0, min_tokens=0, max_tokens=200, ignore_eos=True)
    assert len(engine.speak([spec], [0])[3]) == 200


def test_blocks_of_all_endings_come_back_after_a_storm(random_v2_bundle: Path) -> None:
    chance = random.Random(9)
    recorded = Recorded(random_v2_bundle, num_blocks=24, max_rows=200, max_running=5, max_step_rows=40)
    engine = recorded.engine
    specs = make_specs(engine.scheduler.vocabulary, seed=4)
    live = []
    for _ in range(250):
        if chance.random() < 0.3:
            live.append(engine.scheduler.add(chance.choice(specs)))
        if live and chance.random() < 0.1:
            engine.scheduler.remove(live.pop(chance.randrange(len(live))))
        for progress in engine.step() or []:
            if progress.accepted.finish is not None and progress.sequence in live:
                live.remove(progress.sequence)
    assert engine.scheduler.counters.preemptions > 0
    for sequence in live:
        engine.scheduler.remove(sequence)
    assert engine.blocks.num_held == 0
    assert engine.idle
    assert recorded.changed == []
