"""One class that cannot run, or not as it is written: the reason, and the words that say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

GPU = "nvidia.com/gpu"
RTX_4090 = {"product": "NVIDIA-GeForce-RTX-4090", "memory": 24564, "capability": "8.9"}
RTX_3090 = {"product": "NVIDIA-GeForce-RTX-3090", "memory": 24576, "capability": "8.6"}
L4 = {"product": "NVIDIA-L4", "memory": 23034, "capability": "8.9"}
MIXED = RTX_4090 | {"name": "mixed", "count": "1", "devices": {GPU: 2}}
BAD_SLICES = {
    "name": "bad",
    "product": "NVIDIA-A100-SXM4-40GB-MIG-INVALID",
    "memory": 0,
    "capability": "8.0",
    "devices": {GPU: 0},
}


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
            [L4, {"product": "Tesla-T4", "memory": 15360, "capability": "7.5"}],
            "NoMatchingNode",
            "wanted is rtx-4090; nodes have NVIDIA-L4 (23034 MiB), Tesla-T4 (15360 MiB)",
            True,
            id="other products",
        ),
        pytest.param(
            "gpu: {products: [rtx-4090]}",
            [RTX_4090 | {"name": "ill", "devices": {GPU: 1}, "capacity": {GPU: 2}}, RTX_4090 | {"name": "well"}],
            "DeviceUnhealthy",
            "nvidia.com/gpu of ill: not every device is healthy",
            True,
            id="a device that cannot be given",
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
            [RTX_4090 | {"taints": [{"key": "team", "value": "x", "effect": "NoSchedule"}]}],
            "NoMatchingNode",
            "its nodes have the taint team; add a toleration",
            True,
            id="a taint",
        ),
        pytest.param(
            "gpu: {products: [rtx-4090]}",
            [MIXED],
            "MixedGPUs",
            "several products in one node cannot be sized for",
            True,
            id="mixed GPUs on the only node",
        ),
        pytest.param(
            "gpu: {}",
            [BAD_SLICES],
            "UnknownProduct",
            "give gpu.memoryMiB.min or profile",
            False,
            id="nothing to size by",
        ),
        pytest.param(
            "gpu: {products: [NVIDIA-A100-SXM4-40GB-MIG-INVALID]}, profile: a100-40gb",
            [BAD_SLICES],
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
            [{"product": "NVIDIA-GB10", "capability": "12.1"}],
            "UnknownProduct",
            "the nodes do not say how much memory NVIDIA-GB10 has",
            False,
            id="unified memory and nothing else",
        ),
        pytest.param(
            "gpu: {products: [NVIDIA-A100-SXM4-40GB]}, engine: {quant_type: triton-fp8w8a8-b128}",
            [{"product": "NVIDIA-A100-SXM4-40GB", "memory": 40960, "capability": "8.0"}],
            "UnsupportedQuantization",
            "needs compute capability 8.9; NVIDIA-A100-SXM4-40GB has 8.0; use triton_int8weight",
            False,
            id="fp8 asked on Ampere",
        ),
        pytest.param(
            "gpu: {products: [NVIDIA-GeForce-RTX-3080]}, engine: {workers: 8}",
            [{"product": "NVIDIA-GeForce-RTX-3080", "memory": 10240, "capability": "8.6"}],
            "OutOfMemory",
            "NVIDIA-GeForce-RTX-3080 has",
            False,
            id="a model that does not fit as asked",
        ),
        pytest.param(
            "gpu: {}",
            [{"product": "NVIDIA-T400", "memory": 2048, "capability": "7.5"}],
            "OutOfMemory",
            "no smaller plan fits; use a larger device",
            False,
            id="a device too small for any plan",
        ),
    ],
)
def test_trouble_is_named(
    fleet: Any, asked: str, nodes: list[Mapping[str, Any]], reason: str, message: str, runs: bool
) -> None:
    decision = fleet.decide(fleet.service(asked), fleet.nodes(nodes))
    assert decision.problem is not None
    assert decision.problem.reason == reason
    assert message in decision.problem.message
    assert (decision.bundle is not None) == runs
    assert decision.desired == (1 if runs else 0)


def test_nodes_that_may_not_be_read_are_no_problem(fleet: Any) -> None:
    decision = fleet.decide(fleet.service("gpu: {products: [NVIDIA-GeForce-RTX-3080]}"), None)
    assert decision.plan is not None
    assert (decision.plan.site.memory_mib, decision.plan.site.assumed) == (10240, True)
    assert (decision.problem, decision.matching_nodes) == (None, None)


def test_the_order_of_nodes_changes_nothing(fleet: Any) -> None:
    nodes = fleet.nodes([RTX_4090, RTX_3090, L4, RTX_4090])
    asked = fleet.service("gpu: {}")
    assert fleet.decide(asked, nodes) == fleet.decide(asked, nodes[::-1])
