"""Which nodes a class's pods may go to, as node affinity: the scheduler's view of what `matching` decides. Pure."""

from __future__ import annotations

from typing import Any

from ttsfleet_operator.api.hardware import HardwareClass
from ttsfleet_operator.plan import ClassPlan


def node_selector_terms(hardware_class: HardwareClass, plan: ClassPlan) -> list[dict[str, Any]]:
    """The `nodeSelectorTerms` of the class (alternatives); empty = any node, so no affinity is written."""
    raise NotImplementedError
