"""The decode stage with the small random model: what goes in as tokens comes out as the golden audio, in order."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.decode.budgets import decode_limits
from ttsfleet_runtime.decode.pcm import to_pcm
from ttsfleet_runtime.decode.speaker import SpeakerTensors
from ttsfleet_runtime.decode.stage import DecodeStage, build
from ttsfleet_runtime.decode.synthesizer import Synthesizer
from ttsfleet_runtime.messages import (
    AudioChunk,
    Cancel,
    DecodeJob,
    DropVoices,
    SegmentDecoded,
    StageTimes,
    TokenDelta,
)
from ttsfleet_runtime.stage import ROUTER, StageContext
from ttsfleet_runtime.voices import VoiceEntry, VoiceFiles, write_voice

HARMONICS = 9
E2E = ["e2e_text0", "e2e_text1", "e2e_noprompt"]


def golden_noise(_seed: int, _segment: int, _first: int, num_samples: int) -> torch.Tensor:
    """The goldens' noise: a Weyl sequence with unit variance that restarts with every vocoder call."""
    index = np.arange(num_samples * HARMONICS, dtype=np.uint64)
    uniform = ((index * np.uint64(2654435761)) % np.uint64(2**32)).astype(np.float64) / 2**32
    return torch.from_numpy(((uniform - 0.5) * np.sqrt(12.0)).astype(np.float32).reshape(num_samples, HARMONICS))


@dataclass
class Bench:
    """A stage, its clock, and what it has said."""

    stage: DecodeStage
    synthesizer: Synthesizer
    run_dir: Path
    clock: list[float]
    chunks: list[AudioChunk] = field(default_factory=list)
    reports: list[SegmentDecoded] = field(default_factory=list)
    said: list[tuple[str, AudioChunk | SegmentDecoded]] = field(default_factory=list)

    def open(self, key: str = "r", segment: int = 0, **changes: Any) -> None:
        values: dict[str, Any] = {
            "key": key,
            "segment": segment,
            "last_segment": True,
            "reply_to": "http-0",
            "voice_hash": "voice",
            "use_prompt": True,
            "stream": True,
            "seed": 7,
            "num_text_tokens": 5,
            "times": StageTimes(received=1.0),
        }
        self.stage.submit(DecodeJob(**{**values, **changes}))

    def tokens(self, tokens: list[int], key: str = "r", segment: int = 0, *, finished: bool = True) -> None:
        self.stage.submit(TokenDelta(key=key, segment=segment, tokens=tokens, finished=finished))

    def step(self) -> bool:
        worked = self.stage.step()
        self.clock[0] += 0.01
        self.collect()
        return worked

    def collect(self) -> None:
        for outgoing in self.stage.poll():
            assert isinstance(outgoing.message, AudioChunk | SegmentDecoded)
            self.said.append((outgoing.to, outgoing.message))
            if isinstance(outgoing.message, AudioChunk):
                self.chunks.append(outgoing.message)
            else:
                self.reports.append(outgoing.message)

    def run(self) -> None:
        for _ in range(10_000):
            if not self.step():
                self.collect()
                return
        pytest.fail("the stage never came to rest")


class FaultySynthesizer(Synthesizer):
    """A synthesizer whose named operations fail for the segments of some requests, alone or in company."""

    faulty: frozenset[tuple[str, str]] = frozenset()
    only_together: bool = False

    def _check(self, operation: str, keys: list[str]) -> None:
        if self.only_together and len(keys) > 1:
            raise RuntimeError("too much at once")
        if any((operation, key) in self.faulty for key in keys):
            raise RuntimeError(f"{operation} went wrong")

    def begin(self, segment: Any) -> None:
        self._check("begin", [segment.job.key])
        super().begin(segment)

    def advance(self, segments: Any, goals: Any) -> None:
        super().advance(segments, goals)
        self._check("advance", [segment.job.key for segment in segments])

    def vocode(self, segments: Any) -> Any:
        self._check("vocode", [segment.job.key for segment in segments])
        return super().vocode(segments)


@pytest.fixture
def bench(random_v2_bundle: Path, tmp_path: Path) -> Bench:
    return make_bench(random_v2_bundle, tmp_path, EnginePlan(model_dir="random"))


