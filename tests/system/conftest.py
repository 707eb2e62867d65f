"""A real runtime for the tests here: `ttsfleet-runtime serve` with the voice that ships, on loopback ports."""

from __future__ import annotations

import contextlib
import os
import signal
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

    def pid(self, prefix: str) -> int:
        """Process id of the first child whose identity starts with `prefix`."""
        processes = self.status()["processes"]
        pid: int = next(p["pid"] for identity, p in processes.items() if identity.startswith(prefix))
        return pid

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
def serve(directory: Path, *flags: str) -> Iterator[Service]:
    """Start a service with free ports; it is stopped, whatever happens."""
    import socket

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
        service.wait_until(service.ready, "the service became ready")
        yield service
    finally:
        service.stop()


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
