"""POST /v1/audio/speech as clients use it: the openai package unmodified, and plain HTTP."""

from __future__ import annotations

import hashlib
import io
import re
import struct
from typing import Any

import av
import openai
import pytest

from ttsfleet_runtime.messages import ListVoices, Mode, RequestReport, SegmentConsumed, SpeechRequest

FORMATS = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg; codecs=opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm; rate=24000; channels=1",
}
SPOKEN_SECONDS = 1.2
SPOKEN_TOKENS = [s * 100 + i for s in range(2) for i in range(3) for _ in range(5)]


def seconds_of(data: bytes, audio_format: str) -> float:
    if audio_format == "pcm":
        return len(data) / 48000
    with av.open(io.BytesIO(data)) as container:
        rate = container.streams.audio[0].rate
        return sum(frame.samples for frame in container.decode(audio=0)) / rate


@pytest.mark.parametrize(("audio_format", "media_type"), FORMATS.items())
def test_the_openai_client_gets_every_format(server: Any, audio_format: str, media_type: str) -> None:
    with server.openai() as client:
        answer = client.audio.speech.create(
            model="tts-1", voice="heart", input="Hello.", response_format=audio_format
        )
        assert answer.response.headers["content-type"] == media_type
        assert seconds_of(answer.content, audio_format) == pytest.approx(SPOKEN_SECONDS, abs=0.15)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_every_format_can_be_streamed_by_the_openai_client(server: Any, audio_format: str) -> None:
    with (
        server.openai() as client,
        client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="heart", input="Hello.", response_format=audio_format, stream_format="audio"
        ) as answer,
    ):
        assert answer.headers["transfer-encoding"] == "chunked"
        data = b"".join(answer.iter_bytes())
    assert seconds_of(data, audio_format) == pytest.approx(SPOKEN_SECONDS, abs=0.15)
    assert server.router.wait_for(SpeechRequest).stream is True


def test_mp3_is_the_default_and_comes_whole_with_its_length(server: Any) -> None:
    answer = server.speak()
    assert answer.headers["content-type"] == "audio/mpeg"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert server.router.wait_for(SpeechRequest).stream is False


def test_a_whole_wav_tells_its_length_and_a_streamed_one_does_not(server: Any) -> None:
    whole = server.speak(response_format="wav").content
    streamed = server.speak(response_format="wav", stream=True).content
    assert struct.unpack("<I", whole[40:44])[0] == len(whole) - 44 == int(SPOKEN_SECONDS * 48000)
    assert struct.unpack("<I", streamed[40:44])[0] == 0xFFFFFFFF
    assert streamed[44:] == whole[44:]


STREAMED = [
    ({}, False),
    ({"stream": False}, False),
    ({"stream": True}, True),
    ({"stream_format": "audio"}, True),
    ({"stream_format": "sse"}, True),
    ({"response_format": "pcm"}, True),
    ({"response_format": "wav"}, False),
]


@pytest.mark.parametrize(("fields", "streamed"), STREAMED)
def test_generation_is_streamed_when_asked_or_for_pcm(server: Any, fields: dict[str, Any], streamed: bool) -> None:
    assert server.speak(**fields).status_code == 200
    assert server.router.wait_for(SpeechRequest).stream is streamed


def test_every_field_reaches_the_router(server: Any) -> None:
    server.speak(
        "Read this.",
        model="news",
        voice={"id": "bella"},
        mode="cross_lingual",
        speed=1.5,
        seed=42,
        top_k=7,
        tau_r=0.3,
        max_tokens=125,
        ignore_eos=True,
    )
    request = server.router.wait_for(SpeechRequest)
    assert (request.text, request.voice, request.style) == ("Read this.", "bella", "news")
    assert (request.mode, request.speed, request.seed) == (Mode.CROSS_LINGUAL, 1.5, 42)
    assert (request.max_tokens, request.ignore_eos, request.reply_to) == (125, True, "http-0")
    sampling = request.sampling
    assert (sampling.top_p, sampling.top_k, sampling.win_size, sampling.tau_r) == (0.8, 7, 10, 0.3)
    assert request.deadline == pytest.approx(request.received + server.plan.server.timeout)


