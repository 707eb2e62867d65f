"""Speaks a few tokens before the first request: broken weights are found before anybody is told "ready"."""

from __future__ import annotations

import logging

from ttsfleet_runtime.errors import CheckpointError
from ttsfleet_runtime.llm.engine import Engine
from ttsfleet_runtime.llm.sequence import SequenceSpec

logger = logging.getLogger(__name__)

_TEXT_TOKENS = 24
_SPEECH_TOKENS = 6
_SEQUENCES = 8


def run_self_test(engine: Engine, name: str) -> None:
    """Speak a few tokens with as many sequences as fit: finds broken weights and warms every buffer.

    Raises CheckpointError when a logit is not finite.
    """
    scheduler = engine.scheduler
    vocabulary = scheduler.vocabulary
    text = [index % vocabulary.num_text_rows for index in range(1, _TEXT_TOKENS + 1)]
    rows = tuple(vocabulary.prompt_rows(text, []))
    room = scheduler.max_rows() - len(rows)
    if room < 1:
        logger.warning("no self-test: sequences of %d rows are too short for it", scheduler.max_rows())
        return
    for number in range(_SEQUENCES):
        length = min(_SPEECH_TOKENS, room)
        spec = SequenceSpec(rows=rows, seed=number, segment=0, min_tokens=length, max_tokens=length, ignore_eos=True)
        scheduler.add(spec)
        # One joins per step, so that all batch sizes up to the last are seen.
        engine.step()
        if not engine.runner.logits_are_finite():
            raise CheckpointError(f"{name}: the self-test gave logits that are not finite; the weights are damaged")
    while engine.step() is not None:
        pass
    engine.blocks.drop_idle()
    scheduler.counters = type(scheduler.counters)()
