"""What this machine offers: cores, memory and GPUs as this process may use them. Detection only, for `ttsfleet`.

A container's limits count, not the host's size: the affinity mask and the cgroup quota bound the cores, the cgroup's
limit bounds the memory.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_QUERY = ["nvidia-smi", "--query-gpu=index,name,memory.total,compute_cap", "--format=csv,noheader,nounits"]


@dataclass(frozen=True)
class GPUDevice:
    index: int
    product: str
    memory_mib: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Machine:
    cores: int
    memory_mib: int
    gpus: tuple[GPUDevice, ...] = ()


def detect_machine(root: Path = Path("/")) -> Machine:
    """This machine. `root` is where /proc and /sys lie."""
    return Machine(cores=_cores(root), memory_mib=_memory_mib(root), gpus=_gpus())


def parse_gpu_list(answer: str) -> tuple[GPUDevice, ...]:
    """The devices of nvidia-smi's CSV lines `index, name, MiB, capability`; other lines are passed over."""
    devices: list[GPUDevice] = []
    for line in answer.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 4 or not (fields[0].isdigit() and fields[2].isdigit()):
            continue
        major, _, minor = fields[3].partition(".")
        capability = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
        product = "-".join(fields[1].split())
        devices.append(GPUDevice(int(fields[0]), product, int(fields[2]), capability))
    return tuple(devices)


def _gpus() -> tuple[GPUDevice, ...]:
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpu_list(answer)


def _cores(root: Path) -> int:
    cores = len(os.sched_getaffinity(0))
    for folder in _cgroups(root):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


def _memory_mib(root: Path) -> int:
    kibibytes = [
        int(line.split()[1]) for line in _read(root / "proc/meminfo").splitlines() if line.startswith("MemTotal:")
    ]
    limits = [_read(folder / "memory.max") for folder in _cgroups(root)]
    sizes = [size // 1024 for size in kibibytes] + [int(text) >> 20 for text in limits if text.isdigit()]
    return min(sizes, default=0)


def _cgroups(root: Path) -> list[Path]:
    """The cgroup (version 2) of this process and its parents, innermost first."""
    top = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            inner = top / line[3:].lstrip("/")
            return [folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
