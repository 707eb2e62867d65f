"""The runtime on one GPU with a random model of the released size: correct first, then latency and throughput.

    python benchmarks/gpu_baseline.py --goldens DIR --out DIR [--requests 24]

Runs the golden cases on the device, writes a full-size checkpoint, serves it with `--device cuda` in each of the
given configurations, and measures with `ttsfleet bench`: zero-shot with a cached 5 s prompt, 125 tokens (5 s of
audio) a request by `max_tokens` and `ignore_eos`, at each concurrency, streamed and not. Prints one table; the
numbers and the logs go to --out. The packages must be importable; no network is used.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PORT, MANAGEMENT_PORT = 18080, 18081
READY_SECONDS = 100.0
RUNTIME = [sys.executable, "-c", "from ttsfleet_runtime.cli import main; raise SystemExit(main())"]
COMMAND = [sys.executable, "-c", "from ttsfleet_operator.cli import main; raise SystemExit(main())"]
TEXTS = ["The birch canoe slid on the smooth planks.", "Rice is often served in round bowls."]
REQUEST = {"max_tokens": 125, "ignore_eos": True, "mode": "zero_shot"}

console = Console(width=140)


def verify(goldens: Path, out: Path) -> int:
    """The golden cases on the device; the table goes to a file, its last line to the screen."""
    result = subprocess.run(
        [*RUNTIME, "verify", "--goldens", str(goldens), "--model-version", "2", "--device", "cuda"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    (out / "verify.txt").write_text(result.stdout + result.stderr)
    lines = [line for line in result.stdout.splitlines() if "FAILED" in line or "UNKNOWN" in line]
    for line in [*lines[:20], *result.stdout.strip().splitlines()[-1:]]:
        console.print(line, markup=False)
    if result.returncode:
        console.print(result.stderr[-2000:], markup=False)
    return result.returncode


def make_checkpoint(directory: Path) -> None:
    if not (directory / "llm.pt").exists():
        started = time.monotonic()
        command = [*RUNTIME, "make-checkpoint", "--like", "cosyvoice2-0.5b", "--random", "--out", str(directory)]
        subprocess.run(command, check=True)
        console.print(f"checkpoint written in {time.monotonic() - started:.0f} s")


class Serving:
    """`ttsfleet-runtime serve` for the length of a `with`."""

    def __init__(self, checkpoint: Path, out: Path, name: str, flags: list[str]) -> None:
        self._log = out / f"serve-{name}.log"
        self._command = [
            *RUNTIME, "serve", "--model_dir", str(checkpoint), "--device", "cuda", "--host", "127.0.0.1",
            "--port", str(PORT), "--management_port", str(MANAGEMENT_PORT), *flags,
        ]  # fmt: skip

    def __enter__(self) -> Serving:
        started = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=dict(os.environ))
        while not _ready():
            if self._process.poll() is not None or time.monotonic() - started > READY_SECONDS:
                self.__exit__()
                raise SystemExit(f"not ready\n{self._log.read_text()[-5000:]}")
            time.sleep(0.2)
        console.print(f"ready after {time.monotonic() - started:.1f} s")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()


def _ready() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{MANAGEMENT_PORT}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def bench(out: Path, name: str, concurrency: int, stream: bool, requests: int) -> dict[str, Any]:
    """One closed-loop run; the numbers of `ttsfleet bench`."""
    texts = out / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n")
    path = out / f"bench-{name}-c{concurrency}-{'stream' if stream else 'whole'}.json"
    command = [
        *COMMAND, "bench", "--url", f"http://127.0.0.1:{PORT}", "--concurrency", str(concurrency),
        "--requests", str(requests * concurrency), "--warmup", str(3 * concurrency), "--voice", "random",
        "--texts", str(texts), "--extra", json.dumps(REQUEST), "--json", str(path),
        *([] if stream else ["--no-stream"]),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        console.print((result.stdout + result.stderr)[-3000:], markup=False)
    numbers: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goldens", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, default=Path("/tmp/cosyvoice2-random-0.5b"))
    parser.add_argument("--requests", type=int, default=8, help="per client")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--configuration",
        action="append",
        metavar="NAME=FLAGS",
        help="flags of `serve`, e.g. 'eager=--disable_cudagraph true'",
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    status = verify(arguments.goldens, arguments.out)
    make_checkpoint(arguments.checkpoint)
    rows: list[tuple[str, int, bool, dict[str, Any]]] = []
    for configuration in arguments.configuration or ["default="]:
        name, _, flags = configuration.partition("=")
        with Serving(arguments.checkpoint, arguments.out, name, flags.split()):
            for concurrency in arguments.concurrency:
                for stream in (True, False):
                    numbers = bench(arguments.out, name, concurrency, stream, arguments.requests)
                    rows.append((name, concurrency, stream, numbers))
    _print(rows)
    return status


def _print(rows: list[tuple[str, int, bool, dict[str, Any]]]) -> None:
    table = Table(
        "configuration", "clients", "mode", "TTFA p50/p95 ms", "latency p50/p95 ms", "RTF p50", "audio-s/s", "ok"
    )
    for name, concurrency, stream, numbers in rows:
        summary = numbers.get("summary", {})
        table.add_row(
            name,
            str(concurrency),
            "stream" if stream else "whole",
            _milliseconds(summary.get("first_audio_seconds")),
            _milliseconds(summary.get("latency_seconds")),
            f"{_percentile(summary.get('real_time_factor'), 50):.3f}",
            f"{summary.get('audio_seconds_per_second', 0):.1f}",
            f"{summary.get('succeeded')}/{summary.get('requests')}",
        )
    console.print(table)


def _percentile(distribution: dict[str, Any] | None, percent: int) -> float:
    return float("nan") if distribution is None else float(distribution["percentiles"][str(percent)])


def _milliseconds(distribution: dict[str, Any] | None) -> str:
    return " / ".join(f"{1000 * _percentile(distribution, percent):.0f}" for percent in (50, 95))


if __name__ == "__main__":
    raise SystemExit(main())
