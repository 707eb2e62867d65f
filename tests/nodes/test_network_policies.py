"""NetworkPolicies on real nodes: who still reaches whom, seen from inside the pods."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest

from control_plane.waiting import eventually
from real_nodes import reach
from real_nodes.cluster import RealCluster
from real_nodes.layout import HOST_ADDRESS, POD_RANGE, places
from real_nodes.pods import pod, service
from real_nodes.policy_enforcer import PolicyEnforcer

pytestmark = [pytest.mark.real_nodes, pytest.mark.slow]

Spec: TypeAlias = Mapping[str, Any]
NODE_A, NODE_B = places(2)
WEB, METRICS = 8080, 9090
SERVER = {"podSelector": {"matchLabels": {"app": "server"}}}
FRIENDS = {"podSelector": {"matchLabels": {"role": "friend"}}}
FRONT = {"namespaceSelector": {"matchLabels": {"team": "front"}}}
DNS = {
    "to": [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ],
    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
}
CLIENTS = ("near", "far", "stranger", "visitor")


@dataclass(frozen=True)
class Stage:
    """The pods of this module and the enforcer.

    On node a `server` (ports `web` and `metrics`), `second` (its `web` is another number), `near` (a friend) and
    `stranger`; `far` (a friend) on node b. In the namespace of the team `front` is `visitor` (a friend), on node a.
    """

    cluster: RealCluster
    policies: PolicyEnforcer
    here: str
    there: str
    addresses: dict[str, str]

    def address(self, name: str = "server") -> str:
        """Asked for once: the pods that are connected to keep theirs."""
        if name not in self.addresses:
            self.addresses[name] = self.cluster.get("pod", name, self._namespace(name))["status"]["podIP"]
        return self.addresses[name]

    def reaches(self, client: str, port: int = WEB, server: str = "server") -> bool:
        return self.gets(client, f"http://{self.address(server)}:{port}")

    def gets(self, client: str, url: str) -> bool:
        return reach.gets(self.cluster, self._namespace(client), client, url)

    def resolves(self, client: str, name: str) -> bool:
        return reach.resolves(self.cluster, self._namespace(client), client, name)

    def url(self, service: str) -> str:
        return f"http://{self.cluster.get('service', service, self.here)['spec']['clusterIP']}"

    def who_reaches(self, port: int = WEB, clients: Sequence[str] = CLIENTS) -> set[str]:
        url = f"http://{self.address()}:{port}"
        with ThreadPoolExecutor(max_workers=len(clients)) as together:
            answers = list(together.map(lambda one: self.gets(one, url), clients))
        return {one for one, reached in zip(clients, answers, strict=True) if reached}

    @contextmanager
    def policy(self, *specs: Spec) -> Iterator[None]:
        """Policies of the pods' namespace that act within the block."""
        names = [f"policy-{number}" for number in range(len(specs))]
        self.cluster.apply(
            *(
                {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "NetworkPolicy",
                    "metadata": {"name": name, "namespace": self.here},
                    "spec": dict(spec),
                }
                for name, spec in zip(names, specs, strict=True)
            )
        )
        try:
            self.policies.settle()
            yield
        finally:
            self.cluster.kubectl("delete", "networkpolicy", "-n", self.here, *names)
            self.policies.settle()

    def _namespace(self, name: str) -> str:
        return self.there if name == "visitor" else self.here


@pytest.fixture(scope="module")
def stage(cluster: RealCluster) -> Iterator[Stage]:
    """The pods, ready, with policies enforced."""
    with cluster.namespace("here") as here, cluster.namespace("there", {"team": "front"}) as there:
        friend, a, b = {"role": "friend"}, NODE_A.name, NODE_B.name
        cluster.apply(
            server_pod("server", here, {"app": "server", "first": "yes"}, web=WEB, metrics=METRICS),
            server_pod("second", here, {"app": "server"}, web=METRICS),
            pod("near", ["serve", f":{WEB}"], namespace=here, node=a, labels=friend),
            pod("far", ["pause"], namespace=here, node=b, labels=friend),
            pod("stranger", ["pause"], namespace=here, node=a),
            pod("visitor", ["pause"], namespace=there, node=a, labels=friend),
            *(
                {**service(name, selector, 80, WEB), "metadata": {"name": name, "namespace": here}}
                for name, selector in (("shop", {"app": "server"}), ("alone", {"first": "yes"}))
            ),
        )
        for namespace in (here, there):
            cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", "pod", "--all")
        policies = cluster.enforce_network_policies()
        policies.settle()
        yield Stage(cluster, policies, here, there, {})


