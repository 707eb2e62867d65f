"""What this machine must have to run nodes; `python -m real_nodes.requirements` installs the Debian packages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from control_plane import binaries
from real_nodes import cgroups
from real_nodes.commands import find
from real_nodes.configuration import CNI_PLUGINS
from real_nodes.layout import STATE

INSTALL_COMMAND = "make node-packages"
# Debian's names; the command or file by which the package is seen.
PACKAGES = {
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    f"{CNI_PLUGINS}/ptp": "containernetworking-plugins",
}

# What builds the images of the end-to-end tests.
BUILD_PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap", "unshare": "util-linux"}


def missing_packages() -> list[str]:
    """The Debian packages that nodes need and of which something is not there."""
    return _missing(PACKAGES)


def _missing(packages: Mapping[str, str]) -> list[str]:
    found = {name: Path(name).exists() if "/" in name else find(name) for name in packages}
    return sorted({packages[name] for name, there in found.items() if not there})


def obstacles() -> list[str]:
    """Why nodes cannot run here, each with its remedy; empty when they can."""
    found = []
    if sys.platform != "linux" or os.geteuid() != 0:
        found.append("nodes are namespaces and need root on Linux: run the tests as root, or in a virtual machine")
    if packages := missing_packages():
        found.append(
            f"not installed: {', '.join(packages)}; install with `{INSTALL_COMMAND}` or your package manager"
        )
    if absent := binaries.missing((*binaries.CONTROL_PLANE, *binaries.NODES)):
        found.append(f"not built: {', '.join(absent)}; build with `{binaries.NODE_BUILD_COMMAND}`")
    if sys.platform == "linux":
        found += _obstacles_of_the_system()
    return found


def obstacles_of_a_build() -> list[str]:
    """Why images cannot be built here, each with its remedy."""
    found = [] if os.geteuid() == 0 else ["images are built as root, since Debian's base is made with chroot"]
    if packages := _missing(BUILD_PACKAGES):
        found.append(f"not installed: {', '.join(packages)}; install with `{INSTALL_COMMAND}`")
    return found


def _obstacles_of_the_system() -> list[str]:
    found = []
    if "overlay" not in Path("/proc/filesystems").read_text():
        found.append("the kernel has no overlayfs (`modprobe overlay`)")
    if file_system_of(STATE, Path("/proc/mounts").read_text()) == "overlay":
        found.append(f"{STATE} is on an overlay, on which containerd cannot unpack: E2E_NODES_FOLDER names another")
    if not cgroups.is_writable():
        found.append(
            f"{cgroups.ROOT} is read-only or has no cgroups: run the container privileged, or use the machine"
        )
    return found


def file_system_of(path: Path, mounts: str) -> str:
    """The type of the file system that a path is on, by the lines of /proc/mounts; of two at one place the last."""
    found = [(Path(line.split()[1]), line.split()[2]) for line in mounts.splitlines()]
    above = [(len(place.parts), kind) for place, kind in found if path.is_relative_to(place)]
    deepest = max(depth for depth, _ in above)
    return [kind for depth, kind in above if depth == deepest][-1]


def install() -> int:
    """Installs the missing packages with apt; without root or apt it says what is missing."""
    wanted = {**PACKAGES, **BUILD_PACKAGES}
    packages = _missing(wanted)
    if not packages:
        return 0
    if os.geteuid() != 0 or not find("apt-get"):
        print(f"missing: {', '.join(packages)}; install them as root (Debian's names)", file=sys.stderr)
        return 1
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        answer = subprocess.run(["apt-get", "--quiet=2", *command], env=environment, stdout=sys.stderr, check=False)
        if answer.returncode:
            return answer.returncode
    return 1 if _missing(wanted) else 0


if __name__ == "__main__":
    sys.exit(install())
