"""NetworkPolicies as the rules of one node's packet filter. Pure: objects in, a script for `nft -f -` out.

A node filters what it forwards: what its pods send by the egress of those, and what its pods receive by their
ingress. So a packet between two nodes is looked at once on each. kube-proxy has by then put the address of a pod in
the place of a Service's. Replies pass because their connection is known. What a node says to its own pods (probes)
and they to it is not forwarded, and always passes.

A pod that a policy selects has a chain per direction, in which each opening returns and the end refuses: with an
answer by ICMP, where others drop, so that a test does not wait and tells "forbidden" from "nobody listens".
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from real_nodes.policy_objects import BlockPeer, Objects, Opening, Peer, Pod, PodPeer, Policy, Port

TABLE = "ttsfleet_policies"
REFUSAL = "reject with icmp type admin-prohibited"


@dataclass(frozen=True)
class Direction:
    """`own` and `other` are where a packet has the addresses of the pod and of its peer."""

    name: str
    own: str
    other: str

    def openings(self, policy: Policy) -> tuple[Opening, ...] | None:
        return policy.ingress if self == INGRESS else policy.egress


INGRESS = Direction("ingress", own="daddr", other="saddr")
EGRESS = Direction("egress", own="saddr", other="daddr")


def rule_set(objects: Objects, node: str) -> str:
    """The whole filter of a node's pods; it takes the place of an earlier one at once."""
    chains: list[str] = []
    dispatch: list[str] = []
    for direction in (EGRESS, INGRESS):
        targets = []
        for pod in objects.pods:
            selecting = [policy for policy in objects.policies if _restricts(policy, pod, direction)]
            if pod.node == node and selecting:
                name = f"{direction.name}_{pod.address.replace('.', '_')}"
                chains += _chain(name, list(_rules(objects, pod, selecting, direction)))
                targets.append(f"{pod.address} : jump {name}")
        if targets:
            dispatch.append(f"ip {direction.own} vmap {{ {', '.join(targets)} }}")
    hook = "type filter hook forward priority filter; policy accept;"
    forward = _chain("forward", [hook, "ct state established,related accept", *dispatch])
    # The first line makes the second valid where there is no table yet.
    return "\n".join(
        [f"table ip {TABLE}", f"delete table ip {TABLE}", f"table ip {TABLE} {{", *chains, *forward, "}", ""]
    )


def _chain(name: str, rules: list[str]) -> list[str]:
    return [f"  chain {name} {{", *(f"    {rule}" for rule in rules), "  }"]


def _restricts(policy: Policy, pod: Pod, direction: Direction) -> bool:
    return (
        policy.namespace == pod.namespace
        and direction.openings(policy) is not None
        and policy.pods.selects(pod.labels)
    )


def _rules(objects: Objects, pod: Pod, policies: list[Policy], direction: Direction) -> Iterator[str]:
    yield f"ip {direction.other} {pod.address} return"  # itself, through a Service
    for policy in policies:
        for opening in direction.openings(policy) or ():
            for matches in _matches(objects, pod, policy, opening, direction):
                yield f'{" ".join(filter(None, matches))} return comment "{policy.name[:120]}"'.strip()
    yield REFUSAL


def _matches(
    objects: Objects, pod: Pod, policy: Policy, opening: Opening, direction: Direction
) -> Iterator[tuple[str, str]]:
    """What a packet of the opening is known by: its other end, and its port. Empty text stands for any."""
    for port in opening.ports or (None,):
        if port is None or not isinstance(port.port, str):
            for end in _ends(objects, policy, opening, direction):
                yield end, _port(port)
        elif direction == INGRESS:
            number = pod.named_ports.get((port.protocol, port.port))
            for end in _ends(objects, policy, opening, direction) if number else ():
                yield end, _port(Port(port.protocol, number))
        else:
            for number, pods in _by_named_port(objects, policy, opening, port).items():
                yield _addresses(pods, direction), _port(Port(port.protocol, number))


def _by_named_port(objects: Objects, policy: Policy, opening: Opening, port: Port) -> dict[int, list[Pod]]:
    """The pods that the opening may mean and that have a port of the name, by its number."""
    found: dict[int, list[Pod]] = defaultdict(list)
    selectors = None if opening.peers is None else [one for one in opening.peers if isinstance(one, PodPeer)]
    for pod in objects.pods:
        number = pod.named_ports.get((port.protocol, str(port.port)))
        if number and (selectors is None or any(_is_meant(pod, one, objects, policy) for one in selectors)):
            found[number].append(pod)
    return found


def _ends(objects: Objects, policy: Policy, opening: Opening, direction: Direction) -> Iterator[str]:
    """One match per range of addresses, and one for all pods that are meant."""
    if opening.peers is None:
        yield ""
        return
    for peer in opening.peers:
        if isinstance(peer, BlockPeer) and isinstance(peer.block, ipaddress.IPv4Network):
            left_out = [f"ip {direction.other} != {one}" for one in peer.left_out]
            yield " ".join([f"ip {direction.other} {peer.block}", *left_out])
    if pods := [pod for pod in objects.pods if any(_is_meant(pod, one, objects, policy) for one in opening.peers)]:
        yield _addresses(pods, direction)


def _is_meant(pod: Pod, peer: Peer, objects: Objects, policy: Policy) -> bool:
    if isinstance(peer, BlockPeer) or not peer.pods.selects(pod.labels):
        return False
    if peer.namespaces is None:
        return pod.namespace == policy.namespace
    return peer.namespaces.selects(objects.namespaces.get(pod.namespace, {}))


def _addresses(pods: Iterable[Pod], direction: Direction) -> str:
    return f"ip {direction.other} {{ {', '.join(pod.address for pod in pods)} }}"


def _port(port: Port | None) -> str:
    if port is None:
        return ""
    protocol = port.protocol.lower()
    if port.port is None:
        return f"meta l4proto {protocol}"
    return f"{protocol} dport {port.port}" + (f"-{port.end}" if port.end else "")