def test_what_is_not_given_is_left_to_the_router(server: Any) -> None:
    server.speak()
    request = server.router.wait_for(SpeechRequest)
    assert (request.mode, request.sampling, request.max_tokens) == (None, None, None)
    assert (request.style, request.instructions, request.prompt_audio) == ("cosyvoice", "", b"")


def test_instructions_travel_with_the_request(server: Any) -> None:
    server.speak(instructions="whisper")
    assert server.router.wait_for(SpeechRequest).instructions == "whisper"


def test_without_a_seed_each_request_gets_its_own_and_tells_it(server: Any) -> None:
    seeds = [int(server.speak().headers["x-seed"]) for _ in range(2)]
    assert seeds[0] != seeds[1]
    assert [server.router.wait_for(SpeechRequest, n).seed for n in (1, 2)] == seeds


ALIASES = [("alloy", "bella"), ("ash", "heart"), ("ballad", "bella"), ("nova", "heart"), ("heart", "heart")]


@pytest.mark.parametrize(("asked", "served"), ALIASES)
def test_openai_voices_mean_served_voices_always_in_the_same_way(server: Any, asked: str, served: str) -> None:
    assert server.speak(voice=asked).status_code == 200
    assert server.router.wait_for(SpeechRequest).voice == served


def test_a_voice_of_another_name_needs_no_listing(server: Any) -> None:
    server.speak(voice="heart")
    assert server.router.count(ListVoices) == 0


@pytest.mark.parametrize("name", ["tts-1", "tts-1-hd", "gpt-4o-mini-tts", "tiny", "cosyvoice", None])
def test_openai_models_mean_the_default_style(server: Any, name: str | None) -> None:
    assert server.speak(model=name).status_code == 200
    assert server.router.wait_for(SpeechRequest).style == "cosyvoice"


def test_an_answer_carries_its_stage_timings_and_a_request_id(server: Any) -> None:
    answer = server.speak(stream=True)
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
    assert list(stages) == ["queue", "encode", "llm", "decode"]
    assert float(stages["encode"]) == pytest.approx(1.0, abs=0.11)
    assert float(stages["queue"]) == pytest.approx(2.0, abs=0.11)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_whole_answer_identifies_its_speech_tokens(server: Any) -> None:
    expected = hashlib.sha256(struct.pack(f"<{len(SPOKEN_TOKENS)}i", *SPOKEN_TOKENS)).hexdigest()
    assert server.speak().headers["x-speech-tokens-sha256"] == expected


def test_the_router_hears_when_the_client_took_the_first_audio_of_a_segment(server: Any) -> None:
    server.speak(stream=True)
    assert [server.router.wait_for(SegmentConsumed, n).segment for n in (1, 2)] == [0, 1]
    server.router.wait_for(RequestReport)
    assert server.router.count(SegmentConsumed) == 2


def test_each_request_is_reported_once_with_its_measures(server: Any) -> None:
    server.speak(stream=True)
    report = server.router.wait_for(RequestReport)
    assert (report.route, report.status, report.outcome) == ("/v1/audio/speech", 200, "ok")
    assert report.audio_seconds == pytest.approx(SPOKEN_SECONDS)
    assert 0 < report.first_audio_seconds <= report.latency_seconds
    assert report.underruns == 0


