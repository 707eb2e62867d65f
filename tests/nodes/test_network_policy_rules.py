"""Network policies as rules: what is read from the objects of the API, and what a node gets of it."""

from __future__ import annotations

from typing import Any

import pytest

from real_nodes.cluster import RealCluster
from real_nodes.network_policy import rule_set
from real_nodes.pods import pod
from real_nodes.policy_enforcer import NotEnforced
from real_nodes.policy_objects import Objects, Policy

DENY_ALL = {"metadata": {"name": "deny", "namespace": "here"}, "spec": {"podSelector": {}}}


def running(address: str, *, node: str = "node-a", phase: str = "Running", **spec: Any) -> dict[str, Any]:
    """A pod as the API server has it."""
    made = pod(f"pod-{address}", ["pause"], namespace="here", nodeName=node, **spec)
    return {**made, "status": {"phase": phase, "podIP": address}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, (True, False), id="ingress by default"),
        pytest.param({"egress": [{}]}, (True, True), id="egress too when there is an opening for it"),
        pytest.param({"policyTypes": ["Egress"]}, (False, True), id="what is named and nothing else"),
    ],
)
def test_a_policy_closes(spec: dict[str, Any], expected: tuple[bool, bool]) -> None:
    policy = Policy.read({**DENY_ALL, "spec": {**DENY_ALL["spec"], **spec}})
    assert (policy.ingress is not None, policy.egress is not None) == expected


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(running("198.18.101.9", hostNetwork=True), id="the network of its node"),
        pytest.param(running("198.18.101.9", phase="Succeeded"), id="an end, and an address for others"),
        pytest.param({**running(""), "status": {"phase": "Pending"}}, id="no address yet"),
    ],
)
def test_policies_do_not_apply_to_a_pod_with(one: dict[str, Any]) -> None:
    objects = Objects.read([one, running("198.18.101.2")], [], [DENY_ALL])
    assert [found.address for found in objects.pods] == ["198.18.101.2"]


def test_ports_of_sidecars_have_names_too() -> None:
    sidecar = {"name": "x", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9090}]}
    once = {"name": "y", "ports": [{"name": "setup", "containerPort": 1}]}
    objects = Objects.read([running("198.18.101.2", initContainers=[sidecar, once])], [], [])
    assert objects.pods[0].named_ports == {("TCP", "metrics"): 9090}


def test_a_node_gets_the_rules_of_its_own_pods() -> None:
    objects = Objects.read([running("198.18.101.2"), running("198.18.102.2", node="node-b")], [], [DENY_ALL])
    for node, own, other in (("node-a", "101_2", "102_2"), ("node-b", "102_2", "101_2")):
        assert f"chain ingress_198_18_{own} " in rule_set(objects, node)
        assert other not in rule_set(objects, node)


@pytest.mark.real_nodes
@pytest.mark.slow
def test_rules_that_a_node_does_not_take_are_told() -> None:
    cluster = RealCluster(nodes=1)
    cluster.start()
    try:
        policies = cluster.enforce_network_policies()
        policies.settle()
        cluster.exec_in_node("a", "mount", "--bind", "/bin/false", "/usr/sbin/nft")
        cluster.apply(
            {
                **DENY_ALL,
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "deny", "namespace": "kube-system"},
            }
        )
        with pytest.raises(NotEnforced, match="on node-a: nft"):
            policies.settle()
    finally:
        with pytest.raises(NotEnforced, match="on node-a: nft"):
            cluster.stop()
