"""One class and the nodes of a cluster: what is planned, for which device, and what is said when it cannot be.

Nodes are Node objects with labels as clusters have them; the classes are YAML as people write it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.affinity import node_selector_terms, term_admits
from ttsfleet_operator.fleet.nodes import NodeFacts, read_node
from ttsfleet_operator.fleet.plan import ClassDecision, plan_fleet
from ttsfleet_operator.fleet.settings import FleetSettings, References
from ttsfleet_operator.plan import ClassPlan, Origin
from ttsfleet_operator.profiles import builtin_profiles, read_profile_object

GPU = "nvidia.com/gpu"
TABLE = builtin_profiles()
SETTINGS = FleetSettings(release="1.0.0", runtime_image="ttsfleet/runtime:1.0.0")


def service(hardware_class: str, more: str = "", repo: str = "FunAudioLLM/CosyVoice2-0.5B") -> TTSService:
    return parse_services(f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator, namespace: speech}}
spec:
  model: {{source: {{huggingFace: {{repo: {repo}}}}}}}
  hardware: {{classes: [{{name: one, {hardware_class}}}]}}
{more}""")[0]


def node(name: str, labels: Mapping[str, str], devices: Mapping[str, int] | None = None, **spec: Any) -> NodeFacts:
    resources = {key: str(count) for key, count in (devices or {GPU: 1}).items()}
    return read_node(
        {
            "metadata": {"name": name, "labels": dict(labels)},
            "spec": spec,
            "status": {
                "allocatable": resources,
                "capacity": resources,
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )


def gfd(product: str, memory: int | None, capability: str, **more: str) -> dict[str, str]:
    major, minor = capability.split(".")
    labels = {f"{GPU}.product": product, f"{GPU}.compute.major": major, f"{GPU}.compute.minor": minor}
    if memory is not None:
        labels[f"{GPU}.memory"] = str(memory)
    return labels | {f"{GPU}.{key.replace('_', '-')}": value for key, value in more.items()}


def template(service: TTSService, plan: ClassPlan, settings: FleetSettings, references: References) -> dict[str, Any]:
    """A pod template with what matters here."""
    return {"spec": {"terms": node_selector_terms(service.spec.hardware.classes[0], plan)}}


def decide(asked: TTSService, nodes: Sequence[NodeFacts] | None, profiles: Sequence[Any] = ()) -> ClassDecision:
    rows = [one.row for one in map(read_profile_object, profiles) if one.row is not None]
    plan = plan_fleet(asked, TABLE.extended(rows), nodes, {}, SETTINGS, References(), template)
    return plan.classes[0]


RTX_4090 = gfd("NVIDIA-GeForce-RTX-4090", 24564, "8.9")
RTX_3090 = gfd("NVIDIA-GeForce-RTX-3090", 24576, "8.6")
L4 = gfd("NVIDIA-L4", 23034, "8.9")
L4_SHARED = gfd("NVIDIA-L4-SHARED", 23034, "8.9", replicas="2", sharing_strategy="time-slicing", count="1")
A100_MIG = gfd("NVIDIA-A100-SXM4-40GB", 40960, "8.0") | {
    "nvidia.com/mig-1g.5gb.memory": "4864",
    "nvidia.com/mig-1g.5gb.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb",
}
INT8, FP8 = "triton_int8weight", "triton-fp8w8a8-b128"


@dataclass
class Scenario:
    """`nodes` are labels, each of a node with one device; or nodes. `site` is (MiB, assumed)."""

    name: str
    asked: str
    nodes: list[Any]
    profile: str
    values: dict[str, object] = field(default_factory=dict)
    site: tuple[int, bool] | None = None
    matching: int | None = None
    warning: str = ""
    more: str = ""
    origins: dict[str, Origin] = field(default_factory=dict)


CARDS = [
    ("NVIDIA-GeForce-RTX-4090", 24564, "8.9", "rtx-4090", 3, 2, FP8),
    ("NVIDIA-GeForce-RTX-3090", 24576, "8.6", "rtx-3090", 3, 2, INT8),
    ("NVIDIA-GeForce-RTX-3080", 10240, "8.6", "rtx-3080-10gb", 1, 1, INT8),
    ("NVIDIA-GeForce-RTX-3080", 12288, "8.6", "rtx-3080-12gb", 1, 1, INT8),
    ("NVIDIA-A100-SXM4-40GB", 40960, "8.0", "a100-40gb", 4, 3, INT8),
    ("NVIDIA-A100-PCIE-40GB", 40536, "8.0", "a100-40gb", 4, 3, INT8),
    ("NVIDIA-A100-SXM4-80GB", 81920, "8.0", "a100-80gb", 6, 3, INT8),
    ("NVIDIA-A10", 23028, "8.6", "a10", 2, 2, INT8),
    ("NVIDIA-A10G", 23028, "8.6", "a10g", 2, 2, INT8),
    ("Tesla-T4", 15360, "7.5", "t4", 1, 1, INT8),
    ("NVIDIA-L4", 23034, "8.9", "l4", 2, 2, FP8),
    ("NVIDIA-L40S", 46068, "8.9", "l40s", 4, 3, FP8),
    ("NVIDIA-H100-80GB-HBM3", 81559, "9.0", "h100", 6, 3, FP8),
    ("NVIDIA-H100-NVL", 95830, "9.0", "h100-nvl", 6, 3, FP8),
    ("NVIDIA-H200", 143771, "9.0", "h200", 8, 3, FP8),
    ("NVIDIA-B200", 183359, "10.0", "b200", 8, 4, FP8),
]


@pytest.mark.parametrize(
    ("product", "memory", "capability", "profile", "workers", "decoders", "quant_type"),
    [pytest.param(*card, id=f"{card[0]} {card[1]} MiB") for card in CARDS],
)
def test_card_of_the_table_on_a_node(
    product: str, memory: int, capability: str, profile: str, workers: int, decoders: int, quant_type: str
) -> None:
    decision = decide(service(f"gpu: {{products: [{product}]}}"), [node("n", gfd(product, memory, capability))])
    assert decision.plan is not None
    engine = decision.plan.engine()
    assert decision.plan.profile.name == profile
    assert (engine["workers"], engine["decode_process_num"], engine["quant_type"]) == (workers, decoders, quant_type)
    assert (decision.plan.site.memory_mib, decision.plan.site.assumed) == (memory, False)
    assert decision.problem is None
    assert decision.bundle is not None


SCENARIOS = [
    Scenario(
        "ECC takes 6 %: the row is the card's, the memory the label's",
        "gpu: {products: [NVIDIA-A10], memoryMiB: {min: 23000}}",
        [gfd("NVIDIA-A10", 21647, "8.6")],
        "a10",
        {"workers": 2},
        (21647, False),
        1,
    ),
    Scenario(
        "10 GB against 12 GB: the range keeps the small card out",
        "gpu: {products: [NVIDIA-GeForce-RTX-3080], memoryMiB: {min: 12000}}",
        [gfd("NVIDIA-GeForce-RTX-3080", 10240, "8.6"), gfd("NVIDIA-GeForce-RTX-3080", 12288, "8.6")],
        "rtx-3080-12gb",
        site=(12288, False),
        matching=1,
    ),
    Scenario(
        "10 GB and 12 GB in one class: sized for the small one",
        "gpu: {products: [NVIDIA-GeForce-RTX-3080]}",
        [gfd("NVIDIA-GeForce-RTX-3080", 12288, "8.6"), gfd("NVIDIA-GeForce-RTX-3080", 10240, "8.6")],
        "rtx-3080-10gb",
        site=(10240, False),
        matching=2,
        warning="the nodes of this class differ: NVIDIA-GeForce-RTX-3080 (10240 MiB), NVIDIA-GeForce-RTX-3080 (12288",
    ),
    Scenario(
        "an upper bound keeps the large card out",
        "gpu: {products: [NVIDIA-GeForce-RTX-3080], memoryMiB: {max: 11000}}",
        [gfd("NVIDIA-GeForce-RTX-3080", 10240, "8.6"), gfd("NVIDIA-GeForce-RTX-3080", 12288, "8.6")],
        "rtx-3080-10gb",
        matching=1,
    ),
    Scenario(
        "a row's name means all its products",
        "gpu: {products: [rtx-4090]}",
        [RTX_4090, gfd("NVIDIA-GeForce-RTX-4090-D", 24564, "8.9")],
        "rtx-4090",
        matching=2,
    ),
    Scenario(
        "a product means itself alone",
        "gpu: {products: [NVIDIA-GeForce-RTX-4090]}",
        [RTX_4090, gfd("NVIDIA-GeForce-RTX-4090-D", 24564, "8.9"), L4],
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
        [RTX_4090, gfd("NVIDIA-L40S", 46068, "8.9")],
        "l40s",
        matching=1,
    ),
    Scenario(
        "-SHARED by time-slicing: half a card each, and it is said",
        "gpu: {products: [NVIDIA-L4]}",
        [node("n", L4_SHARED, {GPU: 2})],
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
            node(
                "n",
                gfd("NVIDIA-L4", 23034, "8.9", replicas="3", sharing_strategy="mps", count="1"),
                {"nvidia.com/gpu.shared": 3},
            )
        ],
        "l4",
        site=(7678, False),
        warning="(mps): sized for 7678 MiB",
    ),
    Scenario(
        "shared and whole cards in one class: sized for the part",
        "gpu: {products: [NVIDIA-L4]}",
        [L4, node("n", L4_SHARED, {GPU: 2})],
        "l4",
        site=(11517, False),
        matching=2,
        warning="the nodes of this class differ",
    ),
    Scenario(
        "MIG single: the slice as a product",
        "gpu: {products: [NVIDIA-A100-SXM4-40GB-MIG-3g.20gb]}",
        [node("n", gfd("NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", 19968, "8.0"), {GPU: 2})],
        "generic",
        {"quant_type": INT8},
        (19968, False),
        1,
    ),
    Scenario(
        "MIG mixed: the card as a product, the slice as a resource",
        "gpu: {products: [NVIDIA-A100-SXM4-40GB], resourceName: nvidia.com/mig-1g.5gb}",
        [node("n", A100_MIG, {GPU: 0, "nvidia.com/mig-1g.5gb": 7})],
        "generic",
        {"workers": 1},
        (4864, False),
        1,
    ),
    Scenario(
        "a whole-card class leaves sliced nodes alone",
        "gpu: {products: [NVIDIA-A100-SXM4-40GB]}",
        [
            gfd("NVIDIA-A100-SXM4-40GB", 40960, "8.0"),
            node("sliced", gfd("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 4864, "8.0"), {GPU: 7}),
        ],
        "a100-40gb",
        site=(40960, False),
        matching=1,
    ),
    Scenario(
        "GKE without feature discovery: the row's memory is assumed",
        "gpu: {products: [NVIDIA-L4]}",
        [{"cloud.google.com/gke-accelerator": "nvidia-l4"}],
        "l4",
        {"quant_type": FP8},
        (23034, True),
        1,
        "the nodes do not say how much memory nvidia-l4 has: 23034 MiB are assumed",
    ),
    Scenario(
        "CoreWeave",
        "gpu: {products: [h100], memoryMiB: {min: 80000}}",
        [{"gpu.nvidia.com/model": "H100_NVLINK_80GB", "gpu.nvidia.com/vram": "81"}],
        "h100",
        site=(81000, False),
        matching=1,
    ),
    Scenario(
        "Karpenter",
        "gpu: {products: [NVIDIA-A10G]}",
        [{"karpenter.k8s.aws/instance-gpu-name": "a10g", "karpenter.k8s.aws/instance-gpu-memory": "22888"}],
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
        [gfd("NVIDIA-GB10", None, "12.1")],
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
        [RTX_4090, gfd("NVIDIA-H100-80GB-HBM3", 81559, "9.0")],
        "rtx-4090",
        {"load_trt": False, "quant_type": FP8},
        origins={"load_trt": Origin.DEVICE},
    ),
    Scenario(
        "a profile that asks too much of the card is adapted",
        "gpu: {products: [Tesla-T4]}, profile: rtx-4090",
        [gfd("Tesla-T4", 15360, "7.5")],
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
        [gfd("NVIDIA-Future-9000", 49152, "12.0")],
        "generic",
        {"workers": 4, "quant_type": FP8},
    ),
    Scenario(
        "a node selector of the pod counts",
        "gpu: {}",
        [RTX_4090 | {"team": "tts"}, gfd("Tesla-T4", 15360, "7.5")],
        "rtx-4090",
        matching=1,
        more="  pod: {nodeSelector: {team: tts}}\n",
    ),
    Scenario(
        "a toleration of the pod counts",
        "gpu: {}",
        [node("n", RTX_4090, taints=[{"key": "team", "value": "tts", "effect": "NoSchedule"}])],
        "rtx-4090",
        matching=1,
        more="  pod: {tolerations: [{key: team, operator: Exists}]}\n",
    ),
    Scenario(
        "the device's own taint is tolerated",
        "gpu: {}",
        [node("n", RTX_4090, taints=[{"key": GPU, "value": "present", "effect": "NoSchedule"}])],
        "rtx-4090",
        matching=1,
    ),
    Scenario(
        "a mixed node among good ones is left out, with a warning",
        "gpu: {products: [rtx-4090]}",
        [RTX_4090, node("mixed", RTX_4090 | {f"{GPU}.count": "1"}, {GPU: 2})],
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
def test_class_on_its_nodes(scenario: Scenario) -> None:
    nodes = [
        one if isinstance(one, NodeFacts) else node(f"n{index}", one) for index, one in enumerate(scenario.nodes)
    ]
    decision = decide(service(scenario.asked, scenario.more), nodes)
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


@pytest.mark.parametrize(
    ("asked", "nodes", "reason", "message", "runs"),
    [
        pytest.param(
            "gpu: {products: [rtx-4090]}",
            [],
            "NoMatchingNode",
            "no node offers nvidia.com/gpu",
            True,
            id="zero nodes now, but allowed: planned for the smallest variant",
        ),
        pytest.param(
            "gpu: {products: [rtx-4090]}",
            [L4, gfd("Tesla-T4", 15360, "7.5")],
            "NoMatchingNode",
            "wanted is rtx-4090; nodes have NVIDIA-L4 (23034 MiB), Tesla-T4 (15360 MiB)",
            True,
            id="other products",
        ),
        pytest.param(
            "gpu: {products: [rtx-4090]}",
            [{}],
            "NoMatchingNode",
            "without a label that names the product; install GPU feature discovery",
            True,
            id="labels missing",
        ),
        pytest.param(
            "gpu: {products: [rtx-4090]}",
            [node("n", RTX_4090, taints=[{"key": "team", "value": "x", "effect": "NoSchedule"}])],
            "NoMatchingNode",
            "its nodes have the taint team; add a toleration",
            True,
            id="a taint",
        ),
        pytest.param(
            "gpu: {products: [rtx-4090]}",
            [node("mixed", RTX_4090 | {f"{GPU}.count": "1"}, {GPU: 2})],
            "MixedGPUs",
            "several products in one node cannot be sized for",
            True,
            id="mixed GPUs on the only node",
        ),
        pytest.param(
            "gpu: {}",
            [node("bad", gfd("NVIDIA-A100-SXM4-40GB-MIG-INVALID", 0, "8.0"), {GPU: 0})],
            "UnknownProduct",
            "give gpu.memoryMiB.min or profile",
            False,
            id="nothing to size by",
        ),
        pytest.param(
            "gpu: {products: [NVIDIA-A100-SXM4-40GB-MIG-INVALID]}, profile: a100-40gb",
            [node("bad", gfd("NVIDIA-A100-SXM4-40GB-MIG-INVALID", 0, "8.0"), {GPU: 0})],
            "MIGInvalid",
            "node bad: its MIG slices are not all equal",
            True,
            id="MIG invalid on the only node",
        ),
        pytest.param(
            "gpu: {products: [rtx-4090]}, profile: rtx4090",
            [RTX_4090],
            "UnknownProfile",
            "there is no profile 'rtx4090'; did you mean rtx-4090",
            False,
            id="a profile that does not exist",
        ),
        pytest.param(
            "gpu: {products: [NVIDIA-Future-9000]}",
            [],
            "UnknownProduct",
            "is not in the sizing table",
            False,
            id="an unknown product without a node",
        ),
        pytest.param(
            "gpu: {products: ['***']}",
            [RTX_4090],
            "UnknownProduct",
            "*** is not in the sizing table",
            False,
            id="a product that is no name",
        ),
        pytest.param(
            "gpu: {products: [NVIDIA-GB10]}",
            [gfd("NVIDIA-GB10", None, "12.1")],
            "UnknownProduct",
            "the nodes do not say how much memory NVIDIA-GB10 has",
            False,
            id="unified memory and nothing else",
        ),
        pytest.param(
            "gpu: {products: [NVIDIA-A100-SXM4-40GB]}, engine: {quant_type: triton-fp8w8a8-b128}",
            [gfd("NVIDIA-A100-SXM4-40GB", 40960, "8.0")],
            "UnsupportedQuantization",
            "needs compute capability 8.9; NVIDIA-A100-SXM4-40GB has 8.0; use triton_int8weight",
            False,
            id="fp8 asked on Ampere",
        ),
        pytest.param(
            "gpu: {products: [NVIDIA-GeForce-RTX-3080]}, engine: {workers: 8}",
            [gfd("NVIDIA-GeForce-RTX-3080", 10240, "8.6")],
            "OutOfMemory",
            "NVIDIA-GeForce-RTX-3080 has",
            False,
            id="a model that does not fit as asked",
        ),
        pytest.param(
            "gpu: {}",
            [gfd("NVIDIA-T400", 2048, "7.5")],
            "OutOfMemory",
            "no smaller plan fits; use a larger device",
            False,
            id="a device too small for any plan",
        ),
    ],
)
def test_trouble_is_named(asked: str, nodes: list[Any], reason: str, message: str, runs: bool) -> None:
    facts = [one if isinstance(one, NodeFacts) else node(f"n{index}", one) for index, one in enumerate(nodes)]
    decision = decide(service(asked), facts)
    assert decision.problem is not None
    assert decision.problem.reason == reason
    assert message in decision.problem.message
    assert (decision.bundle is not None) == runs
    assert decision.desired == (1 if runs else 0)


def test_nodes_that_may_not_be_read_are_no_problem() -> None:
    decision = decide(service("gpu: {products: [NVIDIA-GeForce-RTX-3080]}"), None)
    assert decision.plan is not None
    assert (decision.plan.site.memory_mib, decision.plan.site.assumed) == (10240, True)
    assert (decision.problem, decision.matching_nodes) == (None, None)


def test_the_order_of_nodes_changes_nothing() -> None:
    nodes = [node(f"n{i}", labels) for i, labels in enumerate((RTX_4090, RTX_3090, L4, RTX_4090))]
    asked = service("gpu: {}")
    assert decide(asked, nodes) == decide(asked, nodes[::-1])


def test_profile_object_replaces_adds_and_decides_ties() -> None:
    def row(name: str, priority: int, workers: int, products: str = "NVIDIA-L4") -> dict[str, Any]:
        return {
            "apiVersion": "ttsfleet.dev/v1alpha1",
            "kind": "TTSGPUProfile",
            "metadata": {"name": name, "uid": "u"},
            "spec": {
                "products": [products],
                "memoryMiB": 24000,
                "computeCapability": "8.9",
                "priority": priority,
                "engine": {"workers": workers},
            },
        }

    def profile(*objects: dict[str, Any], product: str = "NVIDIA-L4") -> tuple[str, object]:
        plan = decide(
            service(f"gpu: {{products: [{product}]}}"), [node("n", gfd(product, 23034, "8.9"))], objects
        ).plan
        assert plan is not None
        return plan.profile.name, plan.engine()["workers"]

    assert profile(row("l4", 0, 1)) == ("l4", 1)
    assert profile(row("ours", 1, 1)) == ("ours", 1)
    assert profile(row("ours", 0, 1)) == ("l4", 2)
    assert profile(row("new", 0, 1, "NVIDIA-New"), product="NVIDIA-New") == ("new", 1)


def test_malformed_profile_object_is_left_out_and_named() -> None:
    read = read_profile_object({"kind": "TTSGPUProfile", "metadata": {"name": "bad"}, "spec": {"engine": {}}})
    assert read.row is None
    assert read.error.startswith("TTSGPUProfile bad: ")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scheduler_admits_exactly_the_nodes_that_were_planned_for(scenario: Scenario) -> None:
    asked = service(scenario.asked, scenario.more)
    nodes = [
        one if isinstance(one, NodeFacts) else node(f"n{index}", one) for index, one in enumerate(scenario.nodes)
    ]
    decision = decide(asked, nodes)
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


@pytest.mark.parametrize("bounds", ["{max: 11000}", "{min: 1}", "{min: 1, max: 1}", "{}"])
@pytest.mark.parametrize("products", ["[]", "[rtx-4090]", "[NVIDIA GeForce RTX 4090 (any)]", "['***']"])
def test_terms_hold_only_what_the_api_server_accepts(products: str, bounds: str) -> None:
    decision = decide(service(f"gpu: {{products: {products}, memoryMiB: {bounds}}}, profile: l4"), [])
    assert decision.plan is not None
    terms = node_selector_terms(decision.hardware_class, decision.plan)
    assert terms or (products, bounds) == ("[]", "{}"), "without a term any node would do"
    for term in terms:
        assert term["matchExpressions"], "an empty term admits no node"
        for expression in term["matchExpressions"]:
            for value in expression.get("values", []):
                assert re.fullmatch(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?", value), expression