BAD_REQUESTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("no input", {"input": None}, "input", "valid string"),
    ("empty input", {"input": " \n"}, "input", "empty"),
    ("long input", {"input": "x" * 4097}, "input", "at most 4096"),
    ("no voice", {"voice": None}, "voice", "required"),
    ("bad voice object", {"voice": {"name": "x"}}, "voice", "must be the name of a voice"),
    ("bad format", {"response_format": "mp5"}, "response_format", "'mp3', 'opus'"),
    ("slow", {"speed": 0.2}, "speed", "greater than or equal to 0.25"),
    ("fast", {"speed": 4.5}, "speed", "less than or equal to 4"),
    ("speed with stream", {"speed": 2, "stream": True}, "speed", "leave speed at 1"),
    ("speed with sse", {"speed": 2, "stream_format": "sse"}, "speed", "leave speed at 1"),
    ("speed with pcm", {"speed": 2, "response_format": "pcm"}, "speed", "always streamed"),
    ("bad stream format", {"stream_format": "ws"}, "stream_format", "'audio' or 'sse'"),
    ("unknown field", {"ignore_eso": True}, "ignore_eso", "not a field"),
    ("negative seed", {"seed": -1}, "seed", "greater than or equal to 0"),
    ("no mode", {"mode": "clone"}, "mode", "'zero_shot'"),
    ("many tokens", {"max_tokens": 10**6}, "max_tokens", "at most 4096"),
    ("mode against instructions", {"mode": "sft", "instructions": "sing"}, "instructions", "instruct2"),
    ("instruct2 alone", {"mode": "instruct2"}, "instructions", "needs"),
    ("long instructions", {"instructions": "x" * 1025}, "instructions", "at most 1024"),
    ("transcript alone", {"ref_text": "hi"}, "ref_text", "send both"),
    ("tokens without sse", {"return_tokens": True}, "return_tokens", "stream_format sse"),
    ("bad base64", {"ref_audio": "!!!"}, "ref_audio", "nor base64"),
    ("file url", {"ref_audio": "file:///etc/passwd"}, "ref_audio", "nor base64"),
    ("zero shot without transcript", {"ref_audio": "UklGRg==", "mode": "zero_shot"}, "ref_text", "cross_lingual"),
    ("two styles", {"model": "news", "style": "cosyvoice"}, "style", "different styles"),
]


@pytest.mark.parametrize(
    ("fields", "param", "words"), [c[1:] for c in BAD_REQUESTS], ids=[c[0] for c in BAD_REQUESTS]
)
def test_a_bad_request_is_told_what_is_wrong(server: Any, fields: dict[str, Any], param: str, words: str) -> None:
    body = {"input": "Hello.", "voice": "heart", **fields}
    with server.http() as client:
        answer = client.post("/v1/audio/speech", json=body)
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, "invalid_request")
    assert words in error["message"]
    report = server.router.wait_for(RequestReport)
    assert (report.status, report.outcome) == (400, "error")
    assert server.router.count(SpeechRequest) == 0


@pytest.mark.parametrize("field", ["model", "style"])
def test_an_unknown_model_is_not_found(server: Any, field: str) -> None:
    with server.openai() as client, pytest.raises(openai.NotFoundError) as caught:
        client.audio.speech.create(
            model="gpt-5" if field == "model" else "tiny",
            voice="heart",
            input="Hi.",
            extra_body={"style": "x"} if field == "style" else None,
        )
    assert caught.value.param == field
    assert "cosyvoice" in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b'{"input": "\\ud800", "voice": "heart"}', b"\xff"])
def test_a_body_that_is_no_request_is_refused_in_shape(server: Any, body: bytes) -> None:
    with server.http() as client:
        answer = client.post("/v1/audio/speech", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_recording_in_the_request_is_cloned(server: Any) -> None:
    server.speak(ref_audio="data:audio/wav;base64,UklGRg==", ref_text="What it says.", voice="ignored")
    request = server.router.wait_for(SpeechRequest)
    assert (request.prompt_audio, request.prompt_text, request.voice) == (b"RIFF", "What it says.", "")


def test_a_recording_beyond_the_limit_is_too_large(start_server: Any) -> None:
    answer = start_server(limits={"prompt_bytes": 100}).speak(ref_audio="A" * 200)
    assert answer.status_code == 413
    assert "limits.prompt_bytes" in answer.json()["error"]["message"]


def test_a_large_recording_within_the_limit_arrives(server: Any) -> None:
    import base64

    recording = bytes(range(256)) * 20000
    answer = server.speak(ref_audio=base64.b64encode(recording).decode(), ref_text="x")
    assert answer.status_code == 200
    assert server.router.wait_for(SpeechRequest).prompt_audio == recording
