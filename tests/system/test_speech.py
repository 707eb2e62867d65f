"""Speech through the whole runtime, as a client hears it."""

from __future__ import annotations

import concurrent.futures
import io
import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import soundfile

SENTENCES = [
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
]
DATA = Path(__file__).parents[1] / "data" / "tiny-en"


def _client(service: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)


def _seconds(body: bytes) -> float:
    return float(soundfile.info(io.BytesIO(body)).duration)


def _speak(service: Any, **values: Any) -> httpx.Response:
    body = {"input": SENTENCES[0], "voice": "heart", "response_format": "wav", "seed": 1, **values}
    return httpx.post(f"{service.url}/v1/audio/speech", json=body, timeout=120)


@pytest.mark.parametrize("response_format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_the_openai_client_gets_speech_in_every_format(service: Any, response_format: Any) -> None:
    with _client(service) as client:
        audio = client.audio.speech.create(
            model="tts-1", voice="heart", input=SENTENCES[0], response_format=response_format
        ).read()
    if response_format == "pcm":
        assert 1.0 < len(audio) / 48000 < 6.0
    elif response_format != "aac":  # libsndfile reads no AAC; tests/audio decodes it
        assert 1.0 < _seconds(audio) < 6.0


def test_the_openai_client_streams_audio_before_the_end(service: Any) -> None:
    sizes = []
    with (
        _client(service) as client,
        client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="heart", input=" ".join(SENTENCES), response_format="pcm"
        ) as response,
    ):
        sizes = [len(chunk) for chunk in response.iter_bytes()]
    assert len(sizes) >= 4
    assert sum(sizes) / 48000 > 5.0


def test_sse_carries_deltas_and_then_done_with_usage(service: Any) -> None:
    body = {"input": SENTENCES[1], "voice": "heart", "stream_format": "sse", "response_format": "pcm"}
    events = []
    with httpx.stream("POST", f"{service.url}/v1/audio/speech", json=body, timeout=120) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                events.append(json.loads(line.removeprefix("data: ")))
    kinds = [event["type"] for event in events]
    assert kinds[-1] == "speech.audio.done"
    assert set(kinds[:-1]) == {"speech.audio.delta"}
    assert events[-1]["usage"]["output_tokens"] > 20


@pytest.mark.parametrize("mode", ["sft", "zero_shot", "cross_lingual"])
def test_every_mode_speaks(service: Any, mode: str) -> None:
    response = _speak(service, mode=mode)
    assert response.status_code == 200, response.content[:500]
    assert 1.0 < _seconds(response.content) < 8.0


def test_a_seed_fixes_the_audio(service: Any) -> None:
    first, second, other = (_speak(service, seed=seed).content for seed in (7, 7, 8))
    assert first == second
    assert first != other


def test_tokens_do_not_depend_on_company(service: Any) -> None:
    def tokens(index: int) -> str:
        response = _speak(service, input=SENTENCES[index % len(SENTENCES)], seed=index, mode="sft")
        return response.headers["x-speech-tokens-sha256"]

    alone = [tokens(index) for index in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(tokens, range(8)))
    assert together == alone


def test_a_long_text_is_spoken_whole_and_in_order(service: Any) -> None:
    text = " ".join(SENTENCES * 3)
    whole = _seconds(_speak(service, input=text).content)
    single = _seconds(_speak(service, input=SENTENCES[0]).content)
    assert whole > 6 * single


def test_a_voice_is_cloned_from_a_recording_in_the_request(service: Any) -> None:
    import base64

    prompt = (DATA / "heart.wav").read_bytes()
    text = json.loads((DATA / "prompts.json").read_text())["heart"]
    response = _speak(service, voice="", ref_audio=base64.b64encode(prompt).decode(), ref_text=text)
    assert response.status_code == 200, response.content[:500]
    assert 1.0 < _seconds(response.content) < 6.0


def test_a_registered_voice_speaks_is_listed_and_can_be_deleted(service: Any) -> None:
    prompt = (DATA / "rms.wav").read_bytes()
    text = json.loads((DATA / "prompts.json").read_text())["rms"]
    voices = f"{service.url}/v1/audio/voices"
    created = httpx.post(
        voices, data={"name": "mine", "transcript": text}, files={"audio": ("rms.wav", prompt)}, timeout=60
    )
    assert created.status_code == 201, created.text
    assert "mine" in httpx.get(voices).text
    assert _speak(service, voice="mine").status_code == 200
    assert httpx.delete(f"{voices}/mine").status_code == 200
    assert _speak(service, voice="mine").status_code == 404


def test_an_unreadable_recording_of_a_voice_is_refused_under_the_forms_own_field(service: Any) -> None:
    answer = httpx.post(
        f"{service.url}/v1/voices", data={"name": "noise"}, files={"file": ("a.wav", b"not audio")}, timeout=60
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "file"


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"input": ""}, 400),
        ({"input": "   "}, 400),
        ({"input": "!!! ... ???"}, 400),
        ({"input": "x" * 4097}, 400),
        ({"voice": "nobody"}, 404),
        ({"response_format": "midi"}, 400),
        ({"speed": 9}, 400),
        ({"speed": 1.5, "stream": True}, 400),
        ({"mode": "shout"}, 400),
        ({"ref_audio": "bm90IGF1ZGlv", "voice": ""}, 400),
    ],
)
def test_bad_requests_get_a_clear_error(service: Any, values: dict[str, Any], status: int) -> None:
    response = _speak(service, **values)
    assert response.status_code == status, response.content[:500]
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("style", ["plain", "calm"])
def test_every_style_of_a_model_speaks(two_styles: Any, style: str) -> None:
    values = {"voice": "random", "max_tokens": 40, "ignore_eos": True, "mode": "sft"}
    for choice in ({"style": style}, {"model": style}):
        response = two_styles.speak(**values, **choice)
        assert response.status_code == 200, response.content[:500]
        assert _seconds(response.content) == pytest.approx(1.6, abs=0.2)


def test_an_unknown_style_is_not_found(two_styles: Any) -> None:
    response = two_styles.speak(voice="random", style="loud")
    assert response.status_code == 404
    assert "plain, calm" in response.json()["error"]["message"]


def test_speed_changes_the_length(service: Any) -> None:
    slow, fast = (_seconds(_speak(service, speed=speed).content) for speed in (0.5, 2.0))
    assert slow == pytest.approx(4 * fast, rel=0.05)


def test_metrics_tell_what_happened(service: Any) -> None:
    def value(name: str) -> float:
        text = httpx.get(f"{service.management}/metrics").text
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    names = ("lightllm_request_count_total", "lightllm_request_latency_seconds_count", "ttsfleet_audio_seconds_total")
    before = [value(name) for name in names]
    assert _speak(service).status_code == 200
    service.wait_until(lambda: value(names[0]) > before[0], "the request was counted", 10)
    assert all(value(name) > old for name, old in zip(names, before, strict=True))
    assert "lightllm_request_count_total" in httpx.get(f"{service.url}/metrics").text
