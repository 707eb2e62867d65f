"""The decode stage with the small random model: what goes in as tokens comes out as the golden audio, in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.decode.pcm import to_pcm
from ttsfleet_runtime.decode.stage import build
from ttsfleet_runtime.messages import StageTimes, TokenDelta
from ttsfleet_runtime.stage import ROUTER, StageContext
from ttsfleet_runtime.voices import VoiceEntry, write_voice

E2E = ["e2e_text0", "e2e_text1", "e2e_noprompt"]


def load_case(goldens_dir: Path, name: str, bench: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A golden case, its voice written to the run directory under the case's name."""
    path = goldens_dir / "v2" / f"{name}.safetensors"
    case = load_file(path)
    write_voice(
        bench.run_dir,
        name,
        VoiceEntry(
            speech_tokens=case["in.prompt_token"][0],
            mel=case["in.prompt_feat"][0],
            speaker_embedding=case["in.embedding"][0],
        ),
    )
    manifest = json.loads((goldens_dir / "MANIFEST.json").read_text())
    entry = next(entry for entry in manifest["cases"] if entry["name"] == f"v2/{name}")
    return case, entry["tolerance"]["fp32"]


def assert_close(pcm: bytes, expected: np.ndarray, tolerance: dict[str, float]) -> None:
    actual = np.frombuffer(pcm, "<i2").astype(np.float64) / 32767.0
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance["max_abs"] + 0.5 / 32767.0


