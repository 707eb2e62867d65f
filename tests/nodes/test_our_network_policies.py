"""Our own NetworkPolicies with an enforcer, and Pod Security restricted in both namespaces.

The pods stand in for the operator's and for the runtime's: labels, ports, probes and security as rendered, with the
test image in place of ours, which listens on the same ports and on one more.
"""

from __future__ import annotations

import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import yaml

from control_plane.errors import CommandFailed
from control_plane.waiting import eventually
from real_nodes import reach
from real_nodes.cluster import RealCluster
from real_nodes.commands import path_of
from real_nodes.layout import HOST_ADDRESS, HOST_LINK
from real_nodes.pods import pod
from real_nodes.policy_enforcer import PolicyEnforcer
from real_nodes.rendered import API, MANAGEMENT, OTHER, SETTINGS, Manifest, Objects, chart, rendered
from ttsfleet_operator.fleet.settings import FleetSettings

pytestmark = [pytest.mark.real_nodes, pytest.mark.slow]

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
BUILTIN = "{builtin: {name: tiny-en}}"
HUB = "{huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B}}"
FRONT_ONLY = "policy: {ingressFrom: [{namespaceSelector: {matchLabels: {team: front}}}]}"
LINK_LOCAL = "169.254.77.77"


@dataclass(frozen=True)
class Stage:
    """Pods, ready and without policies: in `speech` the `narrator` (node a) of two and a `neighbour`, in `system` the
    `operator`, in `front` (a namespace of the team front) a `client` and a `mirror` of models, on node b.

    Outside of the cluster, the host listens on port 443 of its address and of a link-local one.
    """

    cluster: RealCluster
    policies: PolicyEnforcer
    namespaces: dict[str, str]

    @property
    def speech(self) -> str:
        return self.namespaces["narrator"]

    @property
    def system(self) -> str:
        return self.namespaces["operator"]

    def address(self, name: str) -> str:
        found: str = self.cluster.get("pod", name, self.namespaces[name])["status"]["podIP"]
        return found

    def gets(self, client: str, url: str) -> bool:
        return reach.gets(self.cluster, self.namespaces[client], client, url)

    def open_ports(self, client: str, server: str) -> set[int]:
        """Which of its ports a pod shows to another, or to the host."""
        address = self.address(server)
        look = _host_connects if client == "host" else lambda *at: self.gets(client, f"http://{at[0]}:{at[1]}")
        return {port for port in (API, MANAGEMENT, OTHER) if look(address, port)}

    def destinations(self, client: str) -> set[str]:
        """What a pod may connect to."""
        mirror = self.address("mirror")
        urls = {f"mirror:{port}": f"http://{mirror}:{port}" for port in (80, 443, OTHER)}
        urls |= {"outside:443": f"http://{HOST_ADDRESS}:443", "link-local:443": f"http://{LINK_LOCAL}:443"}
        found = {name for name, url in urls.items() if self.gets(client, url)}
        api_server = self.cluster.get("service", "kubernetes", "default")["spec"]["clusterIP"]
        try:
            self.gets(client, f"https://{api_server}") and found.add("API server")
        except CommandFailed as error:
            if "certificate" not in error.stderr:
                raise
            found.add("API server")
        if reach.resolves(self.cluster, self.namespaces[client], client, "kubernetes.default.svc.cluster.local"):
            found.add("names")
        return found

    @contextmanager
    def policy(self, objects: Objects) -> Iterator[None]:
        """The rendered NetworkPolicy acts within the block."""
        made = objects.one("NetworkPolicy")
        self.cluster.apply(made)
        try:
            self.policies.settle()
            yield
        finally:
            place = ["-n", made["metadata"]["namespace"], made["metadata"]["name"]]
            self.cluster.kubectl("delete", "networkpolicy", *place)


def _host_connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError as error:
        if "No route to host" not in str(error):
            raise
        return False
    return True


