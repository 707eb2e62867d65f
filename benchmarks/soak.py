"""Soak: many mixed requests at a service of its own, then nothing may be left behind.

    .venv/bin/python benchmarks/soak.py [--requests 1000] [--concurrency 16]

The mix: texts of log-uniform 1 to 400 characters, half of them streamed, 10 % of the clients leave midway, 5 % of
the requests are invalid. Every request must be answered as its kind demands (speech, a 4xx with a message, or a
connection that the client itself closed). Afterwards the service must hold no request, no running sequence and no KV
block beyond its reusable prefixes, no unpinned voice in use, no additional process or file handle.
Traffic goes to loopback only. Exit 1 when something is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import Progress

_VOCABULARY = (
    "the of and a river walks under old stone bridge while seven children carry bread to market morning "
    "light falls on quiet houses someone sings about winter roads and ships that never came home again tomorrow"
)
WORDS = _VOCABULARY.split()
READY_SECONDS = 120.0
SETTLE_SECONDS = 30.0

console = Console()


def text_of(rng: random.Random, num_characters: int) -> str:
    """Words up to about this many characters, at least one letter, ending with a full stop."""
    words = ""
    while len(words) < num_characters:
        words += rng.choice(WORDS) + " "
    return (words[: max(num_characters - 1, 1)].strip() or "a") + "."


def request_of(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """(kind, body): kind is "whole", "stream", "leave" or "invalid"."""
    length = round(math.exp(rng.uniform(0, math.log(400))))
    body: dict[str, Any] = {
        "input": text_of(rng, length),
        "voice": rng.choice(["heart", "rms", "pico_us", "pico_gb"]),
        "mode": rng.choice(["sft", "zero_shot"]),
        "seed": rng.randrange(1 << 31),
        "response_format": rng.choice(["mp3", "wav", "opus", "flac"]),
    }
    draw = rng.random()
    if draw < 0.05:
        wrong = [{"input": ""}, {"voice": "nobody"}, {"speed": 40}, {"input": "x" * 5000}, {"mode": "shout"}]
        return "invalid", {**body, **rng.choice(wrong)}
    if draw < 0.15:
        return "leave", {**body, "response_format": "pcm"}
    if draw < 0.55:
        return "stream", {**body, "response_format": "pcm"}
    return "whole", body


async def send(client: httpx.AsyncClient, kind: str, body: dict[str, Any], rng: random.Random) -> str:
    """One request; returns its outcome. Raises what the client library raises."""
    async with client.stream("POST", "/v1/audio/speech", json=body) as response:
        if response.status_code != 200:
            answer = json.loads(await response.aread())
            assert answer["error"]["message"], answer
            return f"status {response.status_code}"
        received = 0
        leave_after = rng.choice([0, 1, 20000])
        async for chunk in response.aiter_bytes():
            received += len(chunk)
            if kind == "leave" and received >= leave_after:
                return "left"
        return "spoke" if received > 100 else "empty"


EXPECTED = {
    "whole": {"spoke"},
    "stream": {"spoke"},
    "leave": {"left", "spoke"},
    "invalid": {"status 400", "status 404"},
}


async def load(url: str, num_requests: int, concurrency: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Send the mix; returns outcomes and the unexpected ones."""
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    limits = asyncio.Semaphore(concurrency)
    with Progress(console=console) as progress:
        task = progress.add_task(f"{num_requests} requests at concurrency {concurrency}", total=num_requests)
        async with httpx.AsyncClient(
            base_url=url, timeout=300, limits=httpx.Limits(max_connections=concurrency)
        ) as client:

            async def one(index: int) -> None:
                rng = random.Random(seed * 1_000_003 + index)
                kind, body = request_of(rng)
                async with limits:
                    try:
                        outcome = await send(client, kind, body, rng)
                    except (httpx.HTTPError, AssertionError, ValueError) as error:
                        outcome = f"{type(error).__name__}: {error}"
                outcomes[f"{kind}: {outcome}"] += 1
                if outcome not in EXPECTED[kind]:
                    wrong.append(f"request {index} ({kind}, {body['input'][:40]!r}): {outcome}")
                progress.advance(task)

            await asyncio.gather(*(one(index) for index in range(num_requests)))
    return outcomes, wrong


