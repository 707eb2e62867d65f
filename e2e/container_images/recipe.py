"""What the images of the end-to-end tests are made of, and a fingerprint of it. Pure but for reading the tree.

Two images of one tree: `Dockerfile.operator` and `Dockerfile.runtime`. What decides them is the Dockerfile, the files
that it copies, the base and the arguments; the same of all that gives the same fingerprint, and no build.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASE_NAME = "localhost/python:3.11-slim-bookworm"
NOT_COPIED = ("__pycache__", ".egg-info")


@dataclass(frozen=True)
class Recipe:
    """One image: its name without a tag, the part that tells its Dockerfile, and the arguments of its build."""

    repository: str
    kind: str
    arguments: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name with the release as its tag, as in localhost/ttsfleet/operator:0.1.0."""
        return f"{self.repository}:{release()}"

    @property
    def dockerfile(self) -> Path:
        return ROOT / f"Dockerfile.{self.kind}"

    def fingerprint(self, base: str) -> str:
        """The hash of what decides the image; `base` identifies the image that it starts from."""
        digest = hashlib.sha256(f"{self.name} {base} {sorted(self.arguments.items())}".encode())
        for path in (self.dockerfile, *sorted(self.copied_files())):
            digest.update(
                f"\0{path.relative_to(ROOT)}\0{path.stat().st_mode & 0o111:o}\0".encode() + path.read_bytes()
            )
        return digest.hexdigest()[:16]

    def copied_files(self) -> Iterator[Path]:
        """The files of the tree that the Dockerfile copies."""
        for line in self.dockerfile.read_text(encoding="utf-8").splitlines():
            match = re.match(r"COPY (?!--from=)(?P<sources>.+) \S+$", line)
            for source in match["sources"].split() if match else ():
                path = ROOT / source
                for file in path.rglob("*") if path.is_dir() else (path,):
                    if file.is_file() and not any(part.endswith(NOT_COPIED) for part in file.parts):
                        yield file


def release() -> str:
    """The release that the tree is, which the chart expects as the tag of both images."""
    text = (ROOT / "charts" / "ttsfleet" / "Chart.yaml").read_text(encoding="utf-8")
    match = re.search(r"^appVersion: \"?([^\"\s]+)", text, re.MULTILINE)
    assert match, "Chart.yaml has no appVersion"
    return match[1]


def recipes(registry: str = "localhost") -> tuple[Recipe, Recipe]:
    """The operator and the runtime on the CPU, as the tests run them.

    Args:
        registry: host, and folders if any, before `ttsfleet/operator`.
    """
    index = os.environ.get("E2E_TORCH_INDEX", "")
    return (
        Recipe(f"{registry}/ttsfleet/operator", "operator"),
        Recipe(f"{registry}/ttsfleet/runtime", "runtime", {"VARIANT": "cpu", "TORCH_INDEX": index}),
    )
