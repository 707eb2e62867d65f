"""`python -m container_images.build`: builds both images, and unpacks them once for all nodes of all runs.

The folder `images` in the cache keeps buildah's layers and the newest store. What has not changed is not built again;
with nothing changed it returns at once. `--push REGISTRY` builds and pushes instead, for a cluster of your own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

from container_images import debian_base
from container_images.builder import Builder
from container_images.recipe import BASE_NAME, Recipe, recipes
from control_plane.binaries import cache_root
from control_plane.build import one_at_a_time, say
from control_plane.errors import BuildFailed, ControlPlaneError
from control_plane.processes import Processes
from real_nodes import content_store, requirements

COMMAND = "make e2e-images"
# Minutes on 2 cores with a cold cache (2026-11).
COLD_MINUTES = {"operator": 1, "runtime": 5}
STORE_PREFIX = "store-"
# Packages of the largest image, downloaded and unpacked, and its layer twice.
FREE_GIB = 24


def folder() -> Path:
    """Where the images are kept."""
    return cache_root() / "images"


def store_path() -> Path:
    """The root of containerd with the images of this tree, built or not; `content_store.link_into` reads it."""
    parts = [recipe.fingerprint(_base_identity()) for recipe in recipes()]
    return folder() / f"{STORE_PREFIX}{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}"


def prepare_store() -> Path:
    """Builds the images and unpacks them into the store, where that is not done yet.

    Raises:
        BuildFailed: a build ended with an error, or there is no room for it.
    """
    target = store_path()
    if target.exists():
        return target
    with one_at_a_time():
        started = time.monotonic()
        _require_room()
        archives = _write_archives(recipes())
        _unpack(archives, target)
        say(f"images ready after {(time.monotonic() - started) / 60:.1f} min, in {target}")
    return target


def push(registry: str) -> list[str]:
    """Builds both images and pushes them; returns their names.

    Args:
        registry: host, and folders if any, as in registry.example:5000/team.
    """
    wanted = recipes(registry)
    with one_at_a_time(), _builder() as builder:
        _build(builder, wanted)
        for recipe in wanted:
            builder.push(recipe.name)
    return [recipe.name for recipe in wanted]


def _write_archives(wanted: tuple[Recipe, ...]) -> list[Path]:
    with _builder() as builder:
        _build(builder, wanted)
        archives = [(recipe.name, folder() / f"{recipe.kind}.tar") for recipe in wanted]
        for name, path in archives:
            builder.write_archive(name, path)
    return [path for _, path in archives]


def _builder() -> Builder:
    folder().mkdir(parents=True, exist_ok=True)
    return Builder(folder())


def _build(builder: Builder, wanted: tuple[Recipe, ...]) -> None:
    base = _given_base() or BASE_NAME
    builder.buildah("rm", "--all")
    mark = folder() / "base"
    if not _given_base() and (BASE_NAME not in builder.images() or _read(mark) != debian_base.identity()):
        debian_base.make(builder, folder())
        mark.write_text(debian_base.identity(), encoding="utf-8")
    for recipe in wanted:
        builder.build(recipe, base, f"{recipe.name} (cold about {COLD_MINUTES[recipe.kind]} min)")
    # Layers of older trees, and those that only building needed: what is left is what the two images are made of.
    builder.buildah("rmi", "--prune")


def _unpack(archives: list[Path], target: Path) -> None:
    unfinished = folder() / "unpacking"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    processes = Processes(unfinished)
    try:
        say("unpacking the images for nodes (cold about 2 min)")
        root = content_store.prepare(unfinished, archives, processes, keep_layers=False)
    finally:
        processes.stop()
    for path in (*archives, *folder().glob(f"{STORE_PREFIX}*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    root.rename(target)
    shutil.rmtree(unfinished)


def _require_room() -> None:
    folder().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder()).free / 2**30
    if free < FREE_GIB and not (folder() / "storage").exists():
        raise BuildFailed(
            f"{folder()} has {free:.0f} GiB free and the images need {FREE_GIB}: XDG_CACHE_HOME moves it"
        )


def _base_identity() -> str:
    return _given_base() or debian_base.identity()


def _given_base() -> str:
    return os.environ.get("E2E_PYTHON_IMAGE", "")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="container_images.build", description=__doc__)
    parser.add_argument("--push", metavar="REGISTRY", help="push to this registry instead of unpacking for nodes")
    wanted = parser.parse_args(arguments)
    try:
        if obstacles := requirements.obstacles_of_a_build():
            raise BuildFailed("; ".join(obstacles))
        sys.stdout.write("\n".join(push(wanted.push) if wanted.push else [str(prepare_store())]) + "\n")
    except ControlPlaneError as error:
        say(f"e2e-images: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