def server_pod(name: str, namespace: str, labels: Mapping[str, str], **ports: int) -> dict[str, Any]:
    """A pod with a container per named port, seen as ready by its kubelet's probe of the first."""
    made = pod(name, [], namespace=namespace, node=NODE_A.name, labels=labels)
    (container,) = made["spec"]["containers"]
    made["spec"]["containers"] = [
        {
            **container,
            "name": port,
            "args": ["serve", f":{number}"],
            "ports": [{"name": port, "containerPort": number}],
            "readinessProbe": {"httpGet": {"path": "/", "port": number}, "periodSeconds": 1, "failureThreshold": 1},
        }
        for port, number in ports.items()
    ]
    return made


def ingress(*openings: Spec) -> Spec:
    return {**SERVER, "policyTypes": ["Ingress"], "ingress": list(openings)}


def egress(*openings: Spec) -> Spec:
    return {**FRIENDS, "policyTypes": ["Egress"], "egress": list(openings)}


def block(cidr: str, *left_out: str) -> Spec:
    return {"ipBlock": {"cidr": cidr, **({"except": list(left_out)} if left_out else {})}}


def role(operator: str, *values: str) -> Spec:
    return {"podSelector": {"matchExpressions": [{"key": "role", "operator": operator, "values": list(values)}]}}


EVERYBODY = set(CLIENTS)
PEERS = [
    pytest.param([ingress()], set(), id="nobody without an opening"),
    pytest.param([ingress({})], EVERYBODY, id="everybody through an empty one"),
    pytest.param([ingress({"from": [FRIENDS]})], {"near", "far"}, id="pods of the namespace, on both nodes"),
    pytest.param([ingress({"from": [FRONT]})], {"visitor"}, id="all pods of a namespace"),
    pytest.param(
        [ingress({"from": [{**FRONT, **SERVER}]})], set(), id="pods that are in the namespace and have the label"
    ),
    pytest.param([ingress({"from": [FRONT, FRIENDS]})], {"near", "far", "visitor"}, id="one peer or the other"),
    pytest.param([ingress({"from": [{**FRONT, **FRIENDS}]})], {"visitor"}, id="both selectors in one peer"),
    pytest.param([ingress({"from": [{"podSelector": {}}]})], {"near", "far", "stranger"}, id="the whole namespace"),
    pytest.param([ingress({"from": [{"namespaceSelector": {}}]})], EVERYBODY, id="every namespace"),
    pytest.param([ingress({"from": [role("NotIn", "friend")]})], {"stranger"}, id="not in: also without the label"),
    pytest.param([ingress({"from": [role("DoesNotExist")]})], {"stranger"}, id="without the label"),
    pytest.param([ingress({"from": [role("Exists")]})], {"near", "far"}, id="with the label"),
    pytest.param([ingress({"from": [block(NODE_B.pods)]})], {"far"}, id="a block of addresses"),
    pytest.param([ingress({"from": [block(POD_RANGE, NODE_A.pods)]})], {"far"}, id="a block without a part"),
    pytest.param([ingress({"from": [block("0.0.0.0/0")]})], EVERYBODY, id="the block of all addresses"),
    pytest.param([ingress({"from": [block("::/0")]})], set(), id="a block of the other family"),
    pytest.param(
        [ingress(), ingress({"from": [FRONT]}), ingress({"from": [block(NODE_B.pods)]})],
        {"far", "visitor"},
        id="the union of policies",
    ),
    pytest.param([{"podSelector": {"matchLabels": {"app": "other"}}}], EVERYBODY, id="a policy of other pods"),
]


@pytest.mark.parametrize(("specs", "expected"), PEERS)
def test_a_pod_is_reached_by(stage: Stage, specs: list[Spec], expected: set[str]) -> None:
    with stage.policy(*specs):
        assert stage.who_reaches() == expected


def test_a_removed_policy_opens_again(stage: Stage) -> None:
    with stage.policy(ingress()):
        assert stage.who_reaches() == set()
    assert stage.who_reaches() == EVERYBODY