def make_bench(bundle: Path, run_dir: Path, plan: EnginePlan) -> Bench:
    model = read_model_info(bundle)
    device = torch.device(plan.device)
    loaded = FaultySynthesizer.load(bundle, model, device)
    synthesizer = FaultySynthesizer(loaded.flow, loaded.hift, sample_rate=loaded.sample_rate, noise=golden_noise)
    clock = [100.0]
    stage = DecodeStage(
        synthesizer,
        VoiceFiles(
            run_dir,
            lambda entry: SpeakerTensors.of(entry, device),
            capacity=4,
            num_codes=synthesizer.vocab_size,
        ),
        decode_limits(plan),
        final_chunk=plan.final_chunk,
        clock=lambda: clock[0],
    )
    random = np.random.default_rng(5)
    write_voice(
        run_dir,
        "voice",
        VoiceEntry(
            speech_tokens=random.integers(0, 6561, 10).astype(np.int32),
            mel=random.normal(-5.0, 1.0, (20, 80)).astype(np.float32),
            speaker_embedding=random.normal(size=192).astype(np.float32),
        ),
    )
    return Bench(stage, synthesizer, run_dir, clock)


def some_tokens(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 6561, count)]


def load_case(goldens_dir: Path, name: str, bench: Bench) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
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


def samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(np.float64) / 32767.0


def assert_close(pcm: bytes, expected: np.ndarray, tolerance: dict[str, float]) -> None:
    actual = samples(pcm)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance["max_abs"] + 0.5 / 32767.0


