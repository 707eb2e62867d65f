"""The scheduler's messages, as Kubernetes 1.3x writes them, become one reason and a text without counts."""

from __future__ import annotations

import pytest

from ttsfleet_operator.status.reasons import Reason
from ttsfleet_operator.status.scheduler_message import explain_unschedulable

NO_VICTIMS = " preemption: 0/5 nodes are available: 5 No preemption victims found for incoming pod."


@pytest.mark.parametrize(
    ("message", "reason", "words"),
    [
        pytest.param(
            "0/5 nodes are available: 2 Insufficient nvidia.com/gpu, 3 node(s) didn't match Pod's node "
            "affinity/selector." + NO_VICTIMS,
            Reason.INSUFFICIENT_GPU,
            "no nvidia.com/gpu is free; other nodes are not of this class",
            id="all devices taken",
        ),
        pytest.param(
            "0/1 nodes are available: 1 Insufficient nvidia.com/mig-1g.5gb. no new claims to deallocate,"
            + NO_VICTIMS,
            Reason.INSUFFICIENT_GPU,
            "no nvidia.com/mig-1g.5gb is free",
            id="MIG slices taken",
        ),
        pytest.param(
            "0/5 nodes are available: 5 node(s) didn't match Pod's node affinity/selector.",
            Reason.NO_MATCHING_NODE,
            "none is of this class",
            id="no node of the class",
        ),
        pytest.param(
            "0/5 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
            "4 node(s) didn't match Pod's node affinity/selector.",
            Reason.NO_MATCHING_NODE,
            "none is of this class",
            id="the control plane's taint is noise",
        ),
        pytest.param(
            "0/2 nodes are available: 2 node(s) had untolerated taint {dedicated: training}.",
            Reason.NODE_TAINTS,
            "taint dedicated is not tolerated",
            id="a team's taint",
        ),
        pytest.param(
            "0/2 nodes are available: 2 node(s) had untolerated taint(s).",
            Reason.NODE_TAINTS,
            "a taint is not tolerated",
            id="a taint without its name",
        ),
        pytest.param(
            "0/2 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/unreachable: }.",
            Reason.NO_MATCHING_NODE,
            "nodes are tainted by the cluster itself",
            id="all nodes unreachable",
        ),
        pytest.param(
            "0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Insufficient nvidia.com/gpu.",
            Reason.INSUFFICIENT_GPU,
            "no nvidia.com/gpu is free; matching nodes have too little memory free; matching nodes have too little "
            "CPU free",
            id="several lacks",
        ),
        pytest.param(
            "0/3 nodes are available: 3 Insufficient cpu.", Reason.INSUFFICIENT_CPU, "too little CPU", id="cpu"
        ),
        pytest.param(
            "0/3 nodes are available: 3 Insufficient memory.",
            Reason.INSUFFICIENT_MEMORY,
            "too little memory",
            id="memory",
        ),
        pytest.param(
            "0/3 nodes are available: 3 Insufficient ephemeral-storage.",
            Reason.INSUFFICIENT_RESOURCES,
            "too little ephemeral-storage",
            id="disk",
        ),
        pytest.param(
            "0/3 nodes are available: 3 Too many pods.",
            Reason.INSUFFICIENT_RESOURCES,
            "all the pods",
            id="too many pods",
        ),
        pytest.param(
            "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: not eligible",
            Reason.VOLUME_NOT_BOUND,
            "a claim has no volume yet",
            id="unbound claim",
        ),
        pytest.param(
            '0/3 nodes are available: persistentvolumeclaim "models" not found.',
            Reason.VOLUME_NOT_BOUND,
            "claim models not found",
            id="missing claim",
        ),
        pytest.param(
            "0/3 nodes are available: 1 node(s) had volume node affinity conflict, 2 Insufficient nvidia.com/gpu.",
            Reason.VOLUME_NOT_BOUND,
            "where no matching node is",
            id="volume in another zone",
        ),
        pytest.param(
            "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints.",
            Reason.TOPOLOGY_CONSTRAINT,
            "spread",
            id="spread",
        ),
        pytest.param(
            "0/3 nodes are available: 3 node(s) were unschedulable.", Reason.NODE_TAINTS, "cordoned", id="cordoned"
        ),
        pytest.param(
            "no nodes available to schedule pods", Reason.NO_MATCHING_NODE, "has no node", id="empty cluster"
        ),
        pytest.param("something new", Reason.UNSCHEDULABLE, "the scheduler found no node", id="unknown words"),
        pytest.param("", Reason.UNSCHEDULABLE, "the scheduler found no node", id="no words"),
    ],
)
def test_cause_is_found_and_named(message: str, reason: Reason, words: str) -> None:
    found = explain_unschedulable(message)
    assert found.reason is reason
    assert words in found.causes


def test_counts_of_nodes_do_not_change_the_text() -> None:
    def text(free: int, other: int) -> str:
        return explain_unschedulable(
            f"0/{free + other} nodes are available: {free} Insufficient nvidia.com/gpu, {other} node(s) didn't match "
            "Pod's node affinity/selector."
        ).causes

    assert text(2, 3) == text(490, 10)


def test_order_of_the_clauses_does_not_change_the_text() -> None:
    one = explain_unschedulable("0/2 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.")
    other = explain_unschedulable("0/2 nodes are available: 1 Insufficient memory, 1 Insufficient cpu.")
    assert one == other
