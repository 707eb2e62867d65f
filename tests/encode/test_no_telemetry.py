"""ONNX Runtime must not report to its vendor, nor leave a database in the user's home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ttsfleet_runtime.checkpoint import resolve_model_dir

OPEN_A_NETWORK = """
import sys
from ttsfleet_runtime.encode import prompt
prompt.onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def test_a_process_that_opens_a_network_writes_nothing_in_the_home_folder(tmp_path: Path) -> None:
    network = resolve_model_dir("builtin:tiny-en") / "campplus.onnx"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", OPEN_A_NETWORK, network], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
