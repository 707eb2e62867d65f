"""The real scheduler places a class's pods on exactly the nodes that the plan counts for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from control_plane.plane import ControlPlane
from control_plane.waiting import eventually
from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.matching import nodes_of_class
from ttsfleet_operator.fleet.nodes import NodeFacts, read_node
from ttsfleet_operator.fleet.plan import ClassDecision, plan_fleet
from ttsfleet_operator.fleet.settings import FleetSettings, References
from ttsfleet_operator.manifests.pod_template import pod_template
from ttsfleet_operator.profiles import builtin_profiles

GPU = "nvidia.com/gpu"
SETTINGS = FleetSettings(release="1.0.0", runtime_image="example.com/runtime:1")
PLENTY = {GPU: "50"}
NODES: dict[str, dict[str, Any]] = {
    "m-4090": {"gpu": "4090"},
    "m-4090d": {"gpu": "4090", "labels": {f"{GPU}.product": "NVIDIA-GeForce-RTX-4090-D"}},
    "m-3080-10": {"gpu": "3080"},
    "m-3080-12": {"gpu": "3080-12gb"},
    "m-3080-ecc": {"gpu": "3080-12gb", "labels": {f"{GPU}.memory": "11520"}},
    "m-no-memory": {"gpu": "3080", "labels": {f"{GPU}.memory": None}},
    "m-l4-shared": {
        "gpu": "l4",
        "labels": {
            f"{GPU}.product": "NVIDIA-L4-SHARED",
            f"{GPU}.replicas": "2",
            f"{GPU}.sharing-strategy": "time-slicing",
        },
    },
    "m-a100": {"gpu": "a100-40gb"},
    "m-slices": {"gpu": "a100-40gb", "labels": {f"{GPU}.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb"}},
    "m-mixed-mig": {
        "gpu": "a100-40gb",
        "labels": {"nvidia.com/mig-1g.5gb.memory": "4864"},
        "allocatable": {GPU: "0", "nvidia.com/mig-1g.5gb": "50"},
    },
    "m-gke": {"labels": {"cloud.google.com/gke-accelerator": "nvidia-l4"}},
    "m-gke-slices": {
        "labels": {
            "cloud.google.com/gke-accelerator": "nvidia-tesla-a100",
            "cloud.google.com/gke-gpu-partition-size": "1g.5gb",
        }
    },
    "m-coreweave": {"labels": {"gpu.nvidia.com/model": "H100_NVLINK_80GB", "gpu.nvidia.com/vram": "81"}},
    "m-unlabelled": {},
    "m-tainted": {"gpu": "4090", "taints": [{"key": "team", "value": "x", "effect": "NoSchedule"}]},
    "m-gpu-taint": {"gpu": "4090", "taints": [{"key": GPU, "value": "present", "effect": "NoSchedule"}]},
    "m-cpu": {"allocatable": {GPU: "0"}},
}
CLASSES = {
    "row": "{products: [rtx-4090]}",
    "product": "{products: [NVIDIA-GeForce-RTX-4090]}",
    "small": "{products: [NVIDIA-GeForce-RTX-3080], memoryMiB: {max: 11000}}",
    "large": "{products: [NVIDIA-GeForce-RTX-3080], memoryMiB: {min: 12288}}",
    "l4": "{products: [NVIDIA-L4]}",
    "slices": "{products: [NVIDIA-A100-SXM4-40GB-MIG-1g.5gb]}",
    "mig": "{products: [NVIDIA-A100-SXM4-40GB], resourceName: nvidia.com/mig-1g.5gb}",
    "a100": "{products: [a100]}",
    "hopper": "{products: [h100], memoryMiB: {min: 80000}}",
    "big": "{memoryMiB: {min: 24000}}",
    "any": "{}",
    "bounds": "{memoryMiB: {min: 1}}",
}


TOLERANT = "{tolerations: [{key: team, operator: Exists}]}"
CHOOSY = "{nodeSelector: {topology.kubernetes.io/zone: zone-b}}"
CASES = [
    *[pytest.param(gpu, "{}", id=name) for name, gpu in CLASSES.items()],
    pytest.param("{}", TOLERANT, id="a toleration"),
    pytest.param("{}", CHOOSY, id="a node selector"),
]


def service(gpu: str, pod: str) -> TTSService:
    return parse_services(f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator}}
spec:
  model: {{source: {{builtin: {{name: tiny-en}}}}}}
  pod: {pod}
  hardware: {{classes: [{{name: one, gpu: {gpu}, profile: l4}}]}}
""")[0]


@pytest.fixture(scope="module")
def nodes(own_control_plane: ControlPlane) -> Iterator[list[NodeFacts]]:
    """One node per kind, as the operator reads them from the API server."""
    for name, settings in NODES.items():
        given = {"gpus": 50, "allocatable": PLENTY, "zone": "zone-b" if name.endswith("d") else "zone-a", **settings}
        own_control_plane.nodes(given.pop("gpu", None), prefix=name, **given)
    names = [f"{name}-0" for name in NODES]
    yield [read_node(one) for one in own_control_plane.get("node") if one["metadata"]["name"] in names]
    own_control_plane.delete_nodes(names)


def decide(asked: TTSService, nodes: list[NodeFacts]) -> ClassDecision:
    plan = plan_fleet(asked, builtin_profiles(), nodes, {}, SETTINGS, References(), pod_template)
    return plan.classes[0]


def pod(decision: ClassDecision, node: str, namespace: str) -> dict[str, Any]:
    """A pod of the class that may go to one node only."""
    assert decision.bundle is not None
    spec = decision.bundle.pod_template["spec"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": node, "namespace": namespace},
        "spec": {
            "nodeSelector": {**spec.get("nodeSelector", {}), "kubernetes.io/hostname": node},
            "affinity": spec.get("affinity", {}),
            "tolerations": spec["tolerations"],
            "containers": [
                {
                    "name": "main",
                    "image": "example.com/main:1",
                    "resources": {"limits": {decision.hardware_class.gpu.resource_name: 1}},  # type: ignore[union-attr]
                }
            ],
        },
    }


@pytest.mark.parametrize(("gpu", "pod_spec"), CASES)
def test_scheduler_and_plan_mean_the_same_nodes(
    own_control_plane: ControlPlane, nodes: list[NodeFacts], namespace: str, gpu: str, pod_spec: str
) -> None:
    asked = service(gpu, pod_spec)
    decision = decide(asked, nodes)
    assert decision.plan is not None
    own_control_plane.apply(*[pod(decision, node.name, namespace) for node in nodes])

    def placed() -> dict[str, bool] | None:
        pods = own_control_plane.get("pods", namespace=namespace)
        judged = {
            one["metadata"]["name"]: bool(one["spec"].get("nodeName"))
            for one in pods
            if one["spec"].get("nodeName")
            or any(each.get("reason") == "Unschedulable" for each in one["status"].get("conditions", []))
        }
        return judged if len(judged) == len(nodes) else None

    scheduled = {name for name, there in eventually(placed, "a word of the scheduler on every pod").items() if there}
    counted = {
        node.name
        for node in nodes
        if nodes_of_class(decision.hardware_class, decision.plan.products, asked.spec.pod, [node]).capacity
    }
    assert scheduled == counted
    assert scheduled, "the case shows nothing"
