"""The helm binary and what it renders. Tests that need it are skipped with a reason where it is not built."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "ttsfleet"
RELEASE_NAMESPACE = "ttsfleet-system"

Objects = dict[tuple[str, str], dict[str, Any]]


def _load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chart_generator", ROOT / "charts" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chart_generator"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    """charts/generate.py as a module."""
    return _load_generator()


@pytest.fixture(scope="session")
def helm(generator: ModuleType) -> Path:
    found: Path | None = generator.find_helm()
    if found is None:
        pytest.skip("helm is not built; `make cluster-binaries` builds it")
    return found


@pytest.fixture(scope="session")
def template(helm: Path, generator: ModuleType) -> Callable[..., Objects]:
    """Renders the chart with values given as a mapping, without `helm test`; the answer is by (kind, name)."""

    def render(values: dict[str, Any] | None = None, *arguments: str) -> Objects:
        with_values = ["--values", "-"] if values else []
        command = [helm, "template", generator.RELEASE, CHART, "--namespace", generator.NAMESPACE]
        command += ["--kube-version", generator.KUBE_VERSION, "--skip-tests", *with_values, *arguments]
        completed = subprocess.run(command, input=yaml.safe_dump(values or {}), capture_output=True, text=True)
        if completed.returncode:
            raise ChartRefused(completed.stderr)
        return by_name(completed.stdout)

    return render


class ChartRefused(Exception):
    """Helm refused values; the text is what it said."""


def by_name(text: str) -> Objects:
    """Objects by kind and name; those of another namespace than the release's as namespace/name."""
    documents = [one for one in yaml.safe_load_all(text) if one]
    objects = {(one["kind"], _qualified(one["metadata"])): one for one in documents}
    assert len(objects) == len(documents), "two objects of one kind and name"
    return objects


def _qualified(metadata: dict[str, Any]) -> str:
    namespace, name = metadata.get("namespace", RELEASE_NAMESPACE), metadata["name"]
    return name if namespace == RELEASE_NAMESPACE else f"{namespace}/{name}"
