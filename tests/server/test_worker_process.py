"""The HTTP process as the router starts it: hello, drain, retirement, and what its end does to running streams."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from ttsfleet_runtime.config.plan import EnginePlan, write_plan
from ttsfleet_runtime.messages import Heartbeat, Hello, Retiring, SegmentConsumed, Shutdown, SpeechRequest
from ttsfleet_runtime.server.worker import retire_after

EXIT_SECONDS = 15.0
MAX_BEATS = 5


class Workers:
    """Starts worker processes that share one listening socket, as the router does."""

    def __init__(self, router: Any, run_dir: Path, model: Any) -> None:
        self.router = router
        self.run_dir = run_dir
        (run_dir / "bundle.json").write_bytes(msgspec.json.encode(model))
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, number: int = 0, **server: Any) -> subprocess.Popen[bytes]:
        """Start `http-<number>` and wait for its hello."""
        plan_path = self.run_dir / f"plan-{number}.json"
        write_plan(EnginePlan.model_validate({"model_dir": "/nowhere", "server": server}), plan_path)
        arguments = {
            "--identity": f"http-{number}",
            "--run-dir": str(self.run_dir),
            "--plan": str(plan_path),
            "--bundle": str(self.run_dir),
            "--fd": str(self.listening.fileno()),
            "--parent": str(os.getpid()),
        }
        command = [
            sys.executable,
            "-m",
            "ttsfleet_runtime.server.worker",
            *(x for kv in arguments.items() for x in kv),
        ]
        process = subprocess.Popen(command, pass_fds=[self.listening.fileno()])
        self.processes.append(process)
        self.router.wait_for(Hello, len(self.processes))
        return process

    def speak(self, text: str = "Hello.", **fields: Any) -> httpx.Response:
        body = {"input": text, "voice": "heart", "response_format": "pcm", **fields}
        return httpx.post(f"{self.url}/v1/audio/speech", json=body, timeout=20)

    def speak_in_background(self, text: str, **fields: Any) -> Callable[[], httpx.Response]:
        """Start a request; call the result for its answer."""
        answers: list[Any] = []

        def run() -> None:
            try:
                answers.append(self.speak(text, **fields))
            except httpx.HTTPError as error:
                answers.append(error)

        thread = threading.Thread(target=run)
        thread.start()

        def join() -> httpx.Response:
            thread.join(EXIT_SECONDS)
            if isinstance(answers[0], Exception):
                raise answers[0]
            return answers[0]

        return join

    def close(self) -> None:
        self.listening.close()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def workers(fake_router: Any, run_dir: Path, model: Any) -> Iterator[Workers]:
    instance = Workers(fake_router, run_dir, model)
    yield instance
    instance.close()


def half(router: Any, request: Any) -> None:
    """The first of two chunks."""
    router.chunk(request, 0, 0, num_segments=1, num_chunks=2)


def send_the_rest(workers: Workers, request: SpeechRequest) -> None:
    workers.router.do(lambda: workers.router.chunk(request, 0, 1, num_segments=1, num_chunks=2))


def ask_to_stop(workers: Workers, process: subprocess.Popen[bytes], how: str) -> None:
    if how == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    else:
        workers.router.do(lambda: workers.router.send("http-0", Shutdown()))


@pytest.mark.parametrize("how", ["SIGTERM", "Shutdown"])
def test_a_running_stream_ends_before_the_process_does(workers: Workers, how: str) -> None:
    process = workers.start()
    workers.router.behaviours["Half."] = half
    answer = workers.speak_in_background("Half.")
    request = workers.router.wait_for(SpeechRequest)
    workers.router.wait_for(SegmentConsumed)
    ask_to_stop(workers, process, how)
    # Ctrl-C reaches the whole process group and must not hurry a worker.
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.7)
    send_the_rest(workers, request)
    assert len(answer().content) == 2 * 4800 * 2
    assert process.wait(EXIT_SECONDS) == 0


def test_what_outlives_the_drain_gets_an_error_and_the_process_still_exits_0(workers: Workers) -> None:
    process = workers.start(drain_seconds=0.5)
    workers.router.behaviours.update({"Half.": half, "Silent.": lambda router, request: None})
    events = workers.speak_in_background("Half.", stream_format="sse")
    raw = workers.speak_in_background("Half.")
    waiting = workers.speak_in_background("Silent.")
    workers.router.wait_for(SpeechRequest, 3)
    workers.router.wait_for(SegmentConsumed, 2)
    ask_to_stop(workers, process, "SIGTERM")
    assert process.wait(EXIT_SECONDS) == 0
    assert "event: error" in events().text
    assert "shutting down" in events().text
    with pytest.raises(httpx.RemoteProtocolError):
        raw()
    assert waiting().status_code == 503


def test_an_idle_kept_alive_connection_does_not_hold_up_a_shutdown(workers: Workers) -> None:
    process = workers.start()
    with httpx.Client(base_url=workers.url) as client:
        assert client.get("/health").status_code == 200
        ask_to_stop(workers, process, "Shutdown")
        assert process.wait(5) == 0


def test_recycling_cuts_no_stream_and_refuses_no_request(workers: Workers) -> None:
    old = workers.start(0, max_requests=2, max_requests_jitter=0, keepalive=1)
    workers.router.behaviours["Half."] = half
    stream = workers.speak_in_background("Half.")
    request = workers.router.wait_for(SpeechRequest)
    for _ in range(2):
        assert workers.speak().status_code == 200
    assert workers.router.wait_for(Retiring).identity == "http-0"
    # Nobody else listens yet, so the retiring process goes on.
    assert workers.speak().status_code == 200
    workers.start(1)
    with httpx.Client(base_url=workers.url) as client:
        for _ in range(40):
            body = {"input": "Hello.", "voice": "heart"}
            assert client.post("/v1/audio/speech", json=body).status_code == 200
    with pytest.raises(subprocess.TimeoutExpired):
        old.wait(0.5)
    send_the_rest(workers, request)
    assert len(stream().content) == 2 * 4800 * 2
    assert old.wait(EXIT_SECONDS) == 0
    assert workers.router.count(Retiring) == 1
    assert workers.speak().status_code == 200


def test_a_worker_that_gets_sigterm_asks_for_its_successor(workers: Workers) -> None:
    process = workers.start()
    process.send_signal(signal.SIGTERM)
    assert workers.router.wait_for(Retiring).identity == "http-0"
    assert process.wait(EXIT_SECONDS) == 0


def test_a_worker_reports_its_load_with_every_heartbeat(workers: Workers) -> None:
    process = workers.start()
    workers.router.behaviours["Half."] = half
    answer = workers.speak_in_background("Half.")
    request = workers.router.wait_for(SpeechRequest)
    for _ in range(MAX_BEATS):
        heartbeat = workers.router.wait_for(Heartbeat, workers.router.count(Heartbeat) + 1)
        levels = {gauge.name: gauge.value for gauge in heartbeat.gauges}
        if levels["http_streams"]:
            break
    assert (heartbeat.identity, heartbeat.pid) == ("http-0", process.pid)
    assert levels == {"http_requests": 1, "http_streams": 1}
    send_the_rest(workers, request)
    assert answer().status_code == 200


def test_a_worker_whose_parent_is_gone_does_not_start(workers: Workers) -> None:
    command = [sys.executable, "-m", "ttsfleet_runtime.server.worker", "--parent", "1", "--fd", "0"]
    command += ["--identity", "x", "--run-dir", "/", "--plan", "/", "--bundle", "/"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode != 0
    assert "parent process 1 is gone" in finished.stderr


def test_max_requests_zero_never_retires_and_jitter_spreads() -> None:
    assert retire_after(0, 100) is None
    assert {retire_after(10, 2) for _ in range(200)} == {10, 11, 12}


def test_the_http_process_imports_no_torch() -> None:
    code = "import sys, ttsfleet_runtime.server.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
