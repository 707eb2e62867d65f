"""`ttsfleet demo`: from nothing to audible speech, with numbers. Serve the tiny voice, speak twice, stop."""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from rich.console import Console

from ttsfleet_operator.cli.options import add_start_arguments, api_key, state_dir
from ttsfleet_operator.cli.run_command import describe
from ttsfleet_operator.cli.say_command import write_audio
from ttsfleet_operator.cli.serving import StopRequests, serving, until_stopped
from ttsfleet_operator.cli.tiny_launch import tiny_launch
from ttsfleet_operator.errors import SpeechError
from ttsfleet_operator.speech import Delivery, SpeechOrder, fetch_speech, speech_client, stream_speech, wav_seconds

TEXT = "Hello. You hear a small voice that was made on this machine just now, with no network and no graphics card."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", default=TEXT, help="what to say")
    parser.add_argument("--voice", default="heart", help="heart, rms, pico_us or pico_gb (default %(default)s)")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("demo.wav"), help="file to write (default %(default)s)"
    )
    add_start_arguments(parser)


@dataclass(frozen=True)
class _Result:
    audio_seconds: float
    latency_seconds: float
    first_audio_seconds: float


def execute(arguments: argparse.Namespace) -> int:
    return asyncio.run(_demo(arguments, Console()))


async def _demo(arguments: argparse.Namespace, console: Console) -> int:
    folder = state_dir(arguments.state_dir, "demo")
    launch = tiny_launch(folder)
    describe(launch, console)
    stop = StopRequests()
    stop.install()
    began = time.monotonic()
    try:
        async with serving(launch, folder, arguments.ready_timeout, console, stop):
            console.print(f"[bold green]ready[/bold green] after {time.monotonic() - began:.1f} s", highlight=False)
            order = SpeechOrder(text=arguments.text, voice=arguments.voice, seed=0)
            result = await until_stopped(_speak(launch.url, order, arguments.output, console), stop)
            _tell(arguments, result, console)
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    except httpx.HTTPError as error:
        raise SpeechError(f"the server did not answer: {error or type(error).__name__}") from error
    finally:
        stop.remove()
    return 0


async def _speak(url: str, order: SpeechOrder, path: Path, console: Console) -> _Result:
    """Once whole, into the file; once streamed, for the time to the first audio."""
    async with speech_client(api_key("")) as client:
        console.print("speaking …")
        body, delivery = await fetch_speech(client, url, order)
        write_audio(path, body)
        console.print("speaking again, streamed …")
        streamed = Delivery(started=time.perf_counter())
        async for _ in stream_speech(client, url, replace(order, response_format="pcm"), streamed):
            pass
        if streamed.first_audio_seconds is None:
            raise SpeechError("the streamed answer was empty")
    return _Result(wav_seconds(body), delivery.total_seconds, streamed.first_audio_seconds)


def _tell(arguments: argparse.Namespace, result: _Result, console: Console) -> None:
    console.print(f"said   “{arguments.text}” (voice {arguments.voice})", highlight=False, soft_wrap=True)
    console.print(f"audio  {result.audio_seconds:.2f} s in {arguments.output}", highlight=False, soft_wrap=True)
    rtf = result.latency_seconds / result.audio_seconds if result.audio_seconds else 0.0
    console.print(f"RTF    {rtf:.2f}: made in {result.latency_seconds:.2f} s", highlight=False)
    console.print(f"TTFA   {result.first_audio_seconds:.2f} s to the first audio, streamed", highlight=False)
