"""A stand-in for `python:3.11-slim-bookworm` where no registry is reached: Debian by debootstrap, with its Python."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from container_images.builder import Builder
from container_images.recipe import BASE_NAME
from real_nodes.commands import path_of

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-venv")
# Nothing of these is read in a container.
UNNEEDED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")


def identity() -> str:
    """Changes when the recipe of the base changes; updates of Debian come with a new cache."""
    own = Path(__file__).read_bytes()
    return hashlib.sha256(own).hexdigest()[:16]


def make(builder: Builder, folder: Path) -> None:
    """Bootstraps Debian in a folder and commits it as the base image."""
    root = folder / "debian"
    shutil.rmtree(root, ignore_errors=True)
    mirror = os.environ.get("E2E_DEBIAN_MIRROR", "")
    builder.run(
        path_of("debootstrap"), "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root),
        *([mirror] if mirror else []), says=f"base: Debian {SUITE} with Python (cold about 1 min)",
    )  # fmt: skip
    for name in UNNEEDED:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir()
    for name in ("python", "python3"):
        (root / "usr" / "local" / "bin" / name).symlink_to("/usr/bin/python3")
    # Mount points of a build, so that none of them is left in an image.
    (root / "etc" / "pip.conf").touch()
    builder.commit(root, BASE_NAME)
    shutil.rmtree(root)
