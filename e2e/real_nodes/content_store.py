"""Images unpacked once for all nodes: one containerd imports them, and nodes begin with hard links to its files.

The files of an unpacked layer are never written again, for a container writes into a layer of its own. Only the
databases are copied. Nodes must be on the same file system as the store.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from control_plane import binaries
from control_plane.errors import CommandFailed
from control_plane.processes import Processes
from control_plane.waiting import eventually
from real_nodes import configuration
from real_nodes.commands import path_of

NAME = "image-store"


def prepare(
    folder: Path,
    archives: Sequence[Path],
    processes: Processes,
    *,
    base: Path | None = None,
    keep_layers: bool = True,
) -> Path:
    """Imports the archives into a store and returns its root.

    Args:
        base: a store whose images this one has too, by hard links.
        keep_layers: also as they came, beside their unpacked files; without them nothing can be exported again.
    """
    root = folder / "containerd"
    if base:
        link_into(base, root)
    files = configuration.NodeFiles(folder)
    files.containerd.parent.mkdir(parents=True)
    text = configuration.containerd(files, root=str(root), state=str(folder / "state"))
    files.containerd.write_text(text, encoding="utf-8")
    # Mounts that unpacking needs stay in a mount namespace, which ends with the process.
    processes.start(
        NAME, [path_of("unshare"), "--mount", "--", binaries.path_of("containerd"), "--config", files.containerd]
    )

    def answers() -> bool:
        processes.require_running()
        return files.containerd_socket.exists()

    eventually(answers, "the containerd of the image store answers", within=15, every=0.02)
    ctr = [str(binaries.path_of("ctr")), "--address", str(files.containerd_socket), "--namespace", "k8s.io"]
    commands = [["images", "import", str(archive)] for archive in archives]
    commands += [] if keep_layers else [["content", "prune", "references"]]
    for command in commands:
        answer = subprocess.run([*ctr, *command], capture_output=True, text=True, check=False)
        if answer.returncode:
            raise CommandFailed(" ".join(command), answer.returncode, answer.stdout, answer.stderr)
    processes.kill(NAME)
    return root


def link_into(root: Path, target: Path) -> None:
    """Gives a node the content of the store."""
    shutil.copytree(root, target, symlinks=True, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> str:
    if source.endswith(".db"):
        return shutil.copy2(source, target)
    os.link(source, target, follow_symlinks=False)
    return target
