"""Builders for the tests of one class: a service of that class, nodes with their labels, the decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.affinity import node_selector_terms
from ttsfleet_operator.fleet.nodes import NodeFacts, read_node
from ttsfleet_operator.fleet.plan import ClassDecision, plan_fleet
from ttsfleet_operator.fleet.settings import FleetSettings, References
from ttsfleet_operator.plan import ClassPlan
from ttsfleet_operator.profiles import builtin_profiles, read_profile_object

GPU = "nvidia.com/gpu"
TABLE = builtin_profiles()
SETTINGS = FleetSettings(release="1.0.0", runtime_image="ttsfleet/runtime:1.0.0")
NOT_LABELS = frozenset({"name", "labels", "devices", "capacity", "taints", "capability"})


def template(service: TTSService, plan: ClassPlan, settings: FleetSettings, references: References) -> dict[str, Any]:
    """A pod template with what matters here."""
    return {"spec": {"terms": node_selector_terms(service.spec.hardware.classes[0], plan)}}


class OneClass:
    """A service `narrator` in namespace `speech` with the class `one`."""

    def service(self, hardware_class: str, more: str = "", repo: str = "FunAudioLLM/CosyVoice2-0.5B") -> TTSService:
        return parse_services(f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator, namespace: speech}}
spec:
  model: {{source: {{huggingFace: {{repo: {repo}}}}}}}
  hardware: {{classes: [{{name: one, {hardware_class}}}]}}
{more}""")[0]

    def nodes(self, described: Iterable[Mapping[str, Any]]) -> list[NodeFacts]:
        """Nodes by what GPU feature discovery says of them: `product`, `memory`, `capability`, `count`, `replicas`, …

        Further `labels`; `devices`, one GPU if absent; `taints`; `name`.
        """
        return [self._node(one, f"n{index}") for index, one in enumerate(described)]

    def decide(
        self, asked: TTSService, nodes: Sequence[NodeFacts] | None, profiles: Sequence[Any] = ()
    ) -> ClassDecision:
        rows = [one.row for one in map(read_profile_object, profiles) if one.row is not None]
        plan = plan_fleet(asked, TABLE.extended(rows), nodes, {}, SETTINGS, References(), template)
        return plan.classes[0]

    def _node(self, described: Mapping[str, Any], name: str) -> NodeFacts:
        labels = {
            f"{GPU}.{key.replace('_', '-')}": str(value) for key, value in described.items() if key not in NOT_LABELS
        }
        if "capability" in described:
            labels[f"{GPU}.compute.major"], labels[f"{GPU}.compute.minor"] = described["capability"].split(".")
        resources = {key: str(count) for key, count in described.get("devices", {GPU: 1}).items()}
        return read_node(
            {
                "metadata": {"name": described.get("name", name), "labels": labels | described.get("labels", {})},
                "spec": {"taints": described.get("taints", [])},
                "status": {
                    "allocatable": resources,
                    "capacity": resources | {key: str(value) for key, value in described.get("capacity", {}).items()},
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }
        )


@pytest.fixture
def fleet() -> OneClass:
    return OneClass()