def tcp(port: int | str, **more: Any) -> Spec:
    return {"port": port, "protocol": "TCP", **more}


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        pytest.param([tcp(WEB)], {WEB}, id="a number"),
        pytest.param([tcp("metrics")], {METRICS}, id="a name"),
        pytest.param([tcp("nobody")], set(), id="a name that the pod has not"),
        pytest.param([tcp(8000, endPort=METRICS - 1)], {WEB}, id="a range"),
        pytest.param([tcp(8000, endPort=METRICS), tcp(9000, endPort=9100)], {WEB, METRICS}, id="ranges that overlap"),
        pytest.param([{"protocol": "TCP"}], {WEB, METRICS}, id="all of a protocol"),
        pytest.param([{"port": WEB, "protocol": "UDP"}], set(), id="another protocol"),
        pytest.param([{"port": WEB, "protocol": "SCTP"}, tcp(METRICS)], {METRICS}, id="one of two protocols"),
    ],
)
@pytest.mark.parametrize("client", ["near", "far"])
def test_a_pod_is_reached_at(stage: Stage, client: str, ports: list[Spec], expected: set[int]) -> None:
    with stage.policy(ingress({"ports": ports, "from": [FRIENDS]})):
        assert {port for port in (WEB, METRICS) if stage.reaches(client, port)} == expected


@pytest.mark.parametrize("client", ["near", "far"])
def test_egress_to_a_port_by_name_is_the_number_of_each_pod(stage: Stage, client: str) -> None:
    with stage.policy(egress({"to": [SERVER], "ports": [tcp("web")]})):
        reached = [stage.reaches(client, *one) for one in ((WEB, "server"), (METRICS, "server"), (METRICS, "second"))]
        assert reached == [True, False, True]


@pytest.mark.parametrize("client", ["near", "far"])
def test_closed_egress_leaves_names_and_replies_where_they_are_allowed(stage: Stage, client: str) -> None:
    names = f"shop.{stage.here}.svc.cluster.local"
    with stage.policy(egress()):
        assert not stage.resolves(client, names)
        assert stage.reaches("stranger", server="near"), "a reply is no egress"
    with stage.policy(egress(DNS)):
        assert stage.resolves(client, names)
        assert not stage.reaches(client)
        assert stage.reaches("stranger")


def test_policies_see_the_pods_behind_a_service(stage: Stage) -> None:
    """The port is the pod's and not the Service's; the second pod of the Service does not listen on it."""
    stage.cluster.kubectl("label", "pod", "-n", stage.here, "second", "app=other", "--overwrite")
    url = stage.url("shop")
    eventually(lambda: stage.gets("near", url), "the Service")
    with stage.policy(ingress({"from": [FRIENDS], "ports": [tcp(WEB)]}), egress({"to": [SERVER]})):
        assert [stage.gets(client, url) for client in ("near", "far", "stranger")] == [True, True, False]
    with stage.policy(ingress({"ports": [tcp(80)]})):
        assert not stage.gets("far", url)


def test_a_kubelet_probes_its_pods_whatever_policies_say(stage: Stage) -> None:
    with stage.policy({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}):
        stage.cluster.apply(server_pod("probed", stage.here, {}, web=WEB))
        stage.cluster.kubectl("wait", "-n", stage.here, "--for=condition=Ready", "--timeout=60s", "pod/probed")
        stage.policies.settle()
        assert not stage.reaches("near", server="probed")


def test_a_pod_reaches_itself_through_a_service_whatever_policies_say(stage: Stage) -> None:
    eventually(lambda: stage.gets("server", stage.url("alone")), "the Service")
    with stage.policy({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}):
        assert stage.gets("server", stage.url("alone"))
        assert not stage.gets("near", stage.url("alone"))


def test_the_host_is_outside_of_the_cluster(stage: Stage) -> None:
    server = (stage.address(), WEB)
    forbidden = pytest.raises(OSError, match="No route to host")
    with stage.policy(ingress({"from": [{"namespaceSelector": {}}]})), forbidden:
        socket.create_connection(server, timeout=5)
    with stage.policy(ingress({"from": [block(f"{HOST_ADDRESS}/32")]})):
        socket.create_connection(server, timeout=5).close()


def test_rules_follow_labels_also_after_the_api_server_was_away(stage: Stage) -> None:
    with stage.policy(ingress({"from": [FRIENDS]})):
        for restart, labels, expected in ((False, "role=friend", True), (True, "role-", False)):
            if restart:
                stage.cluster.restart_api_server()
            stage.cluster.kubectl("label", "pod", "-n", stage.here, "stranger", labels)
            stage.policies.settle()
            assert stage.reaches("stranger") is expected


def test_a_node_that_comes_back_has_its_rules_again(stage: Stage) -> None:
    def restarted() -> bool:
        (status,) = stage.cluster.get("pod", "far", stage.here)["status"]["containerStatuses"]
        return bool(status["ready"]) and status["restartCount"] == 1

    with stage.policy(egress()):
        stage.cluster.node("b").restart()
        eventually(restarted, "the pod runs again", within=60, every=0.2)
        stage.policies.settle()
        assert not stage.reaches("far")
    assert stage.reaches("far")
