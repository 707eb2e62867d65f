"""The cgroups of the nodes: one per node below the root of every hierarchy, for the pods that kubelet starts.

Both versions: with version 1 (also beside an unused version 2) every controller has a hierarchy of its own. Only
version 1 has been run; for version 2 the steps follow what kubelet and runc ask for.
"""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial
from pathlib import Path

from control_plane.waiting import eventually
from real_nodes.layout import CGROUP_PREFIX

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS_OF_PODS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def version() -> int:
    """2 when the whole machine is on version 2, else 1."""
    return 2 if (ROOT / "cgroup.controllers").exists() else 1


def is_writable() -> bool:
    """False in a container that sees the machine's groups and may not change them."""
    hierarchies = _hierarchies("cgroup2") if version() == 2 else _hierarchies("cgroup")
    return bool(hierarchies) and all(os.access(path, os.W_OK) for path in hierarchies)


def create(name: str) -> None:
    """Makes the group in every hierarchy, with all that its children need."""
    if version() == 2:
        group = ROOT / name
        group.mkdir(exist_ok=True)
        for parent in (ROOT, group):
            offered = (parent / "cgroup.controllers").read_text().split()
            wanted = [f"+{controller}" for controller in CONTROLLERS_OF_PODS if controller in offered]
            (parent / "cgroup.subtree_control").write_text(" ".join(wanted))
        return
    for hierarchy in _hierarchies("cgroup"):
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        # A new group of the cpuset controller has no processors and no memory, and takes no process.
        for setting in ("cpuset.mems", "cpuset.cpus"):
            if (group / setting).exists():
                (group / setting).write_text((hierarchy / setting).read_text())


def left() -> list[Path]:
    """The groups of nodes, in all hierarchies."""
    return [path for root in _hierarchies("cgroup", "cgroup2") for path in sorted(root.glob(f"{CGROUP_PREFIX}*"))]


def remove(name: str = "*") -> None:
    """Kills what still runs in the groups of that name (all nodes' by default) and removes them."""
    for root in _hierarchies("cgroup", "cgroup2"):
        for group in root.glob(name if name != "*" else f"{CGROUP_PREFIX}*"):
            eventually(partial(_removed, group), f"{group} is empty", within=20)


def _removed(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        for pid in _processes(Path(folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not group.exists()


def _processes(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split() if line != "0"]
    except OSError:
        return []


def _hierarchies(*types: str) -> list[Path]:
    lines = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [Path(path) for _, path, kind, *_ in lines if kind in types and Path(path).is_relative_to(ROOT)]
