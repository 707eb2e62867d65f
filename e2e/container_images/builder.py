"""Runs buildah: with a storage of our own, nothing mounted on the host, the machine's certificates in builds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from container_images.recipe import ROOT, Recipe
from control_plane.build import say
from control_plane.errors import BuildFailed
from real_nodes.commands import path_of

# Mounts stay in a mount namespace that ends with the command, whatever ends it.
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "--")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_SETTINGS = Path("/etc/pip.conf")


class Builder:
    """Builds, keeps and writes out images; layers that were built once are taken from `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = Path(tempfile.mkdtemp(prefix="ttsfleet-e2e-build-"))
        self._pip_settings = self._state / "pip.conf"
        self._pip_settings.write_text(_pip_settings(), encoding="utf-8")

    def __enter__(self) -> Builder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._state, ignore_errors=True)

    def run(self, *command: str, says: str = "") -> str:
        """Runs a command apart from the host's mounts and returns its stdout; what it says on stderr is kept.

        Raises:
            BuildFailed: with the end of what the command said.
        """
        if says:
            say(says)
        log = self._folder / "build.log"
        with log.open("a", encoding="utf-8") as said:
            start = said.tell()
            answer = subprocess.run(
                [path_of(APART[0]), *APART[1:], *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                env={**os.environ, "TMPDIR": str(self._folder)},
                text=True,
                check=False,
            )
        if answer.returncode:
            told = (log.read_bytes()[start:].decode(errors="replace") + answer.stdout).strip().splitlines()
            raise BuildFailed(
                f"`{' '.join(command)}` ended with {answer.returncode}; all of it is in {log}; its last lines:\n"
                + "\n".join(told[-20:])
            )
        return answer.stdout

    def buildah(self, *arguments: str, says: str = "") -> str:
        """Runs buildah on our storage."""
        places = [
            "--root",
            str(self._folder / "storage"),
            "--runroot",
            str(self._state),
            "--storage-driver",
            "overlay",
        ]
        return self.run(path_of("buildah"), *places, *arguments, says=says)

    def images(self) -> set[str]:
        """The names of the images in the storage."""
        found = json.loads(self.buildah("images", "--json") or "[]") or []
        return {name for image in found for name in image.get("names") or ()}

    def commit(self, root: Path, name: str) -> None:
        """Makes an image of one layer from a folder."""
        container = self.buildah("from", "scratch").strip()
        try:
            self.buildah("add", "--quiet", container, str(root), "/")
            self.buildah("config", "--cmd", '["python3"]', container)
            self.buildah("commit", "--quiet", "--format", "docker", container, name)
        finally:
            self.buildah("rm", container)

    def build(self, recipe: Recipe, base: str, says: str) -> None:
        """Builds an image from its Dockerfile, with the layers that are there."""
        # A machine with a certificate authority of its own could fetch nothing without these.
        volumes = [f"{self._pip_settings}:{PIP_SETTINGS}:ro"]
        volumes += [f"{CERTIFICATES}:{CERTIFICATES}:ro"] if CERTIFICATES.exists() else []
        values = {"PYTHON_IMAGE": base, **recipe.arguments}
        self.buildah(
            "build", "--isolation", "chroot", "--format", "docker", "--layers", "--pull=false", "--quiet",
            *(f"--volume={volume}" for volume in volumes),
            *(f"--build-arg={name}={value}" for name, value in values.items()),
            "--file", str(recipe.dockerfile), "--ignorefile", str(ROOT / ".dockerignore"),
            "--tag", recipe.name, str(ROOT),
            says=says,
        )  # fmt: skip

    def write_archive(self, name: str, target: Path) -> None:
        """Writes an image as a docker archive, uncompressed; the file appears when it is whole."""
        unfinished = target.with_suffix(".part")
        unfinished.unlink(missing_ok=True)
        self.buildah("push", "--quiet", name, f"docker-archive:{unfinished}:{name}", says=f"writing {name}")
        unfinished.rename(target)

    def push(self, name: str) -> None:
        """Pushes an image to the registry that its name says; who may is as buildah's `login` left it."""
        self.buildah("push", "--quiet", name, f"docker://{name}", says=f"pushing {name}")


def _pip_settings() -> str:
    """The machine's settings of pip, with the certificates that a build sees."""
    if PIP_SETTINGS.exists():
        return PIP_SETTINGS.read_text(encoding="utf-8")
    index = os.environ.get("PIP_INDEX_URL")
    lines = [
        "[global]",
        f"index-url = {index}" if index else "",
        f"cert = {CERTIFICATES}" if CERTIFICATES.exists() else "",
    ]
    return "\n".join(line for line in lines if line) + "\n"
