"""`ttsfleet say`: one text, spoken by a running server or by a tiny one that lives as long as the sentence."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import httpx
from rich.console import Console

from ttsfleet_operator.cli.options import add_start_arguments, api_key, state_dir, state_root
from ttsfleet_operator.cli.serving import StopRequests, serving, until_stopped
from ttsfleet_operator.cli.tiny_launch import tiny_launch
from ttsfleet_operator.errors import SpeechError, UsageError
from ttsfleet_operator.local_server import running_server
from ttsfleet_operator.players import PLAYERS, Player, find_player
from ttsfleet_operator.speech import (
    FORMATS,
    Delivery,
    SpeechOrder,
    api_root,
    fetch_speech,
    pcm_seconds,
    speech_client,
    stream_speech,
    wav_seconds,
)

DEFAULT_OUTPUT = Path("speech.wav")
DEFAULT_URL = "http://127.0.0.1:8080"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", help="what to say")
    parser.add_argument("--voice", default="heart", help="a voice of the server (default %(default)s)")
    parser.add_argument(
        "-o", "--output", type=Path, help=f"file to write; its ending is the format: {', '.join(FORMATS)}"
    )
    parser.add_argument(
        "--url", default="", help="the server (default: the one that runs here, else a short-lived one)"
    )
    parser.add_argument("--stream", action="store_true", help="take the audio as it is made")
    parser.add_argument("--play", action="store_true", help=f"play it as it comes ({', '.join(PLAYERS)})")
    parser.add_argument("--model", default="tts-1", help="model name to ask for (default %(default)s)")
    parser.add_argument("--speed", type=float, help="0.25 to 4; not with --stream or --play")
    parser.add_argument("--seed", type=int, help="the same seed gives the same audio")
    parser.add_argument("--instructions", default="", help="how to say it, for models that follow instructions")
    parser.add_argument("--api-key", default="", help="key of the server (else TTSFLEET_API_KEY)")
    add_start_arguments(parser)


@dataclass(frozen=True)
class _Output:
    """Where the audio goes; at least one of the two."""

    path: Path | None
    player: str | None
    streamed: bool


def execute(arguments: argparse.Namespace) -> int:
    if not arguments.text.strip():
        raise UsageError("the text is empty")
    output = _choose_output(arguments)
    return asyncio.run(_say(arguments, output, Console(stderr=True)))


def _choose_output(arguments: argparse.Namespace) -> _Output:
    """File, player or both. Without either option: the player if there is one, else speech.wav."""
    path: Path | None = arguments.output
    if path is not None and path.suffix.lstrip(".").lower() not in FORMATS:
        raise UsageError(f"-o {path}: the ending must be one of {', '.join(FORMATS)}")
    player = find_player() if arguments.play or path is None else None
    if arguments.play and player is None:
        raise UsageError(f"--play: none of {', '.join(PLAYERS)} is installed; use -o FILE")
    if player is None and path is None:
        path = DEFAULT_OUTPUT
    if player is not None and path is not None and path.suffix not in (".wav", ".pcm"):
        raise UsageError(f"-o {path} with --play: only .wav and .pcm can be written while playing")
    return _Output(path, player, bool(arguments.stream or player is not None))


async def _say(arguments: argparse.Namespace, output: _Output, console: Console) -> int:
    stop = StopRequests()
    stop.install()
    try:
        async with _server_url(arguments, console, stop) as url, speech_client(api_key(arguments.api_key)) as client:
            await until_stopped(_speak(client, url, arguments, output, console), stop)
    except KeyboardInterrupt:
        return 130
    except httpx.HTTPError as error:
        raise SpeechError(f"the server did not answer: {error or type(error).__name__}") from error
    finally:
        stop.remove()
    return 0


@asynccontextmanager
async def _server_url(arguments: argparse.Namespace, console: Console, stop: StopRequests) -> AsyncIterator[str]:
    """The server to ask: the given one, one that answers here, or the tiny service for the time of the block."""
    if arguments.url:
        yield api_root(arguments.url)
        return
    url = await _server_here()
    if url is not None:
        yield url
        return
    folder = state_dir(arguments.state_dir, f"say-{os.getpid()}")
    launch = tiny_launch(folder)
    console.print("no server answers here: starting the tiny voice for this sentence")
    try:
        async with serving(launch, folder, arguments.ready_timeout, console, stop):
            yield launch.url
    finally:
        if arguments.state_dir is None:
            shutil.rmtree(folder, ignore_errors=True)


async def _server_here() -> str | None:
    root = state_root()
    recorded = [running_server(folder) for folder in sorted(root.iterdir())] if root.is_dir() else []
    async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
        for url in [*(url for url in recorded if url), DEFAULT_URL]:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"{url}/v1/models")).status_code in (200, 401):
                    return url
    return None


async def _speak(
    client: httpx.AsyncClient, url: str, arguments: argparse.Namespace, output: _Output, console: Console
) -> None:
    order = SpeechOrder(
        text=arguments.text,
        voice=arguments.voice,
        model=arguments.model,
        speed=arguments.speed,
        seed=arguments.seed,
        instructions=arguments.instructions,
    )
    if output.streamed and (output.path is None or output.path.suffix in (".wav", ".pcm")):
        await _stream(client, url, order, output, console)
        return
    assert output.path is not None
    await _save(client, url, order, output, console)


async def _save(client: httpx.AsyncClient, url: str, order: SpeechOrder, output: _Output, console: Console) -> None:
    """One file in its own format; `--stream` with a compressed format streams that format."""
    assert output.path is not None
    response_format = output.path.suffix.lstrip(".").lower()
    extra: dict[str, object] = {"stream": True} if output.streamed else {}
    order = replace(order, response_format=response_format, extra=extra)
    body, delivery = await fetch_speech(client, url, order)
    write_audio(output.path, body)
    line = f"{output.path}: {len(body)} bytes in {delivery.total_seconds:.2f} s"
    if response_format in ("wav", "pcm"):
        seconds = wav_seconds(body) if response_format == "wav" else pcm_seconds(len(body), delivery.sample_rate_hz)
        line = (
            f"{output.path}: {seconds:.2f} s of audio in {delivery.total_seconds:.2f} s "
            f"(RTF {delivery.total_seconds / seconds:.2f})"
        )
    console.print(line, highlight=False, soft_wrap=True)


async def _stream(client: httpx.AsyncClient, url: str, order: SpeechOrder, output: _Output, console: Console) -> None:
    """Raw audio as it comes, into the file, the player or both."""
    order = replace(order, response_format="pcm")
    delivery = Delivery(started=time.perf_counter())
    player: Player | None = None
    kept = bytearray()
    odd = b""
    try:
        async for piece in stream_speech(client, url, order, delivery):
            kept += piece
            if output.player is not None:
                player = player or await Player.start(output.player, delivery.sample_rate_hz)
                whole = odd + piece
                odd = whole[len(whole) & ~1 :]
                await player.write(whole[: len(whole) & ~1])
        if not kept:
            raise SpeechError(f"{url} answered without audio")
        if player is not None:
            await player.finish()
    finally:
        if player is not None:
            await player.stop()
    rate = delivery.sample_rate_hz
    seconds = pcm_seconds(len(kept), rate)
    if output.path is not None:
        write_audio(output.path, bytes(kept) if output.path.suffix == ".pcm" else wav_of(bytes(kept), rate))
    first = delivery.first_audio_seconds or 0.0
    console.print(
        f"{output.path or 'played'}: {seconds:.2f} s of audio, first after {first:.2f} s, "
        f"all after {delivery.total_seconds:.2f} s",
        highlight=False,
        soft_wrap=True,
    )


def wav_of(pcm: bytes, sample_rate_hz: int) -> bytes:
    """A WAV file of signed 16-bit mono PCM."""
    buffer = BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sample_rate_hz)
        writer.writeframes(pcm[: len(pcm) & ~1])
    return buffer.getvalue()


def write_audio(path: Path, body: bytes) -> None:
    """Write the file. Raises UsageError when that is not possible."""
    try:
        path.write_bytes(body)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
