"""Cores, memory and GPU as a container may use them, read from a tree of small files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttsfleet_runtime.config.machine import GPU, cpu_quota, detect_machine, parse_nvidia_smi, usable_memory

MEMINFO = "MemTotal:       16777216 kB\nMemFree:        1 kB\n"
GIB = 1 << 30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/pod/container\n"}
V1 = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "5:memory:/pod\n4:cpu,cpuacct:/pod\n"}

MACHINES: dict[str, tuple[dict[str, str], float | None, int]] = {
    "no cgroup": ({"proc/meminfo": MEMINFO}, None, 16 * GIB),
    "v2 without limits": (
        V2 | {"sys/fs/cgroup/pod/container/cpu.max": "max 100000", "sys/fs/cgroup/pod/container/memory.max": "max"},
        None,
        16 * GIB,
    ),
    "v2 limits": (
        V2
        | {
            "sys/fs/cgroup/pod/container/cpu.max": "250000 100000",
            "sys/fs/cgroup/pod/container/memory.max": str(4 * GIB),
        },
        2.5,
        4 * GIB,
    ),
    "v2 limits of the parent": (
        V2
        | {
            "sys/fs/cgroup/pod/container/cpu.max": "400000 100000",
            "sys/fs/cgroup/pod/cpu.max": "100000 100000",
            "sys/fs/cgroup/pod/memory.max": str(2 * GIB),
        },
        1.0,
        2 * GIB,
    ),
    "v2 inside a cgroup namespace": (
        {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": str(3 * GIB)},
        None,
        3 * GIB,
    ),
    "v1 limits": (
        V1
        | {
            "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": str(8 * GIB),
        },
        1.5,
        8 * GIB,
    ),
    "v1 without limits": (
        V1
        | {
            "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/pod/memory.limit_in_bytes": "9223372036854771712",
        },
        None,
        16 * GIB,
    ),
}


@pytest.mark.parametrize("scenario", MACHINES)
def test_container_limits_bound_cores_and_memory(tmp_path: Path, scenario: str) -> None:
    files, quota, memory = MACHINES[scenario]
    root = tree(tmp_path, files)
    assert cpu_quota(root) == quota
    assert usable_memory(root) == memory


def test_quota_below_one_core_still_counts_as_one(tmp_path: Path) -> None:
    root = tree(tmp_path, V2 | {"sys/fs/cgroup/pod/container/cpu.max": "20000 100000"})
    assert detect_machine("cpu", root).cores == 1


def test_numa_nodes_are_read_with_their_cpus(tmp_path: Path) -> None:
    nodes = "sys/devices/system/node"
    root = tree(tmp_path, {f"{nodes}/node0/cpulist": "0-1,4\n", f"{nodes}/node1/cpulist": "2-3\n"})
    assert detect_machine("cpu", root).numa_nodes == {0: (0, 1, 4), 1: (2, 3)}


def test_this_machine_has_cores_and_memory() -> None:
    machine = detect_machine("cpu")
    assert 1 <= machine.cores <= len(machine.cpus)
    assert machine.memory_bytes > 0
    assert machine.gpu is None


def test_gpus_are_read_from_the_query_and_odd_lines_passed_over() -> None:
    answer = "0, NVIDIA L4, 23034, 8.9\nwarning: something\n1, Some Card, [N/A], [N/A]\n"
    assert parse_nvidia_smi(answer) == [
        GPU("NVIDIA L4", 23034 << 20, (8, 9), 0),
        GPU("Some Card", 0, (0, 0), 1),
    ]


def test_gpu_without_the_query_tool_is_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    card = "proc/driver/nvidia/gpus/0000:01:00.0/information"
    root = tree(tmp_path, {card: "Model: \t\t NVIDIA H100\nIRQ: 1\n"})
    assert detect_machine("auto", root).gpu == GPU("NVIDIA H100")
    assert detect_machine("cuda:1", root).gpu is None
