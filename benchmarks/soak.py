"""Soak: many mixed requests at a service of its own, then nothing may be left behind.

    .venv/bin/python benchmarks/soak.py [--requests 1000] [--concurrency 16]

The mix: texts of log-uniform 1 to 400 characters, half of them streamed, 10 % of the clients leave midway, 5 % of
the requests are invalid. Every request must be answered as its kind demands (speech, a 4xx with a message, or a
connection that the client itself closed). Afterwards the service must hold no request, no running sequence, no KV
block beyond its reusable prefixes, no voice in use, no additional process or file handle and little more memory than
after the warm-up; and when it has stopped, no run directory.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

_VOCABULARY = (
    "the of and a river walks under old stone bridge while seven children carry bread to market morning "
    "light falls on quiet houses someone sings about winter roads and ships that never came home again tomorrow"
)
WORDS = _VOCABULARY.split()
READY_SECONDS = 120.0
SETTLE_SECONDS = 30.0
REST_SECONDS = 12.0  # a resting stage gives unused heap back after 10
IDLE_GAUGES = (
    "http_requests",
    "http_streams",
    "encode_queue_depth",
    "encode_in_flight",
    "llm_waiting",
    "llm_running",
    "llm_kv_blocks_used",
    "decode_queue_depth",
    "decode_active",
    "decode_waiting_for_tokens",
)
"""Must be told, and be 0 without requests. The used KV blocks are those that sequences hold: published prefixes that
nobody reads do not count among them."""

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
        wrong: list[dict[str, Any]] = [
            {"input": ""},
            {"voice": "nobody"},
            {"speed": 40},
            {"input": "x" * 5000},
            {"mode": "shout"},
        ]
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


@dataclass(frozen=True)
class Footprint:
    """What the service takes of the machine: open handles in all, resident MiB by process."""

    handles: int
    resident_mib: dict[str, float]

    @property
    def total_mib(self) -> float:
        return sum(self.resident_mib.values())


def descendants(pid: int) -> list[int]:
    """The process and all its children, by /proc."""
    found = [pid]
    for parent in found:
        children = Path(f"/proc/{parent}/task/{parent}/children")
        found += [int(child) for child in children.read_text().split()] if children.exists() else []
    return found


def argument_of(pid: int, name: str) -> str | None:
    """The value after `name` on a process's command line."""
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return arguments[arguments.index(name) + 1] if name in arguments else None


def footprint(pid: int) -> Footprint:
    pids = descendants(pid)
    page_mib = os.sysconf("SC_PAGE_SIZE") / 2**20
    resident = {}
    for each in pids:
        pages = int(Path(f"/proc/{each}/statm").read_text().split()[1])
        resident[argument_of(each, "--identity") or ("router" if each == pid else str(each))] = pages * page_mib
    return Footprint(sum(len(os.listdir(f"/proc/{each}/fd")) for each in pids), resident)


def growth(before: Footprint, after: Footprint, arguments: argparse.Namespace) -> list[str]:
    """Print what changed; returns what changed too much."""
    table = Table("process", "MiB after warm-up", "MiB at the end", "growth", title="resident memory")
    rows = {name: (before.resident_mib.get(name), mib) for name, mib in after.resident_mib.items()}
    for name, (old, new) in {**rows, "all": (before.total_mib, after.total_mib)}.items():
        table.add_row(name, f"{old:.0f}" if old else "-", f"{new:.0f}", f"{new / old - 1:+.1%}" if old else "new")
    console.print(table)
    console.print(f"file handles: {before.handles} after warm-up, {after.handles} at the end")
    problems = []
    if before.resident_mib.keys() != after.resident_mib.keys():
        problems.append(f"processes {sorted(before.resident_mib)} before, {sorted(after.resident_mib)} after")
    if after.handles > before.handles + arguments.handle_slack:
        problems.append(f"{before.handles} file handles before, {after.handles} after")
    if after.total_mib > before.total_mib * (1 + arguments.memory_slack):
        problems.append(f"resident memory grew from {before.total_mib:.0f} to {after.total_mib:.0f} MiB")
    return problems


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
    """What the service still holds; empty = nothing. A level that the service does not tell is a problem too."""
    status, levels = httpx.get(f"{management}/status").json(), gauges(management)
    held = {name: status.get(name) for name in ("requests_in_flight", "voice_users")}
    held |= {name: levels.get(name) for name in IDLE_GAUGES}
    return [f"{name} is {'absent' if level is None else level}" for name, level in held.items() if level != 0]


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


def start_service(directory: Path) -> tuple[subprocess.Popen[bytes], str, str]:
    """(process, API, management API) of a service of our own; its log goes to the directory."""
    port, management_port = free_port(), free_port()
    command = [
        str(Path(sys.executable).with_name("ttsfleet-runtime")), "serve", "--model_dir", "builtin:tiny-en",
        "--host", "127.0.0.1", "--port", str(port), "--management_port", str(management_port),
        "--voices_dir", str(directory / "voices"),
    ]  # fmt: skip
    with (directory / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    return process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{management_port}"


def settle(management: str) -> list[str]:
    """What is left once nothing more goes away, or the deadline has passed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := leftovers(management)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def stop(process: subprocess.Popen[bytes]) -> list[str]:
    """SIGTERM; the service must exit 0 and leave no run directory."""
    run_dirs = {argument_of(pid, "--run-dir") for pid in descendants(process.pid)} - {None}
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    problems = [f"exit status {code} on SIGTERM"] if code else []
    return problems + [f"{path} still exists" for path in run_dirs if path and Path(path).exists()]


def soak(arguments: argparse.Namespace, directory: Path) -> int:
    """Start, load, look, stop."""
    process, url, management = start_service(directory)
    try:
        wait_ready(process, management)
        asyncio.run(load(url, arguments.warmup, arguments.concurrency, seed=1))  # caches and pools fill
        settle(management)
        time.sleep(REST_SECONDS)
        before = footprint(process.pid)
        started = time.monotonic()
        outcomes, wrong = asyncio.run(load(url, arguments.requests, arguments.concurrency, seed=0))
        seconds = time.monotonic() - started
        wrong += settle(management)
        time.sleep(REST_SECONDS)
        wrong += growth(before, footprint(process.pid), arguments)
        wrong += stop(process)
    finally:
        if process.poll() is None:
            process.kill()
    for outcome, count in sorted(outcomes.items()):
        console.print(f"{count:6d}  {outcome}", markup=False)
    console.print(f"{arguments.requests} requests in {seconds:.0f} s")
    for problem in wrong[:20]:
        console.print(problem, style="red", markup=False)
    console.print("[red]failed[/red]" if wrong else "[green]every request was answered, nothing is left[/green]")
    if wrong:
        console.print((directory / "serve.log").read_text()[-3000:], markup=False)
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--warmup", type=int, default=64, help="requests before the first look at memory")
    parser.add_argument("--handle-slack", type=int, default=8, help="file handles that may come on top")
    parser.add_argument("--memory-slack", type=float, default=0.15, help="allowed growth of resident memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        return soak(arguments, Path(directory))


if __name__ == "__main__":
    raise SystemExit(main())
