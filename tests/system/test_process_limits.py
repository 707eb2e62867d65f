"""The limits that `serve` raises, in processes of their own: a hard limit that was lowered cannot be raised again."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

UNLIMITED = resource.RLIM_INFINITY
MEBIBYTE = 1 << 20
PROGRAM = """
import json, resource, sys
number, soft, hard = (int(word) for word in sys.argv[1:])
resource.setrlimit(number, (soft, hard))
from ttsfleet_runtime.process_limits import raise_soft_limits
notes = {note.field: [note.asked, note.effective, note.reason] for note in raise_soft_limits()}
print(json.dumps([resource.getrlimit(number), notes]))
"""


def raised(number: int, soft: int, hard: int) -> tuple[list[int], dict[str, list[str]]]:
    """(soft, hard) afterwards, and the notes by field."""
    words = [str(word) for word in (number, soft, hard)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=60, check=True
    )
    limits, notes = json.loads(done.stdout)
    return limits, notes


@pytest.mark.parametrize(
    ("name", "number", "soft", "hard", "expected"),
    [
        pytest.param("nofile", resource.RLIMIT_NOFILE, 256, 4096, 4096, id="open files up to the hard limit"),
        pytest.param("memlock", resource.RLIMIT_MEMLOCK, 4096, MEBIBYTE, MEBIBYTE, id="locked memory up to it"),
        pytest.param("stack", resource.RLIMIT_STACK, 8 * MEBIBYTE, 16 * MEBIBYTE, 16 * MEBIBYTE, id="a small stack"),
    ],
)
def test_soft_limits_reach_the_hard_ones_and_low_ones_are_told(
    name: str, number: int, soft: int, hard: int, expected: int
) -> None:
    limits, notes = raised(number, soft, hard)
    assert limits == [expected, hard]
    assert notes[f"ulimit.{name}"][1] == str(hard)
    assert f"--ulimit {name}=" in notes[f"ulimit.{name}"][2]


def test_a_stack_is_not_raised_beyond_the_guides_size_nor_lowered() -> None:
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    if hard != UNLIMITED:
        pytest.skip("the hard limit of the stack is lower here; run it where `ulimit -Hs` says unlimited")
    limits, notes = raised(resource.RLIMIT_STACK, 8 * MEBIBYTE, UNLIMITED)
    assert limits == [64 * MEBIBYTE, UNLIMITED]
    assert "ulimit.stack" not in notes
    assert raised(resource.RLIMIT_STACK, 128 * MEBIBYTE, UNLIMITED)[0] == [128 * MEBIBYTE, UNLIMITED]


def test_stages_have_the_raised_limits_and_the_status_tells_the_low_ones(service: Any) -> None:
    lines = Path(f"/proc/{service.pid('llm')}/limits").read_text().splitlines()
    soft, hard = next(line for line in lines if line.startswith("Max open files")).split()[3:5]
    assert soft == hard
    told = {note["field"]: note["effective"] for note in service.status()["notes"]}
    low = hard != "unlimited" and int(hard) < 65536
    assert told.get("ulimit.nofile") == (hard if low else None)