@pytest.mark.parametrize("arrive", [3, 1000])
@pytest.mark.parametrize("name", E2E)
def test_streamed_chunks_are_the_golden_chunks(bench: Bench, goldens_dir: Path, name: str, arrive: int) -> None:
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
def test_a_segment_that_is_not_streamed_is_the_golden_file(bench: Bench, goldens_dir: Path, name: str) -> None:
    case, tolerance = load_case(goldens_dir, name, bench)
    bench.open(voice_hash=name, stream=False)
    bench.tokens(case["in.token"][0].tolist())
    bench.run()
    (chunk,) = bench.chunks
    assert_close(chunk.pcm, case["out.speech"][0], tolerance["speech"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_all_golden_requests_at_once_say_what_they_say_alone(
    random_v2_bundle: Path, tmp_path: Path, goldens_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    bench = make_bench(random_v2_bundle, tmp_path, EnginePlan(model_dir="random", device="cuda"))
    test_all_golden_requests_at_once_say_what_they_say_alone(bench, goldens_dir)


def test_all_golden_requests_at_once_say_what_they_say_alone(bench: Bench, goldens_dir: Path) -> None:
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


def test_chunks_are_numbered_and_only_the_last_is_marked(bench: Bench) -> None:
    tokens = some_tokens(150)
    bench.open(last_segment=False, segment=3, num_text_tokens=9)
    bench.tokens(tokens, segment=3)
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


def test_final_chunk_streaming_keeps_the_masks(random_v2_bundle: Path, tmp_path: Path) -> None:
    audio = {}
    for final_chunk in ("reference", "streaming"):
        bench = make_bench(
            random_v2_bundle, tmp_path / final_chunk, EnginePlan(model_dir="random", final_chunk=final_chunk)
        )
        bench.open()
        bench.tokens(some_tokens(60))
        bench.run()
        audio[final_chunk] = [chunk.pcm for chunk in bench.chunks]
    assert audio["reference"][0] == audio["streaming"][0]
    assert audio["reference"][1] != audio["streaming"][1]


def test_times_are_those_of_the_llm_with_the_stages_own(bench: Bench) -> None:
    bench.open()
    bench.tokens(some_tokens(45), finished=False)
    bench.run()
    bench.clock[0] = 200.0
    times = StageTimes(received=1.0, llm_finished=199.0)
    bench.stage.submit(TokenDelta(key="r", segment=0, tokens=some_tokens(5), finished=True, times=times))
    bench.run()
    first, last = bench.chunks
    assert first.times.received == 1.0
    assert 100.0 <= first.times.decode_started <= first.times.decoded < 200.0
    assert last.times.llm_finished == 199.0
    assert last.times.decode_started == first.times.decode_started
    assert last.times.decoded >= 200.0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("after_chunks", [False, True])
def test_a_segment_without_more_tokens_still_ends(bench: Bench, stream: bool, after_chunks: bool) -> None:
    bench.open(stream=stream)
    if after_chunks:
        bench.tokens(some_tokens(43), finished=False)
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
def test_speed_stretches_a_file(bench: Bench, speed: float, num_samples: int) -> None:
    bench.open(stream=False, speed=speed)
    bench.tokens(some_tokens(40))
    bench.run()
    assert len(bench.chunks[0].pcm) // 2 == num_samples


@pytest.mark.parametrize("num_tokens", [1, 2, 3])
@pytest.mark.parametrize("stream", [True, False])
def test_the_shortest_segments_are_spoken(bench: Bench, num_tokens: int, stream: bool) -> None:
    bench.open(stream=stream, speed=1.0 if stream else 4.0)
    bench.tokens(some_tokens(num_tokens))
    bench.run()
    assert [report.error for report in bench.reports] == [None]
    assert len(bench.chunks[0].pcm) > 0


def test_speed_with_streaming_is_refused(bench: Bench) -> None:
    bench.open(speed=1.5)
    bench.collect()
    (report,) = bench.reports
    assert report.error is not None
    assert (report.error.status, report.error.param) == (400, "speed")
    assert bench.stage.idle()


def test_cancel_frees_everything_at_once(bench: Bench) -> None:
    for segment in range(2):
        bench.open(segment=segment, last_segment=segment == 1)
        bench.tokens(some_tokens(60), segment=segment, finished=False)
    for _ in range(2):
        bench.step()
    assert not bench.stage.idle()
    said = len(bench.said)
    bench.stage.submit(Cancel(key="r"))
    assert bench.stage.idle()
    assert held_by(bench.stage) == 0
    bench.tokens(some_tokens(30))
    bench.open(segment=2)
    bench.run()
    assert bench.stage.idle(), "a job that overtook the cancellation must not stay"
    assert len(bench.said) == said


def held_by(stage: DecodeStage) -> int:
    """Everything that the stage keeps per request."""
    return len(stage._segments) + stage._segments.num_requests_remembered + len(stage._outbox)


def test_nothing_is_kept_of_requests_that_ended(bench: Bench) -> None:
    for number in range(3):
        key = f"r{number}"
        for segment in (0, 1):
            bench.open(key, segment, last_segment=segment == 1)
        for segment in (1, 0):  # out of order: the last segment ends first
            bench.tokens(some_tokens(30), key, segment)
            bench.run()
    assert [chunk.segment for chunk in bench.chunks] == [1, 0] * 3
    assert held_by(bench.stage) == 0


@pytest.mark.parametrize("first_tokens", [0, 5, 45], ids=["no tokens", "too few to speak", "audio"])
def test_a_segment_that_outlives_its_deadline_is_ended_with_an_error(bench: Bench, first_tokens: int) -> None:
    """As after a restart: the job came, the rest went to the process that died, and no cancellation will come."""
    bench.open("orphan", deadline=110.0)
    bench.open("other", deadline=0.0)
    bench.tokens(some_tokens(first_tokens), "orphan", finished=False)
    bench.run()
    bench.clock[0] = 109.9
    bench.run()
    assert bench.reports == []
    bench.clock[0] = 110.1
    bench.run()
    (report,) = bench.reports
    assert report.error is not None
    assert (report.key, report.error.code) == ("orphan", "deadline_exceeded")
    assert report.audio_seconds == pytest.approx(sum(len(chunk.pcm) for chunk in bench.chunks) / 48000)
    bench.tokens(some_tokens(40), "orphan")
    bench.tokens(some_tokens(40), "other")
    bench.run()
    assert [report.error for report in bench.reports[1:]] == [None], "without a deadline a segment lives on"
    assert held_by(bench.stage) == 0


def test_messages_for_unknown_segments_are_ignored(bench: Bench) -> None:
    bench.tokens(some_tokens(30), "never opened")
    bench.stage.submit(Cancel(key="never opened"))
    bench.stage.submit(DropVoices(voice_hashes=["never seen"]))
    bench.run()
    assert bench.said == []
    assert bench.stage.idle()


def test_a_first_chunk_overtakes_a_long_file(bench: Bench) -> None:
    bench.open("file", stream=False)
    bench.tokens(some_tokens(400), "file")
    for _ in range(3):
        bench.step()
    assert bench.chunks == []
    bench.open("stream")
    bench.tokens(some_tokens(45), "stream", finished=False)
    steps = 0
    while not bench.chunks:
        assert bench.step()
        steps += 1
    assert bench.chunks[0].key == "stream"
    assert steps <= 4, "only the stream's own Euler steps and its vocoder pass"
    bench.tokens([], "stream")
    bench.run()
    assert [chunk.key for chunk in bench.chunks if chunk.last] == ["stream", "file"]


def test_a_first_chunk_overtakes_a_file_between_two_vocoder_windows(bench: Bench) -> None:
    bench.open("file", stream=False)
    bench.tokens(some_tokens(300), "file")
    while bench.stage._segments[("file", 0)].vocoding is None:
        bench.step()
    bench.step()
    bench.open("stream")
    bench.tokens(some_tokens(45), "stream")
    bench.run()
    assert [chunk.key for chunk in bench.chunks if chunk.last] == ["stream", "file"]


def test_being_overtaken_does_not_change_the_audio(bench: Bench) -> None:
    bench.open("alone", stream=False)
    bench.tokens(some_tokens(300), "alone")
    bench.run()
    bench.open("overtaken", stream=False)
    bench.tokens(some_tokens(300), "overtaken")
    for number in range(6):
        bench.step()
        bench.open(f"stream{number}")
        bench.tokens(some_tokens(30, seed=number), f"stream{number}")
    bench.run()
    audio = {chunk.key: samples(chunk.pcm) for chunk in bench.chunks}
    np.testing.assert_allclose(audio["alone"], audio["overtaken"], atol=2e-3)


@pytest.mark.parametrize("operation", ["begin", "advance", "vocode"])
def test_a_failing_job_does_not_harm_its_neighbours(bench: Bench, operation: str) -> None:
    bench.open("alone")
    bench.tokens(some_tokens(30, seed=1), "alone")
    bench.run()
    bench.synthesizer.faulty = frozenset({(operation, "bad")})  # type: ignore[attr-defined]
    for key in ("a", "bad", "b"):
        bench.open(key)
        bench.tokens(some_tokens(30, seed=1), key)
    bench.run()
    assert {report.key: report.error is None for report in bench.reports} == {
        "alone": True,
        "a": True,
        "bad": False,
        "b": True,
    }
    audio = {chunk.key: samples(chunk.pcm) for chunk in bench.chunks}
    np.testing.assert_allclose(audio["a"], audio["alone"], atol=2e-3)
    np.testing.assert_allclose(audio["b"], audio["alone"], atol=2e-3)
    assert bench.stage.idle()


def test_a_batch_that_fails_only_together_is_run_singly(bench: Bench) -> None:
    bench.synthesizer.only_together = True  # type: ignore[attr-defined]
    for key in ("a", "b", "c"):
        bench.open(key)
        bench.tokens(some_tokens(30), key)
    bench.run()
    assert [report.error for report in bench.reports] == [None] * 3
    first, *others = (samples(chunk.pcm) for chunk in bench.chunks)
    for other in others:
        np.testing.assert_allclose(first, other, atol=2e-3)


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        pytest.param(None, 503, id="the entry is gone"),
        pytest.param({"speech_tokens": np.array([9999], np.int32)}, 400, id="tokens of another model"),
        pytest.param({"speaker_embedding": np.zeros(7, np.float32)}, 500, id="an embedding of another shape"),
        pytest.param({"mel": np.zeros((4, 3), np.float32)}, 500, id="a mel of another shape"),
    ],
)
def test_a_bad_voice_fails_its_own_segment(bench: Bench, entry: dict[str, np.ndarray] | None, status: int) -> None:
    if entry is not None:
        good = {
            "speech_tokens": np.array([1, 2], np.int32),
            "mel": np.zeros((4, 80), np.float32),
            "speaker_embedding": np.ones(192, np.float32),
        }
        write_voice(bench.run_dir, "odd", VoiceEntry(**{**good, **entry}))
    bench.open("bad", voice_hash="odd")
    bench.open("good")
    for key in ("bad", "good"):
        bench.tokens(some_tokens(30), key)
    bench.run()
    errors = {report.key: report.error for report in bench.reports}
    assert errors["good"] is None
    assert errors["bad"] is not None
    assert errors["bad"].status == status
    assert [chunk.key for chunk in bench.chunks] == ["good"]
    assert bench.stage.idle()


def test_a_token_outside_the_vocabulary_fails_its_segment(bench: Bench) -> None:
    bench.open()
    bench.tokens([6561])
    bench.run()
    assert [report.error is None for report in bench.reports] == [False]
    assert bench.stage.idle()


def test_audio_that_is_not_finite_fails_its_segment() -> None:
    with pytest.raises(ValueError, match="not finite"):
        to_pcm(torch.tensor([0.0, float("nan")]))


def test_pcm_is_rounded_half_to_even_and_clipped() -> None:
    wave = torch.tensor([0.0, 1.0, -1.0, 2.0, -2.0, 0.5 / 32767.0, 1.5 / 32767.0])
    assert np.frombuffer(to_pcm(wave), "<i2").tolist() == [0, 32767, -32767, 32767, -32767, 0, 2]


def test_a_dropped_voice_is_read_anew_and_running_segments_keep_theirs(bench: Bench) -> None:
    bench.open("running")
    bench.stage.submit(DropVoices(voice_hashes=["voice"]))
    (bench.run_dir / "voices" / "voice.safetensors").unlink()
    bench.open("late")
    bench.tokens(some_tokens(30), "running")
    bench.run()
    assert {report.key: report.error is None for report in bench.reports} == {"late": False, "running": True}


def test_gauges_show_the_queue(bench: Bench) -> None:
    def gauges() -> dict[str, float]:
        return {gauge.name: gauge.value for gauge in bench.stage.gauges()}

    assert gauges()["decode_queue_depth"] == 0
    for key in ("a", "b"):
        bench.open(key)
    assert gauges()["decode_waiting_for_tokens"] == 2
    for key in ("a", "b"):
        bench.tokens(some_tokens(45), key)
    assert gauges()["decode_queue_depth"] == 2
    bench.step()
    assert gauges()["decode_active"] == 2
    assert gauges()["decode_batch_size"] == 2
    assert gauges()["decode_batch_frames"] == 200
    bench.run()
    assert {name for name, value in gauges().items() if value} == {"decode_voices"}


def test_decode_max_batch_size_and_paral_num_bound_what_runs_together(random_v2_bundle: Path, tmp_path: Path) -> None:
    plan = EnginePlan(model_dir="random", decode_max_batch_size=1, decode_paral_num=1)
    bench = make_bench(random_v2_bundle, tmp_path, plan)
    for key in ("a", "b"):
        bench.open(key, stream=False)
        bench.tokens(some_tokens(30), key)
    most = 0.0
    while bench.step():
        most = max(most, *(gauge.value for gauge in bench.stage.gauges() if gauge.name == "decode_active"))
    assert most == 1


def test_a_seed_fixes_the_audio(random_v2_bundle: Path, tmp_path: Path) -> None:
    context = StageContext(
        identity="decode-0-0",
        run_dir=tmp_path,
        bundle_dir=random_v2_bundle,
        model=read_model_info(random_v2_bundle),
        plan=EnginePlan(model_dir="random"),
    )
    make_bench(random_v2_bundle, tmp_path, context.plan)  # writes the voice
    stage = build(context)
    assert isinstance(stage, DecodeStage)
    audio = {}
    for key, seed in (("one", 1), ("one again", 1), ("two", 2)):
        bench = Bench(stage, stage._synthesizer, tmp_path, [0.0])
        bench.open(key, seed=seed)
        bench.tokens(some_tokens(60), key)
        bench.run()
        audio[key] = [chunk.pcm for chunk in bench.chunks]
    assert audio["one"] == audio["one again"]
    assert audio["one"] != audio["two"]
