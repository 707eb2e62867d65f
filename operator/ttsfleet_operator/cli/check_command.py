"""`ttsfleet check`: does a server speak, and is an operator ready? The chart's test runs it in a pod."""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import replace
from pathlib import Path

import httpx

from ttsfleet_operator.cli.options import api_key, positive_number
from ttsfleet_operator.errors import SpeechError, TTSFleetError, UsageError
from ttsfleet_operator.speech import SpeechOrder, api_root, fetch_speech, speech_client
from ttsfleet_operator.speech_check import faults_of, measure_wav

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_TEXT = "The kettle is on, so sit down for a minute."
_AGAIN_SECONDS = 0.5
_SPEECH_REMEDY = (
    "see whether the service has ready pods (`ttsfleet status`), "
    "and whether its spec.network.policy.ingressFrom admits this caller"
)
_OPERATOR_REMEDY = (
    "see whether its pods are ready, and whether networkPolicy.metricsFrom of the chart admits this caller"
)


class CheckError(TTSFleetError):
    """Something answers, but it is not what a sound installation would answer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="", help=f"speech server (default {DEFAULT_URL}, without --operator none)")
    parser.add_argument("--operator", default="", help="address of an operator's metrics, to see that it is ready")
    parser.add_argument("--text", default=DEFAULT_TEXT, help="what to say (default: a short English sentence)")
    parser.add_argument("--voice", default="", help="voice to ask for (default: the first of the server)")
    parser.add_argument("--model", default="tts-1", help="model to ask for (default %(default)s)")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait for a connection (default none)")
    parser.add_argument("--timeout", type=positive_number, default=300.0, help="seconds per read (default 300)")
    parser.add_argument("--api-key", default="", help="key of the server (else TTSFLEET_API_KEY)")
    parser.add_argument("--api-key-file", type=Path, help="file with the key, instead of --api-key")


def execute(arguments: argparse.Namespace) -> int:
    """Prints what was found. Raises SpeechError or CheckError for what is not as it should be."""
    if not any(character.isalnum() for character in arguments.text):
        raise UsageError(f"--text {arguments.text!r}: holds nothing to say")
    asyncio.run(_check(arguments, _key(arguments)))
    return 0


def _key(arguments: argparse.Namespace) -> str:
    if arguments.api_key_file is None:
        return api_key(arguments.api_key)
    try:
        return str(arguments.api_key_file.read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--api-key-file {arguments.api_key_file}: {error}") from error


async def _check(arguments: argparse.Namespace, key: str) -> None:
    deadline = time.monotonic() + arguments.wait
    if arguments.operator:
        async with speech_client("", arguments.timeout) as client:
            await _check_operator(client, arguments.operator.rstrip("/"), deadline)
    if arguments.operator and not arguments.url:
        return
    url = api_root(arguments.url or DEFAULT_URL)
    order = SpeechOrder(text=arguments.text, voice=arguments.voice, model=arguments.model)
    async with speech_client(key, arguments.timeout) as client:
        await _check_speech(client, url, order, deadline)


async def _check_operator(client: httpx.AsyncClient, url: str, deadline: float) -> None:
    """An operator is ready when it has read every TTSService: the definitions are served and it may list them."""
    answer = await _get(client, f"{url}/readyz", deadline, _OPERATOR_REMEDY)
    if answer.status_code != 200:
        raise CheckError(f"the operator at {url} is not ready: {answer.text.strip()[:500]}")
    print(f"operator  {url}: ready, TTSServices are read")


async def _check_speech(client: httpx.AsyncClient, url: str, order: SpeechOrder, deadline: float) -> None:
    voices = await _voices(client, url, deadline)
    order = replace(order, voice=order.voice or _first(voices, url))
    print(f"server    {url}: voices {', '.join(voices[:5])}{' …' if len(voices) > 5 else ''}")
    try:
        body, delivery = await fetch_speech(client, url, order)
    except httpx.HTTPError as error:
        raise SpeechError(f"{url} broke off while it spoke: {error or type(error).__name__}") from error
    measures = measure_wav(body)
    print(f"said      “{order.text}” (voice {order.voice})")
    print(f"audio     {measures}, all after {delivery.total_seconds:.2f} s")
    if faults := faults_of(measures, order.text):
        raise CheckError(f"{url} answered, but this is no speech: {'; '.join(faults)}")
    print("the answer can be speech")


async def _voices(client: httpx.AsyncClient, url: str, deadline: float) -> list[str]:
    """Names of the server's voices; none when it cannot list them, as other makes of servers."""
    answer = await _get(client, f"{url}/v1/voices", deadline, _SPEECH_REMEDY)
    if answer.status_code == 401:
        raise SpeechError(f"{url} wants an API key (401); give it with --api-key or --api-key-file")
    try:
        return [str(name) for name in answer.json()["voices"]]
    except (ValueError, KeyError, TypeError):
        return []


def _first(voices: list[str], url: str) -> str:
    if not voices:
        raise SpeechError(f"{url} lists no voices; name one with --voice, or register one (POST /v1/voices)")
    return voices[0]


async def _get(client: httpx.AsyncClient, url: str, deadline: float, remedy: str) -> httpx.Response:
    """The answer. Tries again until the deadline without a connection: a network policy may come after its pod.

    Raises CheckError when there is none.
    """
    while True:
        try:
            return await client.get(url)
        except httpx.TransportError as error:
            if time.monotonic() + _AGAIN_SECONDS > deadline:
                raise CheckError(f"{url}: no answer ({error or type(error).__name__}); {remedy}") from error
        await asyncio.sleep(_AGAIN_SECONDS)
