"""What network policies are about, read from the objects of the API: pods, namespaces, policies. Pure.

Clusters of real nodes speak IPv4 only; a block of IPv6 addresses is nobody's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Manifest: TypeAlias = Mapping[str, Any]
Labels: TypeAlias = Mapping[str, str]
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Requirement:
    """One condition on a label."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds_for(self, labels: Labels) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


@dataclass(frozen=True)
class Selector:
    """A label selector; without requirements it selects everything."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def read(cls, manifest: Manifest) -> Selector:
        exact = [Requirement(key, "In", (value,)) for key, value in (manifest.get("matchLabels") or {}).items()]
        more = [
            Requirement(one["key"], one["operator"], tuple(one.get("values") or ()))
            for one in manifest.get("matchExpressions") or ()
        ]
        return cls((*exact, *more))

    def selects(self, labels: Labels) -> bool:
        return all(requirement.holds_for(labels) for requirement in self.requirements)


@dataclass(frozen=True)
class PodPeer:
    """Pods by their labels; `namespaces` is None for those in the policy's own."""

    pods: Selector
    namespaces: Selector | None


@dataclass(frozen=True)
class BlockPeer:
    """A range of addresses without parts of it."""

    block: Network
    left_out: tuple[Network, ...] = ()


Peer: TypeAlias = PodPeer | BlockPeer


@dataclass(frozen=True)
class Port:
    """Ports of a protocol: a number, a range, one that the pod names, or all (None)."""

    protocol: str
    port: int | str | None = None
    end: int | None = None

    @classmethod
    def read(cls, manifest: Manifest) -> Port:
        return cls(manifest.get("protocol", "TCP"), manifest.get("port"), manifest.get("endPort"))


@dataclass(frozen=True)
class Opening:
    """A rule of a policy. None stands for every peer, and for every port."""

    peers: tuple[Peer, ...] | None
    ports: tuple[Port, ...] | None


@dataclass(frozen=True)
class Policy:
    """A NetworkPolicy. None is a direction that it leaves alone; without openings it closes it."""

    namespace: str
    name: str
    pods: Selector
    ingress: tuple[Opening, ...] | None
    egress: tuple[Opening, ...] | None

    @classmethod
    def read(cls, manifest: Manifest) -> Policy:
        spec = manifest["spec"]
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
        openings = {
            direction: tuple(_opening(one, peers) for one in spec.get(direction.lower()) or ())
            for direction, peers in (("Ingress", "from"), ("Egress", "to"))
        }
        return cls(
            namespace=manifest["metadata"]["namespace"],
            name=manifest["metadata"]["name"],
            pods=Selector.read(spec.get("podSelector") or {}),
            ingress=openings["Ingress"] if "Ingress" in types else None,
            egress=openings["Egress"] if "Egress" in types else None,
        )


@dataclass(frozen=True)
class Pod:
    """A pod with an address of its own."""

    namespace: str
    name: str
    node: str
    address: str
    labels: Labels
    named_ports: Mapping[tuple[str, str], int]
    """Number of the container port by protocol and name."""


@dataclass(frozen=True)
class Objects:
    """What the API server has at one moment."""

    pods: tuple[Pod, ...]
    namespaces: Mapping[str, Labels]
    policies: tuple[Policy, ...]

    @classmethod
    def read(cls, pods: Sequence[Manifest], namespaces: Sequence[Manifest], policies: Sequence[Manifest]) -> Objects:
        """Pods that share the node's network are left out, for policies do not apply to them; so are ended ones."""
        return cls(
            pods=tuple(sorted((_pod(one) for one in pods if _has_own_address(one)), key=lambda pod: pod.address)),
            namespaces={one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in namespaces},
            policies=tuple(sorted(map(Policy.read, policies), key=lambda one: (one.namespace, one.name))),
        )


def _opening(manifest: Manifest, peers: str) -> Opening:
    ports = manifest.get("ports")
    return Opening(
        peers=tuple(_peer(one) for one in manifest[peers]) if manifest.get(peers) else None,
        ports=tuple(Port.read(one) for one in ports) if ports else None,
    )


def _peer(manifest: Manifest) -> Peer:
    if block := manifest.get("ipBlock"):
        left_out = tuple(ipaddress.ip_network(one, strict=False) for one in block.get("except") or ())
        return BlockPeer(ipaddress.ip_network(block["cidr"], strict=False), left_out)
    namespaces = manifest.get("namespaceSelector")
    return PodPeer(
        pods=Selector.read(manifest.get("podSelector") or {}),
        namespaces=None if namespaces is None else Selector.read(namespaces),
    )


def _has_own_address(pod: Manifest) -> bool:
    status = pod.get("status") or {}
    return bool(
        status.get("podIP") and status.get("phase") not in _ENDED and not pod["spec"].get("hostNetwork", False)
    )


def _pod(manifest: Manifest) -> Pod:
    spec, metadata = manifest["spec"], manifest["metadata"]
    sidecars = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    ports = [port for container in (*sidecars, *spec["containers"]) for port in container.get("ports") or ()]
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        node=spec["nodeName"],
        address=manifest["status"]["podIP"],
        labels=metadata.get("labels") or {},
        named_ports={
            (port.get("protocol", "TCP"), port["name"]): port["containerPort"] for port in ports if "name" in port
        },
    )
