"""Cancellations, deadlines and failures in the decode stage: each ends its own segment and leaves nothing behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ttsfleet_runtime.messages import Cancel, DropVoices
from ttsfleet_runtime.voices import VoiceEntry, write_voice


def test_cancel_frees_everything_at_once(bench: Any) -> None:
    for segment in range(2):
        bench.open(segment=segment, last_segment=segment == 1)
        bench.random_tokens(60, segment=segment, finished=False)
    for _ in range(2):
        bench.step()
    assert not bench.stage.idle()
    said = len(bench.said)
    bench.stage.submit(Cancel(key="r"))
    assert bench.stage.idle()
    assert bench.held == 0
    bench.random_tokens(30)
    bench.open(segment=2)
    bench.run()
    assert bench.stage.idle(), "a job that overtook the cancellation must not stay"
    assert len(bench.said) == said


def test_nothing_is_kept_of_requests_that_ended(bench: Any) -> None:
    for number in range(3):
        key = f"r{number}"
        for segment in (0, 1):
            bench.open(key, segment, last_segment=segment == 1)
        for segment in (1, 0):  # out of order: the last segment ends first
            bench.random_tokens(30, key, segment)
            bench.run()
    assert [chunk.segment for chunk in bench.chunks] == [1, 0] * 3
    assert bench.held == 0


@pytest.mark.parametrize("first_tokens", [0, 5, 45], ids=["no tokens", "too few to speak", "audio"])
def test_a_segment_that_outlives_its_deadline_is_ended_with_an_error(bench: Any, first_tokens: int) -> None:
    """As after a restart: the job came, the rest went to the process that died, and no cancellation will come."""
    bench.open("orphan", deadline=110.0)
    bench.open("other", deadline=0.0)
    bench.random_tokens(first_tokens, "orphan", finished=False)
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
    bench.random_tokens(40, "orphan")
    bench.random_tokens(40, "other")
    bench.run()
    assert [report.error for report in bench.reports[1:]] == [None], "without a deadline a segment lives on"
    assert bench.held == 0


def test_messages_for_unknown_segments_are_ignored(bench: Any) -> None:
    bench.random_tokens(30, "never opened")
    bench.stage.submit(Cancel(key="never opened"))
    bench.stage.submit(DropVoices(voice_hashes=["never seen"]))
    bench.run()
    assert bench.said == []
    assert bench.stage.idle()


@pytest.mark.parametrize("operation", ["begin", "advance", "vocode"])
def test_a_failing_job_does_not_harm_its_neighbours(bench: Any, operation: str) -> None:
    bench.open("alone")
    bench.random_tokens(30, "alone", seed=1)
    bench.run()
    bench.synthesizer.faulty = frozenset({(operation, "bad")})
    for key in ("a", "bad", "b"):
        bench.open(key)
        bench.random_tokens(30, key, seed=1)
    bench.run()
    assert {report.key: report.error is None for report in bench.reports} == {
        "alone": True,
        "a": True,
        "bad": False,
        "b": True,
    }
    audio = bench.waveforms()
    np.testing.assert_allclose(audio["a"], audio["alone"], atol=2e-3)
    np.testing.assert_allclose(audio["b"], audio["alone"], atol=2e-3)
    assert bench.stage.idle()


def test_a_batch_that_fails_only_together_is_run_singly(bench: Any) -> None:
    bench.synthesizer.only_together = True
    for key in ("a", "b", "c"):
        bench.open(key)
        bench.random_tokens(30, key)
    bench.run()
    assert [report.error for report in bench.reports] == [None] * 3
    first, *others = bench.waveforms().values()
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
def test_a_bad_voice_fails_its_own_segment(bench: Any, entry: dict[str, np.ndarray] | None, status: int) -> None:
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
        bench.random_tokens(30, key)
    bench.run()
    errors = {report.key: report.error for report in bench.reports}
    assert errors["good"] is None
    assert errors["bad"] is not None
    assert errors["bad"].status == status
    assert [chunk.key for chunk in bench.chunks] == ["good"]
    assert bench.stage.idle()


def test_a_token_outside_the_vocabulary_fails_its_segment(bench: Any) -> None:
    bench.open()
    bench.tokens([6561])
    bench.run()
    assert [report.error is None for report in bench.reports] == [False]
    assert bench.stage.idle()


def test_a_dropped_voice_is_read_anew_and_running_segments_keep_theirs(bench: Any) -> None:
    bench.open("running")
    bench.stage.submit(DropVoices(voice_hashes=["voice"]))
    (bench.run_dir / "voices" / "voice.safetensors").unlink()
    bench.open("late")
    bench.random_tokens(30, "running")
    bench.run()
    assert {report.key: report.error is None for report in bench.reports} == {"late": False, "running": True}