@pytest.fixture(scope="module")
def stage(cluster: RealCluster) -> Iterator[Stage]:
    """The stage, with a way from narrator and operator to the link-local address, as pods in a cloud have."""
    with ExitStack() as until_the_end:
        speech, system = (
            until_the_end.enter_context(cluster.namespace(one, RESTRICTED)) for one in ("speech", "system")
        )
        front = until_the_end.enter_context(cluster.namespace("front", {"team": "front"}))
        runtime = rendered(speech, HUB)
        neighbour = runtime.stand_in("neighbour", speech, "node-a")
        neighbour["metadata"]["labels"] = {"app": "neighbour"}
        mirror = pod("mirror", ["serve", ":80"], namespace=front, node="node-b", labels={"app": "mirror"})
        (first,) = mirror["spec"]["containers"]
        mirror["spec"]["containers"] += [
            {**first, "name": f"port-{port}", "args": ["serve", f":{port}"]} for port in (443, OTHER)
        ]
        cluster.apply(
            runtime.stand_in("narrator", speech, "node-a"),
            runtime.stand_in("second", speech, "node-b"),
            runtime.one("Service"),
            neighbour,
            chart(system).stand_in("operator", system, "node-a"),
            pod("client", ["pause"], namespace=front, node="node-b"),
            mirror,
        )
        for namespace in (speech, system, front):
            cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", "pod", "--all")
        namespaces = dict.fromkeys(("narrator", "second", "neighbour"), speech)
        namespaces |= {"operator": system, "client": front, "mirror": front}
        policies = cluster.enforce_network_policies()
        policies.settle()
        made = Stage(cluster, policies, namespaces)
        _lead_to_link_local(made)
        for address in (HOST_ADDRESS, LINK_LOCAL):
            until_the_end.enter_context(_listening(address))
        yield made


def _lead_to_link_local(stage: Stage) -> None:
    """The address is the host's, on the nodes' link, and goes with it."""
    subprocess.run([path_of("ip"), "address", "add", f"{LINK_LOCAL}/32", "dev", HOST_LINK], check=True)
    node = stage.cluster.node("a")
    node.exec("ip", "route", "add", LINK_LOCAL, "via", HOST_ADDRESS)
    ways = {f" {stage.address(name)}/" for name in ("narrator", "operator")}
    for name in node.exec("ls", "/run/netns").split():
        if any(address in node.exec("ip", "-n", name, "-brief", "address") for address in ways):
            gateway = node.place.pods.replace(".0/24", ".1")
            node.exec("ip", "-n", name, "route", "add", LINK_LOCAL, "via", gateway)


class _Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")


