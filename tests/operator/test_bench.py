"""The load generator: arrivals, records, percentiles, and a run against a real server that streams pcm."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from ttsfleet_operator.bench.load import Load, poisson_arrivals, text_order
from ttsfleet_operator.bench.record import RequestRecord, playback_stalls
from ttsfleet_operator.bench.report import percentile, summarise
from ttsfleet_operator.bench.runner import Target, run_load
from ttsfleet_operator.bench.texts import SENTENCES
from ttsfleet_operator.cli import main
from ttsfleet_operator.speech import SpeechOrder, speech_client


def run(server: Any, load: Load, *, stream: bool = True) -> list[RequestRecord]:
    target = Target(server.url, SpeechOrder(text="", voice="heart"), stream=stream)

    async def go() -> list[RequestRecord]:
        async with speech_client(timeout_seconds=20) as client:
            return await run_load(client, target, ["One.", "Two."], load, lambda _: None)

    return asyncio.run(go())


def test_poisson_gaps_have_the_asked_mean_and_repeat_with_the_seed() -> None:
    load = Load(rate=20.0, requests=4000, seed=3)
    arrivals = list(poisson_arrivals(load))
    assert arrivals == list(poisson_arrivals(load))
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] / len(arrivals) == pytest.approx(1 / 20, rel=0.05)
    assert list(poisson_arrivals(Load(rate=20.0, requests=4000, seed=4))) != arrivals


def test_poisson_arrivals_end_with_the_duration() -> None:
    arrivals = list(poisson_arrivals(Load(rate=50.0, duration_seconds=2.0)))
    assert 60 < len(arrivals) < 140
    assert arrivals[-1] < 2.0


def test_every_text_is_used_before_one_comes_again() -> None:
    order = list(itertools.islice(text_order(5, seed=1), 10))
    assert sorted(order[:5]) == sorted(order[5:]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arrivals", "stalls", "seconds"),
    [
        ([], 0, 0.0),
        ([(0.0, 1.0), (0.9, 1.0)], 0, 0.0),
        ([(0.0, 1.0), (1.5, 1.0)], 1, 0.5),
        ([(0.0, 1.0), (1.5, 1.0), (2.6, 1.0), (3.5, 1.0)], 2, 0.6),
    ],
)
def test_stalls_are_what_a_player_would_hear(
    arrivals: list[tuple[float, float]], stalls: int, seconds: float
) -> None:
    found = playback_stalls(arrivals)
    assert found[0] == stalls
    assert found[1] == pytest.approx(seconds)


@pytest.mark.parametrize(("percent", "value"), [(0, 1.0), (50, 3.0), (90, 4.6), (100, 5.0)])
def test_percentiles_lie_between_neighbours(percent: float, value: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], percent) == pytest.approx(value)


def test_throughput_counts_wall_time_and_only_what_succeeded() -> None:
    records = [
        RequestRecord(arrival=0.0, ended=2.0, characters=4, latency_seconds=2.0, audio_seconds=6.0),
        RequestRecord(arrival=0.0, ended=4.0, characters=4, latency_seconds=4.0, audio_seconds=6.0, stalls=1),
        RequestRecord(arrival=1.0, ended=5.0, characters=4, error="http 429"),
    ]
    summary = summarise(records)
    assert summary.audio_seconds_per_second == pytest.approx(12 / 5)
    assert summary.requests_per_second == pytest.approx(2 / 5)
    assert summary.errors == {"http 429": 1}
    assert summary.stalled_requests == 1
    assert summary.first_audio_seconds is None
    assert summary.real_time_factor is not None
    assert summary.real_time_factor.mean == pytest.approx(0.5)


def test_summary_of_nothing_is_empty_and_not_a_division_by_zero() -> None:
    assert summarise([]).audio_seconds_per_second == 0.0


def test_closed_loop_measures_streamed_audio(speech_server: Any) -> None:
    records = run(speech_server, Load(concurrency=3, requests=12, warmup=1))
    assert len(records) == 12
    assert len(speech_server.bodies) == 13
    assert {record.audio_seconds for record in records} == {0.5}
    assert all(record.first_audio_seconds and record.latency_seconds for record in records)
    assert all((record.first_audio_seconds or 0) <= (record.latency_seconds or 0) for record in records)
    assert speech_server.peak <= 3


def test_open_loop_sends_every_planned_request(speech_server: Any) -> None:
    records = run(speech_server, Load(rate=200.0, requests=20))
    assert len(records) == 20
    assert not [record for record in records if record.error]


def test_whole_files_are_measured_without_a_first_audio(speech_server: Any) -> None:
    (record,) = run(speech_server, Load(requests=1), stream=False)
    assert record.audio_seconds == pytest.approx(0.5)
    assert record.first_audio_seconds is None
    assert speech_server.bodies[0]["response_format"] == "wav"


def test_every_kind_of_failure_is_counted_by_its_name(speech_server: Any) -> None:
    speech_server.script = ["refuse", "abort", "empty", "good"]
    records = run(speech_server, Load(requests=4))
    assert sorted(record.error for record in records) == ["", "http 429", "incomplete", "no audio"]
    refused = next(record for record in records if record.error == "http 429")
    assert "the queues are full" in refused.detail


def test_command_writes_json_and_a_plot(speech_server: Any, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    numbers, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    words = [
        "bench",
        "--url",
        speech_server.url,
        "--requests",
        "6",
        "--concurrency",
        "2",
        "--extra",
        '{"max_tokens": 9}',
    ]
    assert main([*words, "--json", str(numbers), "--plot", str(picture)]) == 0
    report = json.loads(numbers.read_text())
    assert report["summary"]["succeeded"] == 6
    assert len(report["requests"]) == 6
    assert report["setting"]["load"]["concurrency"] == 2
    assert speech_server.bodies[-1]["max_tokens"] == 9
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "s of audio per second" in capsys.readouterr().out


def test_texts_come_from_a_file_when_one_is_given(speech_server: Any, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("Only this.\n\n")
    words = ["bench", "--url", speech_server.url, "--requests", "2", "--warmup", "0", "--texts", str(texts)]
    assert main(words) == 0
    assert {body["input"] for body in speech_server.bodies} == {"Only this."}


@pytest.mark.parametrize(
    "words",
    [
        ["--extra", "[1]"],
        ["--extra", "{"],
        ["--texts", "/nonexistent/file"],
        ["--warmup", "-1"],
    ],
)
def test_wrong_options_are_usage_errors(words: list[str]) -> None:
    assert main(["bench", "--requests", "1", *words]) == 2


def test_server_that_refuses_everything_is_a_failure(speech_server: Any) -> None:
    speech_server.script = ["refuse"] * 2
    assert main(["bench", "--url", speech_server.url, "--requests", "2", "--warmup", "0"]) == 1


def test_built_in_sentences_are_many_different_and_plain() -> None:
    assert len(set(SENTENCES)) == len(SENTENCES) >= 30
    assert all(text.isascii() and len(text) <= 200 for text in SENTENCES)
