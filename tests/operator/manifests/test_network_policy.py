"""The NetworkPolicy, judged by what it lets through: a small evaluator over its rules."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from ttsfleet_operator.errors import UsageError
from ttsfleet_operator.operator_settings import read_settings

RESTRICTED = """\
network:
  policy:
    ingressFrom: [{namespaceSelector: {matchLabels: {team: front}}}]
"""


def allows(rendered: Any, address: str, port: int, protocol: str = "TCP") -> bool:
    """Whether a pod may connect to an address outside of the cluster's pods."""
    for rule in rendered.one("NetworkPolicy")["spec"]["egress"]:
        ports = rule.get("ports")
        if ports is not None and {"protocol": protocol, "port": port} not in ports:
            continue
        if "to" not in rule or any(_matches(peer, address) for peer in rule["to"]):
            return True
    return False


def _matches(peer: dict[str, Any], address: str) -> bool:
    block = peer.get("ipBlock")
    if block is None:
        return False
    ip = ipaddress.ip_address(address)
    inside = ip in ipaddress.ip_network(block["cidr"])
    return inside and not any(ip in ipaddress.ip_network(one) for one in block.get("except", []))


def egress_to(peer: str) -> str:
    return f"network: {{policy: {{egressTo: [{peer}]}}}}"


@pytest.mark.parametrize(
    ("more", "options", "address", "port", "expected"),
    [
        pytest.param("", {}, "203.0.113.7", 443, True, id="https"),
        pytest.param("", {}, "2001:db8::7", 443, True, id="https over IPv6"),
        pytest.param("", {}, "203.0.113.7", 22, False, id="nothing else"),
        pytest.param("", {}, "203.0.113.7", 80, False, id="no plain http"),
        pytest.param("", {}, "169.254.169.254", 443, False, id="not the cloud's metadata"),
        pytest.param("", {}, "169.254.169.254", 80, False, id="nor its plain port"),
        pytest.param("", {}, "fd00:ec2::254", 443, False, id="nor over IPv6"),
        pytest.param("", {}, "169.254.20.10", 53, True, id="the node's own resolver"),
        pytest.param("", {"denied_networks": ("10.0.0.1/32",)}, "10.0.0.1", 443, False, id="not the API server"),
        pytest.param("", {"denied_networks": ("10.0.0.1/32",)}, "10.0.0.2", 443, True, id="but its neighbour"),
        pytest.param(
            "",
            {"source": "{s3: {bucket: voices, endpoint: https://minio.example:9000}}"},
            "10.1.2.3",
            9000,
            True,
            id="the port of an endpoint",
        ),
        pytest.param("", {"https_proxy": "http://proxy:3128"}, "10.1.2.3", 3128, True, id="the port of a proxy"),
        pytest.param("", {"http_proxy": "proxy:3129"}, "10.1.2.3", 3129, True, id="of one written without a scheme"),
        pytest.param(
            egress_to("{ipBlock: {cidr: 10.1.0.0/16}}"), {}, "10.1.2.3", 5000, True, id="what egressTo adds"
        ),
        pytest.param(
            egress_to("{ipBlock: {cidr: 10.1.0.0/16}}"), {}, "203.0.113.7", 443, True, id="without taking https away"
        ),
        pytest.param(
            egress_to("{ipBlock: {cidr: 0.0.0.0/0}}"),
            {},
            "169.254.169.254",
            80,
            False,
            id="everywhere is not metadata",
        ),
        pytest.param(
            egress_to("{ipBlock: {cidr: 0.0.0.0/0}}"),
            {"denied_networks": ("10.0.0.1/32",)},
            "10.0.0.1",
            6443,
            False,
            id="nor the API server",
        ),
        pytest.param(
            egress_to("{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}"),
            {},
            "10.9.1.1",
            5000,
            False,
            id="an exception of the user's",
        ),
    ],
)
def test_pod_reaches(
    more: str, options: dict[str, Any], address: str, port: int, expected: bool, render  # type: ignore[no-untyped-def]
) -> None:  # fmt: skip
    assert allows(render(more, **options), address, port) is expected


@pytest.mark.parametrize(
    "source",
    [
        "{builtin: {name: tiny-en}}",
        "{pvc: {claimName: models}}",
        "{oci: {reference: registry.example/models/cosyvoice2:1}}",
    ],
)
def test_a_pod_without_a_download_resolves_names_and_connects_to_nobody(
    source: str, render  # type: ignore[no-untyped-def]
) -> None:  # fmt: skip
    policy = render(source=source, https_proxy="http://proxy:3128")
    assert allows(policy, "10.0.0.10", 53, "UDP")
    assert not any(allows(policy, "203.0.113.7", port) for port in (443, 3128))
    assert allows(render(egress_to("{ipBlock: {cidr: 203.0.113.0/24}}"), source=source), "203.0.113.7", 443)


def test_clients_come_from_everywhere_unless_restricted(render) -> None:  # type: ignore[no-untyped-def]
    api, _ = render().one("NetworkPolicy")["spec"]["ingress"]
    assert api == {"ports": [{"protocol": "TCP", "port": 8080}]}
    api, _ = render(RESTRICTED).one("NetworkPolicy")["spec"]["ingress"]
    assert api["from"] == [{"namespaceSelector": {"matchLabels": {"team": "front"}}}]


@pytest.mark.parametrize("more", ["", RESTRICTED])
def test_metrics_answer_to_the_clusters_pods_only(more: str, render) -> None:  # type: ignore[no-untyped-def]
    _, metrics = render(more).one("NetworkPolicy")["spec"]["ingress"]
    assert metrics == {"ports": [{"protocol": "TCP", "port": 8081}], "from": [{"namespaceSelector": {}}]}


def test_policy_holds_for_every_class_and_both_directions(render) -> None:  # type: ignore[no-untyped-def]
    spec = render().one("NetworkPolicy")["spec"]
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    assert spec["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/name": "ttsfleet-runtime",
        "ttsfleet.dev/service": "narrator",
    }


def test_installation_names_the_api_servers_addresses() -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "TTSFLEET_DENIED_NETWORKS": "192.0.2.0/24, 10.96.0.1/32"}
    assert read_settings(environment).fleet.denied_networks == ("192.0.2.0/24", "10.96.0.1/32")
    assert read_settings({"KUBERNETES_SERVICE_HOST": "api.example"}).fleet.denied_networks == ()


def test_wrong_range_of_the_installation_is_named() -> None:
    with pytest.raises(UsageError, match=r"TTSFLEET_DENIED_NETWORKS is '10\.0\.0\.1/8'; it must be IP ranges"):
        read_settings({"TTSFLEET_DENIED_NETWORKS": "10.0.0.1/8"})
