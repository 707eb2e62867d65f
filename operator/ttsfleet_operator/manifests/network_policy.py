"""The NetworkPolicy of a service's pods: who may call them, and where they may connect to.

Out: name resolution, and where the model is fetched over the network what that needs: https, and the ports of
configured endpoints and proxies, anywhere but link-local addresses (the cloud's metadata and its credentials) and the
API server. Serving itself connects to nobody. `egressTo` adds to that.
"""

from __future__ import annotations

import ipaddress
from typing import TypeAlias
from urllib.parse import urlsplit

from ttsfleet_operator.api.network import LabelSelector, NetworkPolicyPeer, NetworkPolicySpec
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.engine_config import API_PORT, MANAGEMENT_PORT
from ttsfleet_operator.fleet.settings import FleetSettings
from ttsfleet_operator.manifests.fetch_config import endpoint_of
from ttsfleet_operator.manifests.names import Manifest, metadata, service_labels, service_selector
from ttsfleet_operator.pod_layout import FETCHED_SOURCES

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

LINK_LOCAL = ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128")  # the last: EC2's metadata
_HTTPS = 443


def network_policy(service: TTSService, settings: FleetSettings) -> Manifest:
    """Applied before the Deployments, so that no pod is ever without it."""
    given = service.spec.network.policy if service.spec.network is not None else None
    policy = given or NetworkPolicySpec()
    denied = _networks((*LINK_LOCAL, *settings.denied_networks))
    api: Manifest = {"ports": [_port(API_PORT)]}
    if policy.ingress_from:
        api["from"] = [_peer(peer, ()) for peer in policy.ingress_from]
    # From pods of every namespace: a scraper's is not known, and probes come from the node, which is always admitted.
    metrics: Manifest = {"ports": [_port(MANAGEMENT_PORT)], "from": [{"namespaceSelector": {}}]}
    # Without `to`: node-local resolvers listen on link-local addresses.
    egress: list[Manifest] = [{"ports": [_port(53, "UDP"), _port(53)]}]
    if service.spec.model.source.kind in FETCHED_SOURCES:
        anywhere = [_block(network, denied) for network in _networks(("0.0.0.0/0", "::/0"))]
        egress.append({"ports": [_port(number) for number in _fetch_ports(service, settings)], "to": anywhere})
    if policy.egress_to:
        egress.append({"to": [_peer(peer, denied) for peer in policy.egress_to]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(service, service.name, service_labels(service.name)),
        "spec": {
            "podSelector": {"matchLabels": service_selector(service.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [api, metrics],
            "egress": egress,
        },
    }


def _fetch_ports(service: TTSService, settings: FleetSettings) -> list[int]:
    ports = {_HTTPS}
    for url in (endpoint_of(service, settings), settings.http_proxy, settings.https_proxy):
        number = _port_of(url)
        if number is not None:
            ports.add(number)
    return sorted(ports)


def _port_of(url: str) -> int | None:
    """The port of a URL, or of a proxy written as host:port; None where it has none or is no URL."""
    if not url:
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return parts.port or {"http": 80, "https": _HTTPS}.get(parts.scheme)
    except ValueError:
        return None


def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def _block(network: Network, denied: tuple[Network, ...], given: tuple[str, ...] = ()) -> Manifest:
    """An ipBlock without what of `denied` lies inside it. A range that lies within a denied one was meant."""
    inside = [str(one) for one in denied if one != network and _within(one, network)]
    block: Manifest = {"cidr": str(network)}
    exceptions = list(dict.fromkeys((*given, *inside)))
    if exceptions:
        block["except"] = exceptions
    return {"ipBlock": block}


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


def _port(number: int, protocol: str = "TCP") -> Manifest:
    return {"protocol": protocol, "port": number}


def _peer(peer: NetworkPolicyPeer, denied: tuple[Network, ...]) -> Manifest:
    if peer.ip_block is not None:
        return _block(_networks((peer.ip_block.cidr,))[0], denied, peer.ip_block.except_)
    selectors = (("podSelector", peer.pod_selector), ("namespaceSelector", peer.namespace_selector))
    return {name: _selector(selector) for name, selector in selectors if selector is not None}


def _selector(selector: LabelSelector) -> Manifest:
    result: Manifest = {}
    if selector.match_labels:
        result["matchLabels"] = dict(selector.match_labels)
    if selector.match_expressions:
        result["matchExpressions"] = [
            {"key": one.key, "operator": one.operator, **({"values": list(one.values)} if one.values else {})}
            for one in selector.match_expressions
        ]
    return result
