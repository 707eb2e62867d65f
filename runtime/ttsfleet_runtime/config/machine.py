"""What this machine offers: cores, memory and GPU as this process may use them. Detection only; no decisions.

Limits of a container count, not the host's size: the CPU affinity mask and the cgroup quota bound the cores, the
cgroup limit bounds the memory. The GPU is found through `nvidia-smi`, so no torch is loaded.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

_UNLIMITED_BYTES = 1 << 60  # cgroup v1 writes "no limit" as a number near 2**63


@dataclass(frozen=True)
class GPU:
    """One device. `memory_bytes` 0 and `compute_capability` (0, 0) mean: present, but not told."""

    name: str
    memory_bytes: int = 0
    compute_capability: tuple[int, int] = (0, 0)
    index: int = 0


@dataclass(frozen=True)
class Machine:
    """Sizes that the plan is made from. `cpus` are the allowed CPU numbers, `numa_nodes` the CPUs of each node."""

    cores: int
    memory_bytes: int
    gpu: GPU | None = None
    cpus: tuple[int, ...] = ()
    numa_nodes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    online: int = 0
    """CPUs of the whole machine, whoever may use them; 0 = not told."""
    gpu_node: int | None = None
    """The NUMA node of the one GPU that is visible; None = none, several, or not told."""


def detect_machine(device: str = "auto", root: Path = Path("/")) -> Machine:
    """Look at this machine. `device` (`cuda:N`) picks the GPU to describe; /proc and /sys lie under `root`."""
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    cores = len(cpus)
    quota = cpu_quota(root)
    if quota is not None:
        cores = max(1, min(cores, int(quota + 0.5)))
    return Machine(
        cores=cores,
        memory_bytes=usable_memory(root),
        gpu=None if device == "cpu" else _find_gpu(int(device.partition(":")[2] or 0), root),
        cpus=cpus,
        numa_nodes=_numa_nodes(root),
        online=len(_cpu_list(_read(root / "sys/devices/system/cpu/online"))),
        gpu_node=_gpu_node(root),
    )


def cpu_quota(root: Path) -> float | None:
    """Cores that the tightest enclosing cgroup grants; None without a quota."""
    quotas: list[float] = []
    for folder in _cgroup_folders(root, ""):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    for folder in _cgroup_folders(root, "cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def usable_memory(root: Path) -> int:
    """Bytes of memory: the machine's, or the tightest enclosing cgroup's if that is less."""
    sizes = [
        int(line.split()[1]) * 1024
        for line in _read(root / "proc/meminfo").splitlines()
        if line.startswith("MemTotal:")
    ]
    for folder in _cgroup_folders(root, ""):
        sizes.append(_limit(_read(folder / "memory.max")))
    for folder in _cgroup_folders(root, "memory"):
        sizes.append(_limit(_read(folder / "memory.limit_in_bytes")))
    return min(sizes, default=0)


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """This process's cgroup and its parents; `controller` "" = version 2, else that hierarchy of version 1."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        mounts = (
            ("sys/fs/cgroup",) if not controller else (f"sys/fs/cgroup/{controllers}", f"sys/fs/cgroup/{controller}")
        )
        for mount in mounts:
            top = root / mount
            if top.is_dir():
                inner = top / path.lstrip("/")
                return [folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return []


def _limit(text: str) -> int:
    return int(text) if text.isdigit() and int(text) < _UNLIMITED_BYTES else _UNLIMITED_BYTES


def _find_gpu(index: int, root: Path) -> GPU | None:
    query = ["nvidia-smi", "--query-gpu=index,name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return _driver_gpu(index, root)
    gpus = parse_nvidia_smi(answer)
    return next((gpu for gpu in gpus if gpu.index == index), None)


def parse_nvidia_smi(answer: str) -> list[GPU]:
    """The GPUs of `index, name, memory.total (MiB), compute_cap` lines; lines of another form are passed over."""
    gpus = []
    for line in answer.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 4 or not parts[0].isdigit():
            continue
        index, name, mebibytes, capability = parts
        major, _, minor = capability.partition(".")
        gpus.append(
            GPU(
                name=name,
                memory_bytes=int(mebibytes) << 20 if mebibytes.isdigit() else 0,
                compute_capability=(int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0),
                index=int(index),
            )
        )
    return gpus


def _driver_gpu(index: int, root: Path) -> GPU | None:
    """What the driver's files tell where `nvidia-smi` is not installed: presence and name."""
    cards = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    if index >= len(cards):
        return None
    for line in _read(cards[index]).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Model":
            return GPU(name=value.strip(), index=index)
    return GPU(name="unknown NVIDIA GPU", index=index)


def _numa_nodes(root: Path) -> dict[int, tuple[int, ...]]:
    nodes = {}
    for folder in sorted((root / "sys/devices/system/node").glob("node[0-9]*")):
        nodes[int(folder.name.removeprefix("node"))] = _cpu_list(_read(folder / "cpulist"))
    return nodes


def _gpu_node(root: Path) -> int | None:
    """By the PCI address under which the driver shows the device."""
    cards = list((root / "proc/driver/nvidia/gpus").glob("*"))
    if len(cards) != 1:
        return None
    node = _read(root / "sys/bus/pci/devices" / cards[0].name.lower() / "numa_node")
    return int(node) if node.isdigit() else None  # the kernel writes -1 where it does not know


def _cpu_list(text: str) -> tuple[int, ...]:
    """The numbers of a list as the kernel writes it, e.g. 0-3,8."""
    cpus: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
