"""Who goes first in the decode stage, how much runs at once, and what its gauges say of it."""

from __future__ import annotations

from typing import Any

import numpy as np


def test_a_first_chunk_overtakes_a_long_file(bench: Any) -> None:
    bench.open("file", stream=False)
    bench.random_tokens(400, "file")
    for _ in range(3):
        bench.step()
    assert bench.chunks == []
    bench.open("stream")
    bench.random_tokens(45, "stream", finished=False)
    steps = 0
    while not bench.chunks:
        assert bench.step()
        steps += 1
    assert bench.chunks[0].key == "stream"
    assert steps <= 4, "only the stream's own Euler steps and its vocoder pass"
    bench.tokens([], "stream")
    bench.run()
    assert [chunk.key for chunk in bench.chunks if chunk.last] == ["stream", "file"]


def test_a_first_chunk_overtakes_a_file_between_two_vocoder_windows(bench: Any) -> None:
    bench.open("file", stream=False)
    bench.random_tokens(300, "file")
    while bench.stage._segments[("file", 0)].vocoding is None:
        bench.step()
    bench.step()
    bench.open("stream")
    bench.random_tokens(45, "stream")
    bench.run()
    assert [chunk.key for chunk in bench.chunks if chunk.last] == ["stream", "file"]


def test_being_overtaken_does_not_change_the_audio(bench: Any) -> None:
    bench.open("alone", stream=False)
    bench.random_tokens(300, "alone")
    bench.run()
    bench.open("overtaken", stream=False)
    bench.random_tokens(300, "overtaken")
    for number in range(6):
        bench.step()
        bench.open(f"stream{number}")
        bench.random_tokens(30, f"stream{number}", seed=number)
    bench.run()
    audio = bench.waveforms()
    np.testing.assert_allclose(audio["alone"], audio["overtaken"], atol=2e-3)


def test_gauges_show_the_queue(bench: Any) -> None:
    def gauges() -> dict[str, float]:
        return {gauge.name: gauge.value for gauge in bench.stage.gauges()}

    assert gauges()["decode_queue_depth"] == 0
    for key in ("a", "b"):
        bench.open(key)
    assert gauges()["decode_waiting_for_tokens"] == 2
    for key in ("a", "b"):
        bench.random_tokens(45, key)
    assert gauges()["decode_queue_depth"] == 2
    bench.step()
    assert gauges()["decode_active"] == 2
    assert gauges()["decode_batch_size"] == 2
    assert gauges()["decode_batch_frames"] == 200
    bench.run()
    assert {name for name, value in gauges().items() if value} == {"decode_voices"}


def test_decode_max_batch_size_and_paral_num_bound_what_runs_together(make_bench: Any) -> None:
    bench = make_bench(decode_max_batch_size=1, decode_paral_num=1)
    for key in ("a", "b"):
        bench.open(key, stream=False)
        bench.random_tokens(30, key)
    most = 0.0
    while bench.step():
        most = max(most, *(gauge.value for gauge in bench.stage.gauges() if gauge.name == "decode_active"))
    assert most == 1
