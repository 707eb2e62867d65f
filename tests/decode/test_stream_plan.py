"""The chunk plan against the calls that the released driver made, recorded in the golden cases."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from ttsfleet_runtime.decode.stream import FIRST_HOP, ChunkPlan, FlowCall, plan_chunks

GOLDENS = Path(__file__).parents[1] / "goldens" / "v2"
CASES = sorted(GOLDENS.glob("e2e_*.safetensors")) + sorted(GOLDENS.glob("flow_chunks*.safetensors"))


def run(plan: ChunkPlan, num_tokens: int, arrive: int) -> list[FlowCall]:
    """All calls of a segment of `num_tokens` tokens that arrive `arrive` at a time."""
    calls: list[FlowCall] = []
    received = 0
    while not plan.complete:
        received = min(received + arrive, num_tokens)
        while (call := plan.next_call(received, received == num_tokens)) is not None:
            calls.append(call)
            plan = plan.after(call)
    return calls


def test_there_are_golden_cases() -> None:
    assert CASES, GOLDENS


@pytest.mark.parametrize("arrive", [1, 7, 1000])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_calls_are_those_of_the_released_driver(path: Path, arrive: int) -> None:
    with safe_open(path, "np") as case:
        meta = json.loads(case.metadata()["meta"])
        num_tokens = case.get_slice("in.token").get_shape()[-1]
        num_prompt_tokens = case.get_slice("in.prompt_token").get_shape()[-1]
    keep_masks = meta["calls"][-1]["streaming"]
    plan = plan_chunks(
        num_prompt_tokens,
        stream=True,
        final_chunk="streaming" if keep_masks else "reference",
        first_hop=meta.get("hop_start", FIRST_HOP),
    )
    calls = [
        {
            "n_tokens": call.num_tokens,
            "token_offset": call.token_offset,
            "streaming": call.streaming,
            "finalize": call.finalize,
        }
        for call in run(plan, num_tokens, arrive)
    ]
    assert calls == meta["calls"]


@pytest.mark.parametrize("num_prompt_tokens", [0, 1, 24, 25, 26, 61, 250])
@pytest.mark.parametrize("num_tokens", [1, 25, 27, 28, 53, 400, 1000])
def test_chunks_cover_all_tokens_once_and_end_on_mask_borders(num_prompt_tokens: int, num_tokens: int) -> None:
    calls = run(plan_chunks(num_prompt_tokens, stream=True, final_chunk="reference"), num_tokens, 1)
    assert [call.token_offset for call in calls] == [
        sum(call.num_new_tokens for call in calls[:index]) for index in range(len(calls))
    ]
    assert sum(call.num_new_tokens for call in calls) == num_tokens
    assert all((num_prompt_tokens + call.num_tokens - 3) % 25 == 0 for call in calls[:-1])
    assert [call.finalize for call in calls] == [False] * (len(calls) - 1) + [True]
    assert all(call.num_new_tokens > 0 for call in calls)


def test_the_hop_grows_to_a_hundred_tokens_and_starts_anew_for_each_segment() -> None:
    for _ in range(2):
        calls = run(plan_chunks(0, stream=True, final_chunk="reference"), 500, 1)
        assert [call.num_new_tokens for call in calls[:-1]] == [25, 50, 100, 100, 100, 100]


@pytest.mark.parametrize("num_tokens", [1, 40, 700])
def test_a_segment_that_is_not_streamed_has_one_call_with_full_attention(num_tokens: int) -> None:
    plan = plan_chunks(61, stream=False, final_chunk="streaming")
    assert run(plan, num_tokens, 5) == [FlowCall(num_tokens, 0, num_tokens, streaming=False, finalize=True)]


def test_a_finished_segment_without_tokens_has_no_call() -> None:
    assert plan_chunks(10, stream=True, final_chunk="reference").next_call(0, True) is None
