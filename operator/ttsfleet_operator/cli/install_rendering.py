"""The installation of the operator without Helm, as `ttsfleet render --install` prints it.

The definitions come from their source, the rest is package data that charts/generate.py takes from the chart.
"""

from __future__ import annotations

import importlib.resources

from ttsfleet_operator.api.crd import RESOURCES, render


def install_manifests() -> str:
    """All objects as YAML documents, the definitions first."""
    operator = importlib.resources.files("ttsfleet_operator").joinpath("install", "operator.yaml").read_text("utf-8")
    return "---\n".join([*(render(resource) for resource in RESOURCES), operator])
