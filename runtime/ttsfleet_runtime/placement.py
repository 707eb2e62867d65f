"""Where a process may run and where its memory lies: CPU set and NUMA node, set once when a stage process starts."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Sequence

from ttsfleet_runtime.errors import ConfigError

_MPOL_BIND = 2
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237}  # system call numbers; the C library has no wrapper
_MAX_NODES = 1024


def place_process(cpus: Sequence[int], numa_node: int | None) -> None:
    """Pin this process to `cpus` (empty: no change) and bind its memory to `numa_node` (None: no change).

    Threads and memory that exist already stay where they are, so call it before models are loaded. Raises
    ConfigError when the kernel refuses: a CPU outside of the container's set, or a sandbox without memory policies.
    """
    if cpus:
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as error:
            usable = ",".join(map(str, sorted(os.sched_getaffinity(0))))
            wanted = ",".join(map(str, cpus))
            raise ConfigError(
                f"cpu_affinity {wanted}: {error.strerror}; this process may use {usable}", param="cpu_affinity"
            ) from error
    if numa_node is not None:
        _bind_memory(numa_node)


def _bind_memory(node: int) -> None:
    """Take all new pages of this process from one NUMA node, and none from another."""
    call = _SET_MEMPOLICY.get(platform.machine())
    if call is None:
        raise ConfigError(
            f"numa_node {node}: memory binding is not known on {platform.machine()}; remove numa_node",
            param="numa_node",
        )
    bits = ctypes.c_ulong * (_MAX_NODES // (8 * ctypes.sizeof(ctypes.c_ulong)))
    mask = bits()
    word, bit = divmod(node, 8 * ctypes.sizeof(ctypes.c_ulong))
    mask[word] = 1 << bit
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(call, _MPOL_BIND, ctypes.byref(mask), ctypes.c_ulong(_MAX_NODES)) == 0:
        return
    number = ctypes.get_errno()
    remedy = "grant SYS_NICE or remove numa_node" if number == errno.EPERM else "remove numa_node"
    raise ConfigError(f"numa_node {node}: the kernel refuses: {os.strerror(number)}; {remedy}", param="numa_node")
