"""One class and the nodes of a cluster: what is planned, for which device, and where the scheduler may put it.

The classes are YAML as people write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ttsfleet_operator.fleet.affinity import node_selector_terms, term_admits
from ttsfleet_operator.plan import Origin

GPU = "nvidia.com/gpu"
RTX_4090 = {"product": "NVIDIA-GeForce-RTX-4090", "memory": 24564, "capability": "8.9"}
RTX_3090 = {"product": "NVIDIA-GeForce-RTX-3090", "memory": 24576, "capability": "8.6"}
L4 = {"product": "NVIDIA-L4", "memory": 23034, "capability": "8.9"}
SHARED = {
    "product": "NVIDIA-L4-SHARED",
    "memory": 23034,
    "capability": "8.9",
    "replicas": "2",
    "sharing_strategy": "time-slicing",
    "count": "1",
    "devices": {GPU: 2},
}
MIG = {
    "product": "NVIDIA-A100-SXM4-40GB",
    "memory": 40960,
    "capability": "8.0",
    "labels": {
        "nvidia.com/mig-1g.5gb.memory": "4864",
        "nvidia.com/mig-1g.5gb.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb",
    },
    "devices": {GPU: 0, "nvidia.com/mig-1g.5gb": 7},
}
MIXED = RTX_4090 | {"name": "mixed", "count": "1", "devices": {GPU: 2}}
INT8, FP8 = "triton_int8weight", "triton-fp8w8a8-b128"


@dataclass
class Scenario:
    """`nodes` are what `fleet.nodes` takes. `site` is (MiB, assumed)."""

    name: str
    asked: str
    nodes: list[Mapping[str, Any]]
    profile: str
    values: dict[str, object] = field(default_factory=dict)
    site: tuple[int, bool] | None = None
    matching: int | None = None
    warning: str = ""
    more: str = ""
    origins: dict[str, Origin] = field(default_factory=dict)


SCENARIOS = [
    Scenario(
        "ECC takes 6 %: the row is the card's, the memory the label's",
        "gpu: {products: [NVIDIA-A10], memoryMiB: {min: 23000}}",
        [{"product": "NVIDIA-A10", "memory": 21647, "capability": "8.6"}],
        "a10",
        {"workers": 2},
        (21647, False),
        1,
    ),
    Scenario(
        "10 GB against 12 GB: the range keeps the small card out",
        "gpu: {products: [NVIDIA-GeForce-RTX-3080], memoryMiB: {min: 12000}}",
        [
            {"product": "NVIDIA-GeForce-RTX-3080", "memory": 10240, "capability": "8.6"},
            {"product": "NVIDIA-GeForce-RTX-3080", "memory": 12288, "capability": "8.6"},
        ],
        "rtx-3080-12gb",
        site=(12288, False),
        matching=1,
    ),
    Scenario(
        "10 GB and 12 GB in one class: sized for the small one",
        "gpu: {products: [NVIDIA-GeForce-RTX-3080]}",
        [
            {"product": "NVIDIA-GeForce-RTX-3080", "memory": 12288, "capability": "8.6"},
            {"product": "NVIDIA-GeForce-RTX-3080", "memory": 10240, "capability": "8.6"},
        ],
        "rtx-3080-10gb",
        site=(10240, False),
        matching=2,
        warning="the nodes of this class differ: NVIDIA-GeForce-RTX-3080 (10240 MiB), NVIDIA-GeForce-RTX-3080 (12288",
    ),
    Scenario(
        "an upper bound keeps the large card out",
        "gpu: {products: [NVIDIA-GeForce-RTX-3080], memoryMiB: {max: 11000}}",
        [
            {"product": "NVIDIA-GeForce-RTX-3080", "memory": 10240, "capability": "8.6"},
            {"product": "NVIDIA-GeForce-RTX-3080", "memory": 12288, "capability": "8.6"},
        ],
        "rtx-3080-10gb",
        matching=1,
    ),
    Scenario(
        "a row's name means all its products",
        "gpu: {products: [rtx-4090]}",
        [RTX_4090, {"product": "NVIDIA-GeForce-RTX-4090-D", "memory": 24564, "capability": "8.9"}],
        "rtx-4090",
        matching=2,
    ),
    Scenario(
        "a product means itself alone",
        "gpu: {products: [NVIDIA-GeForce-RTX-4090]}",
        [RTX_4090, {"product": "NVIDIA-GeForce-RTX-4090-D", "memory": 24564, "capability": "8.9"}, L4],
        "rtx-4090",
        matching=1,
    ),
    Scenario(
        "the driver's spelling",
        "gpu: {products: [NVIDIA GeForce RTX 4090]}",
        [RTX_4090],
        "rtx-4090",
        matching=1,
    ),
    Scenario(
        "any GPU from a size on",
        "gpu: {memoryMiB: {min: 40000}}",
        [RTX_4090, {"product": "NVIDIA-L40S", "memory": 46068, "capability": "8.9"}],
        "l40s",
        matching=1,
    ),
    Scenario(
        "-SHARED by time-slicing: half a card each, and it is said",
        "gpu: {products: [NVIDIA-L4]}",
        [SHARED],
        "l4",
        {"workers": 2},
        (11517, False),
        1,
        "NVIDIA-L4-SHARED is shared by 2 (time-slicing): sized for 11517 MiB, its part of the card; time-slicing",
    ),
    Scenario(
        "mps under its own resource",
        "gpu: {products: [NVIDIA-L4], resourceName: nvidia.com/gpu.shared}",
        [
            {
                "product": "NVIDIA-L4",
                "memory": 23034,
                "capability": "8.9",
                "replicas": "3",
                "sharing_strategy": "mps",
                "count": "1",
                "devices": {"nvidia.com/gpu.shared": 3},
            }
        ],
        "l4",
        site=(7678, False),
        warning="(mps): sized for 7678 MiB",
    ),
    Scenario(
        "shared and whole cards in one class: sized for the part",
        "gpu: {products: [NVIDIA-L4]}",
        [L4, SHARED],
        "l4",
        site=(11517, False),
        matching=2,
        warning="the nodes of this class differ",
    ),
    Scenario(
        "MIG single: the slice as a product",
        "gpu: {products: [NVIDIA-A100-SXM4-40GB-MIG-3g.20gb]}",
        [{"product": "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", "memory": 19968, "capability": "8.0", "devices": {GPU: 2}}],
        "generic",
        {"quant_type": INT8},
        (19968, False),
        1,
    ),
    Scenario(
        "MIG mixed: the card as a product, the slice as a resource",
        "gpu: {products: [NVIDIA-A100-SXM4-40GB], resourceName: nvidia.com/mig-1g.5gb}",
        [MIG],
        "generic",
        {"workers": 1},
        (4864, False),
        1,
    ),
    Scenario(
        "a whole-card class leaves sliced nodes alone",
        "gpu: {products: [NVIDIA-A100-SXM4-40GB]}",
        [
            {"product": "NVIDIA-A100-SXM4-40GB", "memory": 40960, "capability": "8.0"},
            {"product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "memory": 4864, "capability": "8.0", "devices": {GPU: 7}},
        ],
        "a100-40gb",
        site=(40960, False),
        matching=1,
    ),
    Scenario(
        "GKE without feature discovery: the row's memory is assumed",
        "gpu: {products: [NVIDIA-L4]}",
        [{"labels": {"cloud.google.com/gke-accelerator": "nvidia-l4"}}],
        "l4",
        {"quant_type": FP8},
        (23034, True),
        1,
        "the nodes do not say how much memory nvidia-l4 has: 23034 MiB are assumed",
    ),
    Scenario(
        "CoreWeave",
        "gpu: {products: [h100], memoryMiB: {min: 80000}}",
        [{"labels": {"gpu.nvidia.com/model": "H100_NVLINK_80GB", "gpu.nvidia.com/vram": "81"}}],
        "h100",
        site=(81000, False),
        matching=1,
    ),
    Scenario(
        "Karpenter",
        "gpu: {products: [NVIDIA-A10G]}",
        [
            {
                "labels": {
                    "karpenter.k8s.aws/instance-gpu-name": "a10g",
                    "karpenter.k8s.aws/instance-gpu-memory": "22888",
                }
            }
        ],
        "a10g",
        site=(22888, False),
    ),
    Scenario(
        "no labels: any GPU is sized by the range's lower bound",
        "gpu: {memoryMiB: {min: 24000}}",
        [],
        "generic",
        site=(24000, True),
        matching=0,
    ),
    Scenario(
        "unified memory: the profile that the class names",
        "gpu: {products: [NVIDIA-GB10]}, profile: l4",
        [{"product": "NVIDIA-GB10", "capability": "12.1"}],
        "l4",
        {"load_trt": True},
        (23034, True),
        1,
        "do not say how much memory NVIDIA-GB10 has",
    ),
    Scenario(
        "several products: the least memory, the lowest capability",
        "gpu: {products: [NVIDIA-L4, NVIDIA-GeForce-RTX-3090]}",
        [RTX_3090, L4],
        "l4",
        {"workers": 2, "quant_type": INT8, "load_trt": True},
        (23034, False),
        2,
        "sized for the smallest, NVIDIA-L4 (23034 MiB)",
        origins={"quant_type": Origin.DEVICE},
    ),
    Scenario(
        "no TensorRT where one of the cards lacks it",
        "gpu: {products: [rtx-4090, h100]}",
        [RTX_4090, {"product": "NVIDIA-H100-80GB-HBM3", "memory": 81559, "capability": "9.0"}],
        "rtx-4090",
        {"load_trt": False, "quant_type": FP8},
        origins={"load_trt": Origin.DEVICE},
    ),
    Scenario(
        "a profile that asks too much of the card is adapted",
        "gpu: {products: [Tesla-T4]}, profile: rtx-4090",
        [{"product": "Tesla-T4", "memory": 15360, "capability": "7.5"}],
        "rtx-4090",
        {"data_type": "fp16", "quant_type": INT8, "load_trt": False},
        (15360, False),
        origins={"data_type": Origin.DEVICE},
    ),
    Scenario(
        "overrides: the class over the spec over the profile",
        "gpu: {products: [rtx-4090]}, engine: {workers: 1}",
        [RTX_4090],
        "rtx-4090",
        {"workers": 1, "gpt_paral_num": 32, "decode_process_num": 2},
        more="  engine: {workers: 2, gpt_paral_num: 32}\n",
        origins={"workers": Origin.CLASS, "gpt_paral_num": Origin.SPEC, "decode_process_num": Origin.PROFILE},
    ),
    Scenario(
        "a card that the table does not know",
        "gpu: {products: [NVIDIA-Future-9000]}",
        [{"product": "NVIDIA-Future-9000", "memory": 49152, "capability": "12.0"}],
        "generic",
        {"workers": 4, "quant_type": FP8},
    ),
    Scenario(
        "a node selector of the pod counts",
        "gpu: {}",
        [RTX_4090 | {"labels": {"team": "tts"}}, {"product": "Tesla-T4", "memory": 15360, "capability": "7.5"}],
        "rtx-4090",
        matching=1,
        more="  pod: {nodeSelector: {team: tts}}\n",
    ),
    Scenario(
        "a toleration of the pod counts",
        "gpu: {}",
        [RTX_4090 | {"taints": [{"key": "team", "value": "tts", "effect": "NoSchedule"}]}],
        "rtx-4090",
        matching=1,
        more="  pod: {tolerations: [{key: team, operator: Exists}]}\n",
    ),
    Scenario(
        "the device's own taint is tolerated",
        "gpu: {}",
        [RTX_4090 | {"taints": [{"key": GPU, "value": "present", "effect": "NoSchedule"}]}],
        "rtx-4090",
        matching=1,
    ),
    Scenario(
        "a mixed node among good ones is left out, with a warning",
        "gpu: {products: [rtx-4090]}",
        [RTX_4090, MIXED],
        "rtx-4090",
        matching=1,
        warning="node mixed has 2 devices",
    ),
    Scenario("the CPU class needs no node", "cpu: {}", [], "cpu", {"data_type": "fp32"}, (16384, True)),
    Scenario(
        "the CPU class has the memory of its limit",
        "cpu: {}",
        [],
        "cpu",
        site=(24576, False),
        more="  resources: {limits: {memory: 24Gi}}\n",
    ),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_class_on_its_nodes(fleet: Any, scenario: Scenario) -> None:
    decision = fleet.decide(fleet.service(scenario.asked, scenario.more), fleet.nodes(scenario.nodes))
    plan = decision.plan
    assert plan is not None
    assert plan.problem is None
    assert decision.bundle is not None
    engine = plan.engine()
    assert plan.profile.name == scenario.profile
    assert {name: engine[name] for name in scenario.values} == scenario.values
    if scenario.site is not None:
        assert (plan.site.memory_mib, plan.site.assumed) == scenario.site
    if scenario.matching is not None:
        assert decision.matching_nodes == scenario.matching
    if scenario.warning:
        assert any(scenario.warning in warning for warning in decision.warnings), decision.warnings
    origins = {value.name: value.origin for value in plan.values}
    assert {name: origins[name] for name in scenario.origins} == scenario.origins


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scheduler_admits_exactly_the_nodes_that_were_planned_for(fleet: Any, scenario: Scenario) -> None:
    asked = fleet.service(scenario.asked, scenario.more)
    nodes = fleet.nodes(scenario.nodes)
    decision = fleet.decide(asked, nodes)
    assert decision.plan is not None
    if decision.hardware_class.gpu is None:
        assert node_selector_terms(decision.hardware_class, decision.plan) == []
        return
    terms = node_selector_terms(decision.hardware_class, decision.plan)
    selector = asked.spec.pod.node_selector if asked.spec.pod is not None else {}
    admitted = [
        one
        for one in nodes
        if one.problem is None
        and one.labels.items() >= selector.items()
        and (not terms or any(term_admits(term, one.labels) for term in terms))
    ]
    assert len(admitted) == decision.matching_nodes
