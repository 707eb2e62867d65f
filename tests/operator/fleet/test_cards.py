"""The sizing table: each card of it on a node, rows of the cluster's own, and how a class names its nodes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ttsfleet_operator.fleet.affinity import node_selector_terms
from ttsfleet_operator.profiles import read_profile_object

INT8, FP8 = "triton_int8weight", "triton-fp8w8a8-b128"
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
    fleet: Any, product: str, memory: int, capability: str, profile: str, workers: int, decoders: int, quant_type: str
) -> None:
    node = {"product": product, "memory": memory, "capability": capability}
    decision = fleet.decide(fleet.service(f"gpu: {{products: [{product}]}}"), fleet.nodes([node]))
    assert decision.plan is not None
    engine = decision.plan.engine()
    assert decision.plan.profile.name == profile
    assert (engine["workers"], engine["decode_process_num"], engine["quant_type"]) == (workers, decoders, quant_type)
    assert (decision.plan.site.memory_mib, decision.plan.site.assumed) == (memory, False)
    assert decision.problem is None
    assert decision.bundle is not None


def test_profile_object_replaces_adds_and_decides_ties(fleet: Any) -> None:
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
        nodes = fleet.nodes([{"product": product, "memory": 23034, "capability": "8.9"}])
        plan = fleet.decide(fleet.service(f"gpu: {{products: [{product}]}}"), nodes, objects).plan
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


@pytest.mark.parametrize("bounds", ["{max: 11000}", "{min: 1}", "{min: 1, max: 1}", "{}"])
@pytest.mark.parametrize("products", ["[]", "[rtx-4090]", "[NVIDIA GeForce RTX 4090 (any)]", "['***']"])
def test_terms_hold_only_what_the_api_server_accepts(fleet: Any, products: str, bounds: str) -> None:
    decision = fleet.decide(fleet.service(f"gpu: {{products: {products}, memoryMiB: {bounds}}}, profile: l4"), [])
    assert decision.plan is not None
    terms = node_selector_terms(decision.hardware_class, decision.plan)
    assert terms or (products, bounds) == ("[]", "{}"), "without a term any node would do"
    for term in terms:
        assert term["matchExpressions"], "an empty term admits no node"
        for expression in term["matchExpressions"]:
            for value in expression.get("values", []):
                assert re.fullmatch(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?", value), expression
