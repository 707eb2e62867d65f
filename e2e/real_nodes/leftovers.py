"""What a cluster makes on the host: found by name, and removed, whether its run ended or was killed.

Processes end with the run that started them (the kernel kills them), and with the processes all mounts and links. The
cgroups, the folder and the lock file (not locked any more) are left by a run that was killed, until the next start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

from control_plane.waiting import eventually
from real_nodes import cgroups, network
from real_nodes.layout import STATE


def found() -> list[str]:
    """What there is of a cluster on this machine."""
    folder = [str(STATE)] if STATE.exists() else []
    return [*network.left(), *map(str, cgroups.left()), *folder, *(f"process {pid}" for pid in _first_processes())]


def remove() -> None:
    """Ends what still runs of a cluster, and removes all that it made on the host. Only with the lock held."""
    for pid in _first_processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not _first_processes(), "the nodes have ended", within=20)
    cgroups.remove()
    network.remove()
    shutil.rmtree(STATE, ignore_errors=True)


def _first_processes() -> list[int]:
    """The first processes of nodes: those whose command line names the settings of a node in our folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = path.read_text(errors="replace").split("\0")
            if any(argument.startswith(f"{STATE}/") and argument.endswith("/node.json") for argument in arguments):
                found.append(int(path.parent.name))
    return found