@pytest.mark.parametrize("arrive", [3, 1000])
@pytest.mark.parametrize("name", E2E)
def test_streamed_chunks_are_the_golden_chunks(bench: Any, goldens_dir: Path, name: str, arrive: int) -> None:
    case, tolerance = load_case(goldens_dir, name, bench)
    tokens = case["in.token"][0].tolist()
    bench.open(voice_hash=name)
    for begin in range(0, len(tokens), arrive):
        bench.tokens(tokens[begin : begin + arrive], finished=begin + arrive >= len(tokens))
        bench.run()
    expected = [case[key] for key in sorted(case) if key.startswith("out.chunk_")]
    assert [len(chunk.pcm) // 2 for chunk in bench.chunks] == [chunk.shape[-1] for chunk in expected]
    for index, chunk in enumerate(expected):
        assert_close(bench.chunks[index].pcm, chunk[0], tolerance[f"chunk_{index:02d}"])
    assert [token for chunk in bench.chunks for token in chunk.tokens] == tokens
    assert bench.stage.idle()


@pytest.mark.parametrize("name", E2E)
def test_a_segment_that_is_not_streamed_is_the_golden_file(bench: Any, goldens_dir: Path, name: str) -> None:
    case, tolerance = load_case(goldens_dir, name, bench)
    bench.open(voice_hash=name, stream=False)
    bench.tokens(case["in.token"][0].tolist())
    bench.run()
    (chunk,) = bench.chunks
    assert_close(chunk.pcm, case["out.speech"][0], tolerance["speech"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_all_golden_requests_at_once_say_what_they_say_alone(
    make_bench: Any, goldens_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    test_all_golden_requests_at_once_say_what_they_say_alone(make_bench(device="cuda"), goldens_dir)


def test_all_golden_requests_at_once_say_what_they_say_alone(bench: Any, goldens_dir: Path) -> None:
    cases = {name: load_case(goldens_dir, name, bench) for name in E2E}
    for name, (case, _) in cases.items():
        for stream in (True, False):
            bench.open(f"{name} {stream}", voice_hash=name, stream=stream)
            bench.tokens(case["in.token"][0].tolist(), f"{name} {stream}")
    bench.run()
    for name, (case, tolerance) in cases.items():
        (whole,) = [chunk for chunk in bench.chunks if chunk.key == f"{name} False"]
        assert_close(whole.pcm, case["out.speech"][0], tolerance["speech"])
        streamed = [chunk for chunk in bench.chunks if chunk.key == f"{name} True"]
        for index, chunk in enumerate(streamed):
            assert_close(chunk.pcm, case[f"out.chunk_{index:02d}"][0], tolerance[f"chunk_{index:02d}"])


def test_chunks_are_numbered_and_only_the_last_is_marked(bench: Any) -> None:
    bench.open(last_segment=False, segment=3, num_text_tokens=9)
    bench.random_tokens(150, segment=3)
    bench.run()
    assert [chunk.index for chunk in bench.chunks] == [0, 1, 2]
    assert [len(chunk.tokens) for chunk in bench.chunks] == [40, 50, 60]
    assert [chunk.last for chunk in bench.chunks] == [False, False, True]
    assert {(chunk.segment, chunk.last_segment, chunk.num_text_tokens) for chunk in bench.chunks} == {(3, False, 9)}
    assert {chunk.sample_rate for chunk in bench.chunks} == {24000}
    assert [to for to, _ in bench.said] == ["http-0"] * 3 + [ROUTER]
    (report,) = bench.reports
    assert report.error is None
    assert report.audio_seconds == pytest.approx(150 / 25)


def test_final_chunk_streaming_keeps_the_masks(make_bench: Any) -> None:
    audio = {}
    for final_chunk in ("reference", "streaming"):
        bench = make_bench(final_chunk=final_chunk)
        bench.open()
        bench.random_tokens(60)
        bench.run()
        audio[final_chunk] = [chunk.pcm for chunk in bench.chunks]
    assert audio["reference"][0] == audio["streaming"][0]
    assert audio["reference"][1] != audio["streaming"][1]


def test_times_are_those_of_the_llm_with_the_stages_own(bench: Any) -> None:
    bench.open()
    bench.random_tokens(45, finished=False)
    bench.run()
    bench.clock[0] = 200.0
    times = StageTimes(received=1.0, llm_finished=199.0)
    bench.stage.submit(TokenDelta(key="r", segment=0, tokens=[1, 2, 3, 4, 5], finished=True, times=times))
    bench.run()
    first, last = bench.chunks
    assert first.times.received == 1.0
    assert 100.0 <= first.times.decode_started <= first.times.decoded < 200.0
    assert last.times.llm_finished == 199.0
    assert last.times.decode_started == first.times.decode_started
    assert last.times.decoded >= 200.0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("after_chunks", [False, True])
def test_a_segment_without_more_tokens_still_ends(bench: Any, stream: bool, after_chunks: bool) -> None:
    bench.open(stream=stream)
    if after_chunks:
        bench.random_tokens(43, finished=False)
        bench.run()
    bench.tokens([])
    bench.run()
    assert bench.chunks[-1].last
    assert bench.chunks[-1].index == len(bench.chunks) - 1
    assert sum(len(chunk.tokens) for chunk in bench.chunks) == (43 if after_chunks else 0)
    assert (bench.chunks[-1].pcm == b"") is not after_chunks
    assert [report.error for report in bench.reports] == [None]
    assert bench.stage.idle()


@pytest.mark.parametrize(("speed", "num_samples"), [(0.8, 48000), (1.0, 38400), (2.0, 19200), (4.0, 9600)])
def test_speed_stretches_a_file(bench: Any, speed: float, num_samples: int) -> None:
    bench.open(stream=False, speed=speed)
    bench.random_tokens(40)
    bench.run()
    assert len(bench.chunks[0].pcm) // 2 == num_samples


@pytest.mark.parametrize("num_tokens", [1, 2, 3])
@pytest.mark.parametrize("stream", [True, False])
def test_the_shortest_segments_are_spoken(bench: Any, num_tokens: int, stream: bool) -> None:
    bench.open(stream=stream, speed=1.0 if stream else 4.0)
    bench.random_tokens(num_tokens)
    bench.run()
    assert [report.error for report in bench.reports] == [None]
    assert len(bench.chunks[0].pcm) > 0


def test_speed_with_streaming_is_refused(bench: Any) -> None:
    bench.open(speed=1.5)
    bench.collect()
    (report,) = bench.reports
    assert report.error is not None
    assert (report.error.status, report.error.param) == (400, "speed")
    assert bench.stage.idle()


def test_a_seed_fixes_the_audio(make_bench: Any, random_v2_bundle: Path) -> None:
    bench = make_bench()
    context = StageContext(
        identity="decode-0-0",
        run_dir=bench.run_dir,
        bundle_dir=random_v2_bundle,
        model=read_model_info(random_v2_bundle),
        plan=EnginePlan(model_dir="random"),
    )
    bench.stage = build(context)
    for key, seed in (("one", 1), ("one again", 1), ("two", 2)):
        bench.open(key, seed=seed)
        bench.random_tokens(60, key)
        bench.run()
    audio = bench.waveforms()
    assert np.array_equal(audio["one"], audio["one again"])
    assert not np.array_equal(audio["one"], audio["two"])


def test_audio_that_is_not_finite_fails_its_segment() -> None:
    with pytest.raises(ValueError, match="not finite"):
        to_pcm(torch.tensor([0.0, float("nan")]))


def test_pcm_is_rounded_half_to_even_and_clipped() -> None:
    wave = torch.tensor([0.0, 1.0, -1.0, 2.0, -2.0, 0.5 / 32767.0, 1.5 / 32767.0])
    assert np.frombuffer(to_pcm(wave), "<i2").tolist() == [0, 32767, -32767, 32767, -32767, 0, 2]
