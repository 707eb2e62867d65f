"""The LLM stage as its host sees it: messages in, messages out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.errors import ErrorInfo
from ttsfleet_runtime.llm.stage import LLMStage, build
from ttsfleet_runtime.messages import (
    Cancel,
    DecodeJob,
    DropVoices,
    FinishReason,
    Message,
    Sampling,
    SequenceFinished,
    SequenceJob,
    StageTimes,
    TokenDelta,
)
from ttsfleet_runtime.stage import ROUTER, Outgoing, StageContext
from ttsfleet_runtime.voices import VoiceEntry, write_voice

DECODER = "decode-0-0"
VOICE = "a" * 40
T = TypeVar("T", bound=Message)


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def write_prompt(run_dir: Path, tokens: Iterable[int]) -> None:
    speech = np.array(list(tokens), dtype=np.int32)
    mel = np.zeros((2 * len(speech), 80), dtype=np.float32)
    write_voice(run_dir, VOICE, VoiceEntry(speech, mel, np.zeros(192, dtype=np.float32)))


def make_stage(bundle: Path, run_dir: Path, clock: Clock | None = None, **plan: Any) -> LLMStage:
    values = {"gpt_paral_num": 4, "max_total_token_num": 2048, "max_req_total_len": 512} | plan
    context = StageContext(
        identity="llm-0-cosyvoice",
        run_dir=run_dir,
        bundle_dir=bundle,
        model=read_model_info(bundle),
        plan=EnginePlan(model_dir=str(bundle), **values),
    )
    stage = build(context)
    assert isinstance(stage, LLMStage)
    if clock is not None:
        stage._clock = clock
    return stage


@pytest.fixture
def stage(random_v2_bundle: Path, tmp_path: Path) -> LLMStage:
    return make_stage(random_v2_bundle, tmp_path)


def job(key: str = "r", segment: int = 0, stream: bool = True, **changes: Any) -> SequenceJob:
    values: dict[str, Any] = {
        "prompt_ids": [],
        "text_ids": [5, 6, 7, 8, 9, 10],
        "use_prompt_speech": False,
        "min_tokens": 4,
        "max_tokens": 12,
        "seed": 1,
        "deadline": 1e9,
    }
    values |= changes
    return SequenceJob(
        key=key,
        segment=segment,
        style="cosyvoice",
        voice_hash=VOICE,
        sampling=values.pop("sampling", Sampling()),
        decoder=DECODER,
        decode=DecodeJob(
            key=key,
            segment=segment,
            last_segment=True,
            reply_to="http-0",
            use_prompt=False,
            stream=stream,
            times=StageTimes(received=1.0, encoded=2.0),
        ),
        **values,
    )


def finish(stage: LLMStage) -> list[Outgoing]:
    outgoing = stage.poll()
    while stage.step():
        outgoing += stage.poll()
    return outgoing + stage.poll()


def of_type(outgoing: list[Outgoing], kind: type[T]) -> list[T]:
    return [item.message for item in outgoing if isinstance(item.message, kind)]


def ended(outgoing: list[Outgoing]) -> SequenceFinished:
    (message,) = of_type(outgoing, SequenceFinished)
    return message


def refused(outgoing: list[Outgoing]) -> ErrorInfo:
    """The error of a segment that was refused: nothing but that was sent."""
    assert len(outgoing) == 1
    error = ended(outgoing).error
    assert error is not None
    return error


def test_a_streamed_segment_sends_each_token_as_it_comes(stage: LLMStage) -> None:
    stage.submit(job())
    outgoing = finish(stage)
    deltas = of_type(outgoing, TokenDelta)
    assert all(len(delta.tokens) == 1 for delta in deltas[:-1])
    assert [delta.finished for delta in deltas] == [False] * (len(deltas) - 1) + [True]
    assert ended(outgoing).num_tokens == sum(len(delta.tokens) for delta in deltas)


def test_an_offline_segment_sends_all_tokens_at_its_end_and_they_are_the_same(stage: LLMStage) -> None:
    stage.submit(job(stream=True))
    streamed = [token for delta in of_type(finish(stage), TokenDelta) for token in delta.tokens]
    stage.submit(job(stream=False))
    (delta,) = of_type(finish(stage), TokenDelta)
    assert delta.finished
    assert delta.tokens == streamed


@pytest.mark.parametrize("stream", [True, False])
def test_the_decode_job_goes_ahead_of_the_tokens_and_the_router_hears_last(stage: LLMStage, stream: bool) -> None:
    stage.submit(job(stream=stream))
    outgoing = finish(stage)
    kinds = [type(item.message) for item in outgoing]
    assert kinds[0] is DecodeJob
    assert kinds.count(DecodeJob) == 1
    assert kinds[-1] is SequenceFinished
    assert {item.to for item in outgoing[:-1]} == {DECODER}
    assert outgoing[-1].to == ROUTER


def test_times_tell_admission_first_token_and_end(random_v2_bundle: Path, tmp_path: Path) -> None:
    clock = Clock()
    stage = make_stage(random_v2_bundle, tmp_path, clock)
    stage.submit(job())
    while stage.step():
        clock.now += 1.0
    times = of_type(stage.poll(), TokenDelta)[-1].times
    assert times is not None
    assert (times.received, times.encoded, times.llm_admitted, times.llm_first_token) == (1.0, 2.0, 100.0, 100.0)
    assert times.llm_finished > times.llm_first_token


def test_many_segments_get_the_tokens_that_each_gets_alone(stage: LLMStage) -> None:
    def spoken(outgoing: list[Outgoing]) -> dict[tuple[str, int], list[int]]:
        tokens: dict[tuple[str, int], list[int]] = {}
        for delta in of_type(outgoing, TokenDelta):
            tokens.setdefault((delta.key, delta.segment), []).extend(delta.tokens)
        return tokens

    jobs = [job(f"r{index}", segment, stream=index % 2 == 0) for index in range(4) for segment in range(2)]
    alone: dict[tuple[str, int], list[int]] = {}
    for item in jobs:
        stage.submit(item)
        alone |= spoken(finish(stage))
    for item in jobs:
        stage.submit(item)
    assert spoken(finish(stage)) == alone


@pytest.mark.parametrize(
    ("changes", "reason", "num_tokens"),
    [
        ({"max_tokens": 0, "min_tokens": 0}, FinishReason.LENGTH, 0),
        ({"max_tokens": 5, "min_tokens": 5}, FinishReason.LENGTH, 5),
        ({"max_tokens": 60, "min_tokens": 0, "ignore_eos": True}, FinishReason.LENGTH, 60),
    ],
)
def test_bounds_are_kept(stage: LLMStage, changes: dict[str, Any], reason: FinishReason, num_tokens: int) -> None:
    stage.submit(job(**changes))
    outgoing = finish(stage)
    message = ended(outgoing)
    assert (message.reason, message.num_tokens, message.error) == (reason, num_tokens, None)
    assert of_type(outgoing, TokenDelta)[-1].finished


def test_prompt_speech_is_read_from_the_run_directory(stage: LLMStage, tmp_path: Path) -> None:
    write_prompt(tmp_path, range(30))
    stage.submit(job(use_prompt_speech=True))
    with_prompt = finish(stage)
    stage.submit(job())
    without = finish(stage)
    assert of_type(with_prompt, TokenDelta) != of_type(without, TokenDelta)


def test_a_dropped_voice_is_read_again(stage: LLMStage, tmp_path: Path) -> None:
    write_prompt(tmp_path, range(30))
    stage.submit(job(use_prompt_speech=True))
    before = of_type(finish(stage), TokenDelta)
    write_prompt(tmp_path, range(100, 130))
    stage.submit(DropVoices(voice_hashes=[VOICE]))
    stage.submit(job(use_prompt_speech=True))
    assert of_type(finish(stage), TokenDelta) != before


def test_a_voice_that_is_gone_is_a_503(stage: LLMStage) -> None:
    stage.submit(job(use_prompt_speech=True))
    error = refused(finish(stage))
    assert error.status == 503
    assert VOICE in error.message


def test_a_voice_of_another_model_is_a_400(stage: LLMStage, tmp_path: Path) -> None:
    write_prompt(tmp_path, [9999])
    stage.submit(job(use_prompt_speech=True))
    assert refused(finish(stage)).status == 400


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_tokens": 600}, ["608", "512", "max_req_total_len", "shorten or split"]),
        ({"text_ids": [5] * 505, "max_tokens": 100}, ["607", "512"]),
        ({"text_ids": [10**6]}, ["1000000", "767"]),
        ({"sampling": Sampling(top_k=500)}, ["top_k is 500", "64"]),
        ({"sampling": Sampling(top_p=0.0)}, ["top_p is 0.0"]),
        ({"sampling": Sampling(win_size=11)}, ["win_size is 11", "10"]),
        ({"sampling": Sampling(tau_r=2.0)}, ["tau_r is 2.0"]),
    ],
)
def test_what_can_never_work_is_a_400_that_names_value_and_limit(
    stage: LLMStage, changes: dict[str, Any], words: list[str]
) -> None:
    stage.submit(job(**changes))
    error = refused(finish(stage))
    assert error.status == 400
    for word in words:
        assert word in error.message
    assert stage.idle()


def test_a_segment_longer_than_the_whole_cache_is_refused(random_v2_bundle: Path, tmp_path: Path) -> None:
    stage = make_stage(random_v2_bundle, tmp_path, max_total_token_num=128)
    stage.submit(job(max_tokens=200))
    assert "max_total_token_num" in refused(finish(stage)).message


def test_cancel_ends_all_segments_of_the_request_and_frees_their_blocks_at_once(stage: LLMStage) -> None:
    for segment in range(3):
        stage.submit(job("gone", segment, max_tokens=200, ignore_eos=True))
    stage.submit(job("stays", max_tokens=200, ignore_eos=True))
    for _ in range(5):
        stage.step()
    held = stage._engine.blocks.num_held
    stage.poll()
    stage.submit(Cancel(key="gone"))
    reports = of_type(stage.poll(), SequenceFinished)
    assert [(report.segment, report.reason) for report in reports] == [
        (segment, FinishReason.CANCELLED) for segment in range(3)
    ]
    assert stage._engine.blocks.num_held < held
    assert {delta.key for delta in of_type(finish(stage), TokenDelta)} == {"stays"}
    assert stage._engine.blocks.num_held == 0
    assert stage.idle()


def test_cancelling_twice_or_an_unknown_request_does_nothing(stage: LLMStage) -> None:
    stage.submit(Cancel(key="never"))
    stage.submit(job(max_tokens=100))
    stage.submit(Cancel(key="r"))
    stage.submit(Cancel(key="r"))
    assert len(of_type(stage.poll(), SequenceFinished)) == 1


def test_a_deadline_that_passes_is_a_504_and_frees_the_blocks(random_v2_bundle: Path, tmp_path: Path) -> None:
    clock = Clock()
    stage = make_stage(random_v2_bundle, tmp_path, clock)
    stage.submit(job("late", max_tokens=300, ignore_eos=True, deadline=101.0))
    stage.submit(job("early", max_tokens=20, ignore_eos=True))
    stage.step()
    stage.poll()
    clock.now = 101.5
    stage.step()
    report = ended(stage.poll())
    assert report.key == "late"
    assert report.error is not None
    assert report.error.status == 504
    finish(stage)
    assert stage._engine.blocks.num_held == 0


def test_gauges_move_with_the_work(stage: LLMStage) -> None:
    def level(name: str) -> float:
        return next(gauge.value for gauge in stage.gauges() if gauge.name == name)

    idle = {name: level(name) for name in ("llm_waiting", "llm_running", "llm_batch_size", "llm_kv_blocks_used")}
    assert set(idle.values()) == {0}
    assert level("llm_kv_blocks_total") == 128
    for index in range(6):
        stage.submit(job(f"r{index}", text_ids=[5] * 40, max_tokens=50, ignore_eos=True))
    assert level("llm_waiting") == 6
    stage.step()
    stage.step()
    assert (level("llm_waiting"), level("llm_running"), level("llm_batch_size")) == (2, 4, 4)
    assert level("llm_kv_blocks_used") > 0
    finish(stage)
    assert level("llm_prefix_hit_rows") > 0
    assert level("llm_prefilled_rows") > 0
    assert level("llm_kv_blocks_used") == 0


def test_preemptions_are_counted_and_lose_nothing(random_v2_bundle: Path, tmp_path: Path) -> None:
    def speak(**plan: Any) -> tuple[list[list[int]], float]:
        stage = make_stage(random_v2_bundle, tmp_path, **plan)
        for index in range(4):
            stage.submit(job(f"r{index}", seed=index, stream=False, max_tokens=60, ignore_eos=True))
        tokens = {delta.key: delta.tokens for delta in of_type(finish(stage), TokenDelta)}
        preemptions = next(gauge.value for gauge in stage.gauges() if gauge.name == "llm_preemptions")
        return [tokens[key] for key in sorted(tokens)], preemptions

    roomy, none = speak()
    tight, some = speak(max_total_token_num=160, max_req_total_len=128)
    assert none == 0
    assert some > 0
    assert tight == roomy


def test_messages_for_other_stages_are_ignored(stage: LLMStage) -> None:
    stage.submit(TokenDelta(key="r", segment=0, tokens=[1]))
    assert not stage.step()
    assert stage.poll() == []


def test_everything_sent_can_travel(stage: LLMStage) -> None:
    stage.submit(job())
    for item in finish(stage):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(item.message), type=type(item.message)) == item.message
