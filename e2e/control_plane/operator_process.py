"""The operator as a process of its own, as its image starts it, against a kubeconfig."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane import scratch
from control_plane.processes import free_ports, guarded
from control_plane.waiting import eventually

FOLDER = Path(__file__).resolve().parents[2]


@contextmanager
def leading(operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """The operator, ready and the leader; stopped after the block. A traceback in its log is an error."""
    try:
        operator.wait_ready()
        operator.wait_leader()
        yield operator
    finally:
        log = operator.log()
        operator.stop()
    assert "Traceback" not in log, log


class OperatorProcess:
    """Running from its making to `stop`. Settings are the operator's environment variables without their prefix.

    It ends with the thread that made it, which so has to be one that lasts.
    """

    def __init__(self, kubeconfig: Path, name: str = "operator-1", **settings: str) -> None:
        self.port, health = free_ports(2)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{scratch.prefix()}{name}-"))
        given = {
            "METRICS_ADDRESS": f"127.0.0.1:{self.port}",
            "HEALTH_ADDRESS": f"127.0.0.1:{health}",
            "NAMESPACE": "default",
            "LOG_FORMAT": "text",
            **settings,
        }
        environment = {
            **os.environ,
            **{f"TTSFLEET_{key}": value for key, value in given.items()},
            "KUBECONFIG": str(kubeconfig),
            "POD_NAME": name,
            # The client keeps certificates in temporary files, which stay where a process is killed.
            "TMPDIR": str(self._folder),
        }
        self._last_log = ""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*guarded(), sys.executable, "-m", "ttsfleet_operator.operator_main"],
                env=environment,
                cwd=FOLDER,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def _log(self) -> Path:
        return self._folder / "operator.log"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        """Everything that it has written; also after its end."""
        if not self._log.exists():
            return self._last_log
        return self._log.read_text(encoding="utf-8", errors="replace")

    def answer(self, path: str) -> tuple[int, str]:
        """Status and text of one of its HTTP endpoints; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """The sum over the labels of a metric; 0 when it has no value."""
        lines = self.answer("/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def wait_ready(self, within: float = 60) -> None:
        """Returns when /readyz says so."""
        eventually(lambda: self.running and self.answer("/readyz")[0] == 200, "the operator is ready", within)

    def wait_leader(self, within: float = 60) -> None:
        eventually(lambda: self.metric("ttsfleet_leader") == 1, "the operator leads", within)

    def wait_end(self, within: float = 60) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait(timeout=within)

    def kill(self) -> None:
        """SIGKILL: nothing is given back."""
        self._process.kill()
        self._process.wait(timeout=30)

    def stop(self) -> None:
        """An orderly end, or a kill after 20 s; it can be called twice. Its files are removed."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()
        self._last_log = self.log()
        shutil.rmtree(self._folder, ignore_errors=True)
