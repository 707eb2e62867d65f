"""A process stays on its CPUs and takes its memory from its NUMA node. Each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(code: str) -> subprocess.CompletedProcess[str]:
    program = f"from ttsfleet_runtime.placement import place_process\n{code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_process_is_pinned_to_its_cpus() -> None:
    cpu = max(os.sched_getaffinity(0))
    answer = run(f"import os\nplace_process(({cpu},), None)\nprint(os.sched_getaffinity(0))")
    assert answer.stdout.strip() == f"{{{cpu}}}"


def test_nothing_asked_changes_nothing() -> None:
    code = "import os\nbefore = os.sched_getaffinity(0)\nplace_process((), None)\n"
    answer = run(code + "print(before == os.sched_getaffinity(0))")
    assert answer.stdout.strip() == "True"


def test_cpu_that_is_not_there_is_refused_with_those_that_are() -> None:
    answer = run("place_process((8000,), None)")
    assert "cpu_affinity 8000" in answer.stderr
    assert "this process may use" in answer.stderr


@pytest.mark.skipif(not Path("/proc/self/numa_maps").exists(), reason="this kernel was built without NUMA")
def test_memory_is_bound_to_the_node() -> None:
    answer = run("place_process((), 0)\nprint(open('/proc/self/numa_maps').read().count(' bind:0 ') > 0)")
    if "the kernel refuses: Operation not permitted" in answer.stderr:
        pytest.skip("this sandbox does not allow memory policies (needs SYS_NICE)")
    assert answer.stdout.strip() == "True", answer.stderr


def test_node_that_is_not_there_is_refused() -> None:
    answer = run("place_process((), 900)")
    assert "numa_node 900: the kernel refuses" in answer.stderr
