"""Many TTSServices at once: manifests, what the operator would render of them, when one is as wanted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from control_plane.gpu_nodes import GPUS
from control_plane.speech import service
from ttsfleet_operator.api.manifest import parse_service
from ttsfleet_operator.fleet.nodes import read_node
from ttsfleet_operator.fleet.plan import plan_fleet
from ttsfleet_operator.fleet.settings import References
from ttsfleet_operator.labels import MANAGED_LABEL
from ttsfleet_operator.manifests.fleet_objects import render_fleet
from ttsfleet_operator.manifests.pod_template import pod_template
from ttsfleet_operator.operator_settings import read_settings
from ttsfleet_operator.profiles import builtin_profiles

NUM_NAMESPACES = 10
GPUS_PER_NODE = 8
KINDS_OF_GPU = ("4090", "l4", "a100", "h100")

Manifest = dict[str, Any]


def namespaces(prefix: str) -> list[str]:
    """The namespaces that a crowd is spread over."""
    return [f"{prefix}-{number:02d}" for number in range(NUM_NAMESPACES)]


def crowd(count: int, prefix: str) -> list[Manifest]:
    """`count` TTSServices of one class and one replica each, in turn over the namespaces and the kinds of GPU."""
    rooms = namespaces(prefix)
    return [
        service(
            f"narrator-{number:04d}",
            rooms[number % len(rooms)],
            classes=[{"name": "gpu", "gpu": {"products": [GPUS[KINDS_OF_GPU[number % len(KINDS_OF_GPU)]].product]}}],
        )
        for number in range(count)
    ]


def rendered(services: Iterable[Manifest], raw_nodes: Sequence[Mapping[str, Any]]) -> list[list[Manifest]]:
    """The children of each service as the operator renders them, in apply order.

    Without owners (nobody created the services), and not labelled as managed by the operator, whose watches would
    deliver them otherwise.
    """
    nodes = tuple(read_node(node) for node in raw_nodes)
    table, settings = builtin_profiles(), read_settings({}).fleet
    result = []
    for raw in services:
        plan = plan_fleet(parse_service(raw), table, nodes, {}, settings, References(), pod_template)
        children = render_fleet(plan, settings)
        for child in children:
            child["metadata"]["labels"][MANAGED_LABEL] = "baseline"
        result.append(children)
    return result


def converged(raw: Mapping[str, Any], generation: int = 1) -> bool:
    """Whether a TTSService serves as its spec says, and this is at least the given generation of it."""
    status, metadata = raw.get("status") or {}, raw["metadata"]
    if not status.get("observedGeneration") == metadata["generation"] >= generation:
        return False
    conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
    wanted = raw["spec"]["replicas"]
    counts = [status.get(name) for name in ("replicas", "readyReplicas")]
    return counts == [wanted] * 2 and conditions.get("Ready") == "True" and conditions.get("Reconciling") != "True"


def available(raw: Mapping[str, Any]) -> bool:
    """Whether a Deployment's pods are all of its newest template and available."""
    status = raw.get("status") or {}
    counts = [status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return (
        status.get("observedGeneration") == raw["metadata"]["generation"] and counts == [raw["spec"]["replicas"]] * 3
    )
