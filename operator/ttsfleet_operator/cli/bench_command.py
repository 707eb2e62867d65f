"""`ttsfleet bench`: load on any OpenAI-compatible speech server, with percentiles, a JSON file and a plot."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ttsfleet_operator.bench.load import Load
from ttsfleet_operator.bench.plot import plot_records
from ttsfleet_operator.bench.record import RequestRecord
from ttsfleet_operator.bench.report import PERCENTILES, Distribution, Summary, as_json, summarise
from ttsfleet_operator.bench.runner import Target, run_load
from ttsfleet_operator.bench.texts import SENTENCES
from ttsfleet_operator.cli.options import api_key, positive_count, positive_number
from ttsfleet_operator.errors import UsageError
from ttsfleet_operator.speech import SpeechOrder, api_root, speech_client

DEFAULT_REQUESTS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default %(default)s)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--concurrency", type=positive_count, default=1, help="closed loop: clients (default %(default)s)"
    )
    kind.add_argument("--rate", type=positive_number, help="open loop: mean requests per second, Poisson")
    parser.add_argument("--requests", type=positive_count, help=f"stop after so many (default {DEFAULT_REQUESTS})")
    parser.add_argument("--duration", type=positive_number, help="begin no request after so many seconds")
    parser.add_argument(
        "--warmup", type=int, default=2, help="requests before the clock starts (default %(default)s)"
    )
    parser.add_argument("--no-stream", action="store_true", help="ask for whole WAV files instead of streamed pcm")
    parser.add_argument("--voice", default="heart", help="voice to ask for (default %(default)s)")
    parser.add_argument("--model", default="tts-1", help="model to ask for (default %(default)s)")
    parser.add_argument("--texts", type=Path, help="file with one text per line, instead of the built-in sentences")
    parser.add_argument("--extra", default="{}", help="more request fields as JSON, e.g. '{\"max_tokens\": 125}'")
    parser.add_argument("--seed", type=int, default=0, help="of arrivals and text order (default %(default)s)")
    parser.add_argument("--timeout", type=positive_number, default=300.0, help="seconds per read (default 300)")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--plot", type=Path, help="write a PNG to this file")
    parser.add_argument("--api-key", default="", help="key of the server (else TTSFLEET_API_KEY)")


def execute(arguments: argparse.Namespace) -> int:
    """Exit code 1 when no request succeeded."""
    texts, target, load = _texts(arguments.texts), _target(arguments), _load(arguments)
    console = Console()
    records = asyncio.run(_run(arguments, target, texts, load, console))
    summary = summarise(records)
    print_summary(summary, load, target, console)
    if arguments.json is not None:
        setting: dict[str, object] = {"url": target.url, "stream": target.stream, "load": vars(load)}
        setting |= {"voice": arguments.voice, "model": arguments.model, "extra": target.order.extra}
        _write(arguments.json, json.dumps(as_json(summary, records, setting), indent=1))
    if arguments.plot is not None:
        plot_records(records, f"{target.url}: {load.describe()}", arguments.plot)
    return 0 if summary.succeeded else 1


def _load(arguments: argparse.Namespace) -> Load:
    if arguments.warmup < 0:
        raise UsageError(f"--warmup {arguments.warmup}: must not be negative")
    endless = arguments.requests is None and arguments.duration is None
    return Load(
        concurrency=arguments.concurrency,
        rate=arguments.rate,
        requests=DEFAULT_REQUESTS if endless else arguments.requests,
        duration_seconds=arguments.duration,
        warmup=arguments.warmup,
        seed=arguments.seed,
    )


def _target(arguments: argparse.Namespace) -> Target:
    try:
        extra = json.loads(arguments.extra)
    except ValueError as error:
        raise UsageError(f"--extra is not JSON: {error}") from error
    if not isinstance(extra, dict):
        raise UsageError("--extra must be a JSON object")
    order = SpeechOrder(text="", voice=arguments.voice, model=arguments.model, extra=extra)
    return Target(url=api_root(arguments.url), order=order, stream=not arguments.no_stream)


def _texts(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return SENTENCES
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--texts {path}: {error}") from error
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise UsageError(f"--texts {path}: holds no text")
    return texts


async def _run(
    arguments: argparse.Namespace, target: Target, texts: tuple[str, ...], load: Load, console: Console
) -> list[RequestRecord]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(load.describe(), total=load.requests)
        async with speech_client(api_key(arguments.api_key), arguments.timeout) as client:
            return await run_load(client, target, texts, load, lambda _: progress.advance(task))


def print_summary(summary: Summary, load: Load, target: Target, console: Console) -> None:
    console.print(f"[bold]{target.url}[/bold]: {load.describe()}", highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("", "mean", *(f"p{percent}" for percent in PERCENTILES), "max"):
        table.add_column(column, justify="left" if not column else "right")
    rows: tuple[tuple[str, Distribution | None, float, int], ...] = (
        ("TTFA, ms", summary.first_audio_seconds, 1000.0, 0),
        ("latency, ms", summary.latency_seconds, 1000.0, 0),
        ("RTF", summary.real_time_factor, 1.0, 3),
    )
    for name, values, scale, digits in rows:
        if values is not None:
            numbers = (values.mean, *(values.percentiles[percent] for percent in PERCENTILES), values.maximum)
            table.add_row(name, *(f"{number * scale:.{digits}f}" for number in numbers))
    console.print(table)
    console.print(
        f"{summary.succeeded} of {summary.requests} requests in {summary.wall_seconds:.1f} s: "
        f"[bold]{summary.audio_seconds_per_second:.2f}[/bold] s of audio per second, "
        f"{summary.requests_per_second:.2f} requests/s, {summary.stalled_requests} with a playback stall",
        highlight=False,
        soft_wrap=True,
    )
    for kind, count in summary.errors.items():
        console.print(f"[red]{count} × {kind}[/red]", highlight=False)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
