"""A real runtime for the tests here: `ttsfleet-runtime serve` with the voice that ships, on loopback ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

READY_SECONDS = 120.0
STOP_SECONDS = 60.0


@dataclass
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str
    management: str

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.management}/status").json()
        return answer

    def ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.management}/readyz").status_code == 200
        return False

    def accepts(self) -> bool:
        """Whether a client's connection is taken."""
        url = httpx.URL(self.url)
        with contextlib.suppress(ConnectionError), socket.create_connection((url.host, url.port)):
            return True
        return False

    def pids(self, prefix: str) -> dict[str, int]:
        """Process ids of the children that run and whose identity starts with `prefix`."""
        processes = self.status()["processes"]
        return {name: p["pid"] for name, p in processes.items() if name.startswith(prefix) and p["pid"]}

    def all_ready(self, prefix: str) -> bool:
        """Whether every child whose identity starts with `prefix` is ready."""
        processes = self.status()["processes"]
        return all(p["ready"] for name, p in processes.items() if name.startswith(prefix))

    def pid(self, prefix: str) -> int:
        """Process id of the first child that runs and whose identity starts with `prefix`."""
        return next(iter(self.pids(prefix).values()))

    def gauge(self, name: str) -> float:
        """Sum over processes of a level that stages report. Fails when none does."""
        lines = httpx.get(f"{self.management}/metrics").text.splitlines()
        levels = [line for line in lines if line.startswith("ttsfleet_stage{") and f'gauge="{name}"' in line]
        assert levels, f"no process reports {name}"
        return sum(float(line.rsplit(" ", 1)[1]) for line in levels)

    def speak(self, **values: Any) -> httpx.Response:
        """One short sentence as WAV; `values` change the request."""
        body = {"input": "Rice is often served in round bowls.", "voice": "heart", "response_format": "wav", **values}
        return httpx.post(f"{self.url}/v1/audio/speech", json=body, timeout=120)

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
        """Look every 50 ms until the condition holds; fail with the log's end after the deadline."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {seconds:.0f} s\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> int:
        """SIGTERM and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextlib.contextmanager
def launch(directory: Path, *flags: str) -> Iterator[Service]:
    """Start a service with free ports, ready or not; it is stopped, whatever happens."""
    with socket.create_server(("127.0.0.1", 0)) as api, socket.create_server(("127.0.0.1", 0)) as management:
        ports = api.getsockname()[1], management.getsockname()[1]
    log = directory / "serve.log"
    command = [
        str(Path(sys.executable).with_name("ttsfleet-runtime")), "serve", "--model_dir", "builtin:tiny-en",
        "--device", "cpu", "--host", "127.0.0.1", "--management_host", "127.0.0.1",
        "--port", str(ports[0]), "--management_port", str(ports[1]),
        "--voices_dir", str(directory / "voices"), *flags,
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=dict(os.environ))
    service = Service(process, log, f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}")
    try:
        yield service
    finally:
        service.stop()


@contextlib.contextmanager
def serve(directory: Path, *flags: str) -> Iterator[Service]:
    """Start a service and wait until it is ready."""
    with launch(directory, *flags) as service:
        service.wait_until(service.ready, "the service became ready")
        yield service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the tests of a module."""
    with serve(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services with flags of one's own."""
    with contextlib.ExitStack() as stack:

        def start_service(*flags: str) -> Service:
            return stack.enter_context(serve(tmp_path, *flags))

        yield start_service


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers that decode inside their LLM process; a process counts as stuck after 3 s."""
    flags = ("--workers", "2", "--decode_process_num", "0", "--stage_timeout_seconds", "3")
    with serve(tmp_path_factory.mktemp("pair"), *flags) as running:
        yield running


@pytest.fixture(scope="module")
def two_styles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A random tiny model whose two styles are called plain and calm."""
    directory = tmp_path_factory.mktemp("two_styles")
    runtime, model = Path(sys.executable).with_name("ttsfleet-runtime"), directory / "model"
    subprocess.run([runtime, "make-checkpoint", "--like", "tiny", "--random", "--out", model], check=True)
    shutil.copy(model / "llm.pt", model / "calm.pt")
    styles = ("--styles", "plain=llm.pt,calm=calm.pt")
    with serve(directory, "--model_dir", str(model), "--cache_dir", str(directory / "cache"), *styles) as running:
        yield running


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Service]:
    """A service that has just begun to start: its ports are open, its stages are not ready."""
    with launch(tmp_path) as service:
        service.wait_until(lambda: "API on port" in service.log.read_text(), "the router opened its ports")
        yield service