def descendants(pid: int) -> list[int]:
    """The process and all its children, by /proc."""
    found = [pid]
    for parent in found:
        children = Path(f"/proc/{parent}/task/{parent}/children")
        found += [int(child) for child in children.read_text().split()] if children.exists() else []
    return found


def handles(pids: list[int]) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def gauges(management: str) -> dict[str, float]:
    """Sum over processes of each stage gauge."""
    totals: dict[str, float] = {}
    for line in httpx.get(f"{management}/metrics").text.splitlines():
        if line.startswith("ttsfleet_stage{"):
            labels, value = line.rsplit(" ", 1)
            name = labels.split('gauge="')[1].split('"')[0]
            totals[name] = totals.get(name, 0.0) + float(value)
    return totals


def leftovers(management: str) -> list[str]:
    """What the service still holds; empty = nothing."""
    status = httpx.get(f"{management}/status").json()
    problems = []
    if status["requests_in_flight"]:
        problems.append(f"{status['requests_in_flight']} requests in flight")
    levels = gauges(management)
    for name in ("waiting", "running", "queue_depth", "active_jobs", "segments", "kv_blocks_used"):
        if levels.get(name):
            problems.append(f"{name} = {levels[name]:.0f}")
    return problems


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_ready(process: subprocess.Popen[bytes], management: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{management}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the service did not become ready")


def soak(arguments: argparse.Namespace, directory: Path) -> int:
    """Start, load, look, stop."""
    port, management_port = free_port(), free_port()
    url, management = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{management_port}"
    command = [
        str(Path(sys.executable).with_name("ttsfleet-runtime")), "serve", "--model_dir", "builtin:tiny-en",
        "--host", "127.0.0.1", "--port", str(port), "--management_port", str(management_port),
        "--voices_dir", str(directory / "voices"),
    ]  # fmt: skip
    with (directory / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_ready(process, management)
        asyncio.run(load(url, arguments.concurrency * 2, arguments.concurrency, seed=1))  # caches and pools fill
        before = descendants(process.pid)
        handles_before = handles(before)
        started = time.monotonic()
        outcomes, wrong = asyncio.run(load(url, arguments.requests, arguments.concurrency, seed=0))
        seconds = time.monotonic() - started
        deadline = time.monotonic() + SETTLE_SECONDS
        while leftovers(management) and time.monotonic() < deadline:
            time.sleep(0.2)
        wrong += leftovers(management)
        after = descendants(process.pid)
        if len(after) != len(before):
            wrong.append(f"{len(before)} processes before, {len(after)} after")
        if handles(after) > handles_before + arguments.handle_slack:
            wrong.append(f"{handles_before} file handles before, {handles(after)} after")
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        if code != 0:
            wrong.append(f"exit status {code} on SIGTERM")
    finally:
        if process.poll() is None:
            process.kill()
    for outcome, count in sorted(outcomes.items()):
        console.print(f"{count:6d}  {outcome}")
    console.print(f"{arguments.requests} requests in {seconds:.0f} s; file handles {handles_before} before")
    for problem in wrong[:20]:
        console.print(f"[red]{problem}[/red]")
    console.print("[red]failed[/red]" if wrong else "[green]every request was answered, nothing is left[/green]")
    if wrong:
        console.print((directory / "serve.log").read_text()[-3000:], markup=False)
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--handle-slack", type=int, default=24, help="pooled keep-alive connections may differ")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        return soak(arguments, Path(directory))


if __name__ == "__main__":
    raise SystemExit(main())