@contextmanager
def _listening(address: str) -> Iterator[None]:
    with socketserver.ThreadingTCPServer((address, 443), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_without_policies_everything_is_open(stage: Stage) -> None:
    """So that what the other tests find closed is closed by the policies."""
    for client in ("neighbour", "client", "host"):
        assert stage.open_ports(client, "narrator") == {API, MANAGEMENT, OTHER}
    everything = {"names", "mirror:80", "mirror:443", "mirror:9000", "outside:443", "link-local:443", "API server"}
    assert stage.destinations("narrator") == everything
    assert stage.destinations("operator") == everything


@pytest.mark.parametrize("server", ["narrator", "second"])
@pytest.mark.parametrize(
    ("network", "client", "expected"),
    [
        pytest.param("", "neighbour", {API, MANAGEMENT}, id="a pod of the namespace"),
        pytest.param("", "client", {API, MANAGEMENT}, id="a pod of another"),
        pytest.param("", "host", {API}, id="whoever is outside"),
        pytest.param(FRONT_ONLY, "neighbour", {MANAGEMENT}, id="metrics alone where clients are named"),
        pytest.param(FRONT_ONLY, "client", {API, MANAGEMENT}, id="a client that is named"),
        pytest.param(FRONT_ONLY, "host", set(), id="nobody outside where clients are named"),
    ],
)
def test_speech_pods_are_open_to(stage: Stage, server: str, network: str, client: str, expected: set[int]) -> None:
    with stage.policy(rendered(stage.speech, HUB, network)):
        assert stage.open_ports(client, server) == expected


def test_clients_speak_through_the_service(stage: Stage) -> None:
    url = f"http://narrator.{stage.speech}.svc.cluster.local"
    eventually(lambda: stage.gets("client", url), "the Service")
    with stage.policy(rendered(stage.speech, HUB, FRONT_ONLY)):
        assert [stage.gets(one, url) for one in ("client", "neighbour")] == [True, False]


@pytest.mark.parametrize("of", ["speech", "system"])
def test_kubelets_probe_through_the_policies(stage: Stage, of: str) -> None:
    namespace = getattr(stage, of)
    objects = rendered(namespace, HUB, FRONT_ONLY) if of == "speech" else chart(namespace)
    with stage.policy(objects):
        late = objects.stand_in("late", namespace, "node-b")
        assert late["spec"]["containers"][0]["readinessProbe"]
        stage.cluster.apply(late)
        stage.cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", "pod/late")
        stage.cluster.kubectl("delete", "pod", "-n", namespace, "late", "--wait=false")


ANYWHERE = "policy: {egressTo: [{ipBlock: {cidr: 0.0.0.0/0}}]}"
MIRROR = (
    "policy: {egressTo: [{namespaceSelector: {matchLabels: {team: front}}, "
    "podSelector: {matchLabels: {app: mirror}}}]}"
)
S3 = "{s3: {bucket: voices, endpoint: 'https://mirror.front.svc:9000', secretRef: {name: s3}}}"
KNOWN = replace(SETTINGS, denied_networks=(f"{HOST_ADDRESS}/32",))


@pytest.mark.parametrize(
    ("source", "network", "settings", "expected"),
    [
        pytest.param(BUILTIN, "", SETTINGS, {"names"}, id="no connection without a fetch"),
        pytest.param(HUB, "", SETTINGS, {"names", "mirror:443", "outside:443"}, id="https for a fetch"),
        pytest.param(
            S3, "", SETTINGS, {"names", "mirror:443", "mirror:9000", "outside:443"}, id="the port of the endpoint"
        ),
        pytest.param(HUB, "", KNOWN, {"names", "mirror:443"}, id="not the API server where its addresses are named"),
        pytest.param(
            BUILTIN, MIRROR, SETTINGS, {"names", "mirror:80", "mirror:443", "mirror:9000"}, id="pods that are named"
        ),
        pytest.param(
            BUILTIN,
            ANYWHERE,
            KNOWN,
            {"names", "mirror:80", "mirror:443", "mirror:9000"},
            id="everywhere: neither link-local nor the API server",
        ),
    ],
)
def test_speech_pods_connect_to(
    stage: Stage, source: str, network: str, settings: FleetSettings, expected: set[str]
) -> None:
    with stage.policy(rendered(stage.speech, source, network, settings)):
        assert stage.destinations("narrator") == expected


@pytest.mark.parametrize(
    ("values", "client", "expected"),
    [
        pytest.param({}, "neighbour", {API}, id="metrics for a pod"),
        pytest.param({}, "host", set(), id="nothing for who is outside"),
        pytest.param(
            {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "front"}}}]},
            "client",
            {API},
            id="metrics for who is named",
        ),
        pytest.param(
            {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"team": "front"}}}]},
            "neighbour",
            set(),
            id="and for nobody else",
        ),
    ],
)
def test_the_operator_shows(stage: Stage, values: dict[str, Any], client: str, expected: set[int]) -> None:
    with stage.policy(chart(stage.system, **values)):
        assert stage.open_ports(client, "operator") == expected


def test_the_operator_connects_to_the_api_server(stage: Stage) -> None:
    port = int(stage.cluster.server.rpartition(":")[2])
    for values, expected in (
        ({}, {"names", "mirror:443", "outside:443", "link-local:443"}),
        ({"apiServer": {"ports": [port]}}, {"names", "API server"}),
        (
            {"apiServer": {"ports": [port, 443], "cidrs": [f"{HOST_ADDRESS}/32"]}},
            {"names", "API server", "outside:443"},
        ),
    ):
        with stage.policy(chart(stage.system, **values)):
            assert stage.destinations("operator") == expected


def test_the_api_server_listens_where_the_operator_reads_it(stage: Stage) -> None:
    endpoints = stage.cluster.get("endpointslice", "kubernetes", "default")["endpoints"]
    assert [address for one in endpoints for address in one["addresses"]] == [HOST_ADDRESS]


@pytest.mark.parametrize("source", [BUILTIN, HUB])
def test_speech_pods_are_restricted(stage: Stage, source: str) -> None:
    assert_restricted(stage.cluster, rendered(stage.speech, source).pod("real", stage.speech))


def test_the_operators_pod_is_restricted(stage: Stage) -> None:
    objects = chart(stage.system)
    stage.cluster.apply(objects.one("ServiceAccount"))
    assert_restricted(stage.cluster, objects.pod("real", stage.system))


def assert_restricted(cluster: RealCluster, one: Manifest) -> None:
    """The API server takes the pod as it was rendered, and not with a capability more."""

    def create() -> None:
        cluster.kubectl("create", "--dry-run=server", "-f", "-", input=yaml.safe_dump(one))

    create()
    one["spec"]["containers"][0]["securityContext"]["capabilities"] = {"add": ["SYS_NICE"]}
    with pytest.raises(CommandFailed, match='violates PodSecurity "restricted'):
        create()
