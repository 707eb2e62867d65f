"""`ttsfleet check`: what counts as speech, and what the command says of servers and operators that are not sound."""

from __future__ import annotations

import asyncio
import math
import random
import wave
from array import array
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from ttsfleet_operator.cli import main
from ttsfleet_operator.cluster.http_endpoint import HealthEndpoint
from ttsfleet_operator.errors import SpeechError
from ttsfleet_operator.local_server import free_ports
from ttsfleet_operator.speech_check import SpeechMeasures, faults_of, measure_wav, plausible_seconds

TEXT = "The kettle is on, so sit down for a minute."
Wave = Callable[[int], float]


def recording(level: Wave, seconds: float = 2.5, rate: int = 24000, channels: int = 1, width: int = 2) -> bytes:
    """A WAV file; `level` gives the sample at each frame, from -1 to 1."""
    frames = array("h", (round(32767 * level(index // channels)) for index in range(int(seconds * rate) * channels)))
    buffer = BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(frames.tobytes())
    return buffer.getvalue()


def tone(index: int) -> float:
    return 0.1 * math.sin(index / 20)


def noise(index: int) -> float:
    return random.Random(index).choice((-1.0, 1.0))


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        pytest.param(recording(tone), [], id="a-tone-of-a-plausible-length"),
        pytest.param(recording(tone, channels=2, rate=44100), [], id="stereo-of-another-rate"),
        pytest.param(recording(lambda index: 0.5 + tone(index) / 2), [], id="an-offset-is-no-fault"),
        pytest.param(
            recording(lambda _: 0.0), ["silence: level -100.0 dBFS (plausible: -50 to -3)"], id="digital-silence"
        ),
        pytest.param(
            recording(lambda _: 0.5),
            ["silence: level -100.0 dBFS (plausible: -50 to -3)"],
            id="a-constant-is-silence",
        ),
        pytest.param(recording(noise), ["noise: level -0.0 dBFS (plausible: -50 to -3)"], id="noise-at-full-scale"),
        pytest.param(
            recording(lambda index: tone(index) * (index < 2400)),
            ["mostly silence: 4% of it sounds (plausible: 20% or more)"],
            id="a-click-and-silence",
        ),
        pytest.param(recording(tone, seconds=0.2), ["0.20 s for this text (plausible: 0.8 to 22.2)"], id="cut-short"),
        pytest.param(recording(tone, seconds=30), ["30.00 s for this text (plausible: 0.8 to 22.2)"], id="endless"),
        pytest.param(
            recording(tone, rate=4000), ["sample rate 4000 Hz (plausible: 8000 to 48000)"], id="rate-of-no-voice"
        ),
        pytest.param(
            recording(tone, seconds=0),
            ["0.00 s for this text (plausible: 0.8 to 22.2)", "silence: level -100.0 dBFS (plausible: -50 to -3)"],
            id="no-samples",
        ),
    ],
)
def test_recording_is_judged(body: bytes, faults: list[str]) -> None:
    assert faults_of(measure_wav(body), TEXT) == faults


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"", "the answer of 0 bytes is not a WAV file", id="nothing"),
        pytest.param(b"<html>Bad gateway</html>", "24 bytes is not a WAV file", id="a-web-page"),
        pytest.param(recording(tone)[:20], "is not a WAV file", id="a-torn-header"),
        pytest.param(recording(tone, width=1), "samples of 8 bits; speech servers send 16", id="eight-bits"),
    ],
)
def test_body_that_cannot_be_measured_is_an_error(body: bytes, says: str) -> None:
    with pytest.raises(SpeechError, match=says):
        measure_wav(body)


def test_measures_are_those_of_the_signal() -> None:
    measures = measure_wav(recording(lambda index: tone(index) * (index < 30000), seconds=2.5))
    assert measures == SpeechMeasures(24000, 1, 2.5, pytest.approx(-26.0, abs=0.1), pytest.approx(0.5, abs=0.01))
    assert str(measures) == "2.50 s at 24000 Hz, level -26.0 dBFS, 50% of it sounding"


def test_longer_texts_may_take_longer_and_punctuation_does_not_count() -> None:
    assert plausible_seconds("你好，世界。") == (4 * 0.025, 3 + 4 * 0.6)
    assert plausible_seconds("One. One.") == plausible_seconds("OneOne")


def test_silent_server_fails_with_what_was_measured(speech_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    speech_server.pieces = 25
    assert main(["check", "--url", speech_server.url, "--voice", "alloy", "--text", TEXT]) == 1
    shown = capsys.readouterr()
    assert "2.50 s at 24000 Hz, level -100.0 dBFS, 0% of it sounding" in shown.out
    assert shown.err == (
        f"ttsfleet check: {speech_server.url} answered, but this is no speech: "
        "silence: level -100.0 dBFS (plausible: -50 to -3)\n"
    )
    (body,) = speech_server.bodies
    assert (body["input"], body["voice"], body["response_format"]) == (TEXT, "alloy", "wav")


def test_refusal_of_the_server_is_shown_in_its_words(speech_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    speech_server.script = ["refuse"]
    assert main(["check", "--url", speech_server.url, "--voice", "alloy"]) == 1
    assert "the server answered 429: the queues are full" in capsys.readouterr().err


def test_server_that_lists_no_voices_needs_one_named(speech_server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--url", speech_server.url]) == 1
    assert "lists no voices; name one with --voice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "says"),
    [
        pytest.param("--url", "its spec.network.policy.ingressFrom admits this caller", id="a-service"),
        pytest.param("--operator", "networkPolicy.metricsFrom of the chart admits this caller", id="an-operator"),
    ],
)
def test_nobody_there_is_a_failure_with_a_remedy(option: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert main(["check", option, url, "--wait", "0.6"]) == 1
    shown = capsys.readouterr().err
    assert f"{url}/" in shown
    assert says in shown


@pytest.mark.parametrize(
    ("problem", "code", "says"),
    [
        pytest.param("", 0, "ready, TTSServices are read", id="ready"),
        pytest.param(
            "the caches cannot be filled: ttsservices: 404",
            1,
            "is not ready: the caches cannot be filled: ttsservices: 404",
            id="without-definitions",
        ),
    ],
)
async def test_operator_is_asked_whether_it_is_ready(
    problem: str, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = HealthEndpoint("127.0.0.1", 0, CollectorRegistry(), lambda: "", lambda: problem)
    port = await endpoint.start()
    try:
        ended = await asyncio.to_thread(main, ["check", "--operator", f"http://127.0.0.1:{port}/"])
    finally:
        await endpoint.stop()
    shown = capsys.readouterr()
    assert ended == code
    assert says in shown.out + shown.err
    assert "audio" not in shown.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["--text", " …"], "holds nothing to say", id="nothing-to-say"),
        pytest.param(["--api-key-file", "/nonexistent"], "--api-key-file /nonexistent", id="no-key-file"),
    ],
)
def test_wrong_use_has_exit_code_2(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *words]) == 2
    assert says in capsys.readouterr().err
