"""The service that `demo`, and `say` without a server, start: the voice that ships with the runtime, on the CPU.

`tiny.yaml` is package data and equals examples/ttsservice-tiny.yaml, which a test checks.
"""

from __future__ import annotations

import importlib.resources

from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.api.service import TTSService


def tiny_service() -> TTSService:
    """The embedded manifest."""
    text = importlib.resources.files("ttsfleet_operator").joinpath("tiny.yaml").read_text(encoding="utf-8")
    return parse_services(text, "tiny.yaml")[0]
