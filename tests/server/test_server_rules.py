"""The server's pure parts: playback, request log, names, tokens."""

from __future__ import annotations

import pytest

from ttsfleet_runtime.errors import ErrorInfo, InvalidRequestError, NotFoundError
from ttsfleet_runtime.messages import StageTimes, VoiceInfo
from ttsfleet_runtime.server.catalog import OPENAI_VOICES, served_voice
from ttsfleet_runtime.server.delivery import tokens_digest
from ttsfleet_runtime.server.playback import Playback
from ttsfleet_runtime.server.reference_audio import decode_base64
from ttsfleet_runtime.server.request_log import RequestLog, server_timing, stage_durations_ms

CHUNKS = [
    ("steady", [(0.0, 1.0), (0.9, 1.0), (1.9, 1.0)], 0),
    ("all at once", [(5.0, 1.0), (5.0, 1.0)], 0),
    ("just in time", [(0.0, 1.0), (1.0, 1.0)], 0),
    ("one late", [(0.0, 1.0), (1.5, 1.0), (2.4, 1.0)], 1),
    ("a stall moves the rest", [(0.0, 1.0), (3.0, 1.0), (3.9, 1.0)], 1),
    ("two late", [(0.0, 1.0), (1.5, 0.1), (2.0, 1.0)], 2),
    ("a late first chunk is none", [(60.0, 1.0)], 0),
]


@pytest.mark.parametrize(("chunks", "underruns"), [c[1:] for c in CHUNKS], ids=[c[0] for c in CHUNKS])
def test_underruns_are_chunks_after_the_last_has_been_heard(
    chunks: list[tuple[float, float]], underruns: int
) -> None:
    playback = Playback()
    for now, seconds in chunks:
        playback.chunk(now, seconds)
    assert playback.underruns == underruns
    assert playback.audio_seconds == pytest.approx(sum(seconds for _, seconds in chunks))


def test_stage_durations_leave_out_what_is_not_known() -> None:
    first = StageTimes(received=10.0, encoded=10.1, llm_admitted=10.3, decode_started=10.4, decoded=10.6)
    assert stage_durations_ms(first, first) == pytest.approx({"queue": 200, "encode": 100, "llm": 100, "decode": 200})
    last = StageTimes(received=10.0, llm_finished=11.3, decode_started=11.0, decoded=12.4)
    assert stage_durations_ms(first, last) == pytest.approx(
        {"queue": 200, "encode": 100, "llm": 1000, "decode": 2000}
    )
    assert stage_durations_ms(StageTimes(received=10.0), StageTimes()) == {}
    assert server_timing({"queue": 1.25, "llm": 30.0}) == "queue;dur=1.2, llm;dur=30.0"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "ok"), (201, "ok"), (404, "error"), (499, "cancelled"), (503, "error"), (504, "timeout")],
)
def test_the_outcome_follows_from_the_status(status: int, outcome: str) -> None:
    log = RequestLog("id", 1.0, status=status)
    assert log.report("/x", 2.0).outcome == outcome


def test_the_log_line_tells_why_a_request_failed() -> None:
    log = RequestLog("abc", 1.0, key="k1", status=200, first_audio_seconds=0.25, audio_seconds=1.5, underruns=1)
    log.timings_ms = {"queue": 1.0}
    log.failed(ErrorInfo(code="unavailable", message='the "llm"\ndied', status=503))
    assert log.line("POST", log.report("/x", 2.5)) == (
        "POST /x 503 error id=abc key=k1 total=1500.0ms first_audio=250.0ms queue=1.0ms audio=1.50s underruns=1 "
        "error='unavailable: the \"llm\"\\ndied'"
    )


def voices(*names: str, kind: str = "builtin") -> list[VoiceInfo]:
    return [VoiceInfo(name=name, kind=kind, has_prompt=True) for name in names]


def test_aliases_go_round_the_models_own_voices_whatever_is_registered() -> None:
    own = voices("b", "a", "c")
    dealt = [served_voice(name, own) for name in OPENAI_VOICES]
    assert dealt[:4] == ["a", "b", "c", "a"]
    assert [served_voice(name, own + voices("zoe", kind="registered")) for name in OPENAI_VOICES] == dealt


def test_a_served_voice_of_an_aliased_name_wins() -> None:
    assert served_voice("nova", [*voices("a"), *voices("nova", kind="registered")]) == "nova"


def test_a_model_without_voices_lends_aliases_to_registered_ones() -> None:
    assert served_voice("alloy", voices("y", "x", kind="registered")) == "x"
    with pytest.raises(NotFoundError, match="register one"):
        served_voice("alloy", [])


def test_the_token_digest_tells_sequences_apart() -> None:
    assert tokens_digest([1, 2]) == tokens_digest([1, 2]) != tokens_digest([2, 1])
    assert len(tokens_digest([])) == 64


@pytest.mark.parametrize(
    ("value", "audio"),
    [("UklGRg==", b"RIFF"), ("data:audio/wav;base64,UklGRg==", b"RIFF"), ("Ukl\nGRg==\n", b"RIFF")],
)
def test_base64_is_taken_in_its_usual_forms(value: str, audio: bytes) -> None:
    assert decode_base64(value, 4) == audio


@pytest.mark.parametrize("value", ["data:audio/wav,RIFF", "UklGRg", "ünicode=", "ftp://x/y"])
def test_what_is_no_base64_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequestError, match="ref_audio"):
        decode_base64(value, 100)
