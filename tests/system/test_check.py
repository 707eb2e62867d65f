"""`ttsfleet check`, which is what `helm test` runs in a pod, against a runtime that speaks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TTSFLEET = Path(sys.executable).with_name("ttsfleet")


def check(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([TTSFLEET, "check", "--url", url, *words], capture_output=True, text=True, timeout=120)


def test_runtime_that_speaks_passes_and_is_measured(service: Any) -> None:
    checked = check(service.url)
    assert checked.returncode == 0, checked.stderr
    assert "voices heart, " in checked.stdout
    measured = re.search(r"([\d.]+) s at 24000 Hz, level (-[\d.]+) dBFS, (\d+)% of it sounding", checked.stdout)
    assert measured is not None, checked.stdout
    assert 1.0 < float(measured[1]) < 5.0
    assert -40.0 < float(measured[2]) < -10.0
    assert int(measured[3]) > 50


def test_unknown_voice_is_refused_in_the_runtimes_words(service: Any) -> None:
    checked = check(service.url, "--voice", "nobody")
    assert checked.returncode == 1
    assert "the server answered 404" in checked.stderr
    assert "nobody" in checked.stderr


def test_key_of_a_mounted_secret_opens_the_service(start: Callable[..., Any], tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret\n")
    service = start("--api_key_file", str(key))
    assert check(service.url, "--api-key-file", str(key)).returncode == 0
    refused = check(service.url)
    assert refused.returncode == 1
    assert "wants an API key (401)" in refused.stderr
