"""`spec.network`: the Service, who may reach the pods, and what they trust."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, StringConstraints

from ttsfleet_operator.api.base import (
    ConfigMapKeyRef,
    LabelKey,
    LabelValue,
    SecretKeyRef,
    Struct,
)
from ttsfleet_operator.api.rules import Rule
from ttsfleet_operator.api.workload import UserAnnotations

IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(text: str) -> IPNetwork | None:
    """The network of a CIDR, host bits ignored; None when it is none."""
    if not re.fullmatch(r"[0-9a-fA-F.:]+/(0|[1-9][0-9]{0,2})", text):
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _not_a_cidr(value: str) -> Mapping[str, object] | None:
    return {} if _network(value) is None else None


CIDR: TypeAlias = Annotated[
    str,
    StringConstraints(max_length=49),
    Rule(
        name="cidr",
        cel="isCIDR(self)",
        message="must be an IP range such as 10.0.0.0/8 or fd00::/8",
        check=_not_a_cidr,
    ),
]


def _needs_values(requirement: LabelSelectorRequirement) -> Mapping[str, object] | None:
    missing = requirement.operator in ("In", "NotIn") and not requirement.values
    return {"operator": requirement.operator} if missing else None


def _takes_no_values(requirement: LabelSelectorRequirement) -> Mapping[str, object] | None:
    given = requirement.operator in ("Exists", "DoesNotExist") and requirement.values
    return {"operator": requirement.operator} if given else None


class LabelSelectorRequirement(Struct):
    """One condition on a label."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            name="selector_values",
            cel="!(self.operator in ['In', 'NotIn']) || (has(self.values) && self.values.size() > 0)",
            message="operator {operator} needs at least one entry in values",
            check=_needs_values,
        ),
        Rule(
            name="selector_no_values",
            cel="!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || self.values.size() == 0",
            message="operator {operator} takes no values; remove them",
            check=_takes_no_values,
        ),
    )

    key: LabelKey
    """Key of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label is compared with values."""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=16)] = ()
    """Values for In and NotIn; absent for the other operators."""


class LabelSelector(Struct):
    """Selects by labels; empty selects everything."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    """Labels with exactly these values."""
    match_expressions: Annotated[tuple[LabelSelectorRequirement, ...], Field(max_length=8)] = ()
    """Conditions that must all hold. Absent = none."""


def _outside(block: IPBlock) -> Mapping[str, object] | None:
    whole = _network(block.cidr)
    for text in block.except_:
        part = _network(text)
        if whole is None or part is None or not _strictly_within(part, whole):
            return {"part": text, "cidr": block.cidr}
    return None


def _strictly_within(part: IPNetwork, whole: IPNetwork) -> bool:
    if part.version != whole.version or part.prefixlen <= whole.prefixlen:
        return False
    return part.supernet(new_prefix=whole.prefixlen) == whole


_WITHIN = "cidr(self.cidr).containsCIDR(cidr(e)) && cidr(e).prefixLength() > cidr(self.cidr).prefixLength()"


class IPBlock(Struct):
    """A range of IP addresses."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            name="except_outside",
            cel=f"!has(self.except) || !isCIDR(self.cidr) || self.except.all(e, isCIDR(e) && {_WITHIN})",
            message="except {part} is not a part of cidr {cidr}; remove it or correct it",
            check=_outside,
            values={"part": f"self.except.filter(e, !(isCIDR(e) && {_WITHIN}))[0]"},
        ),
    )

    cidr: CIDR
    """The range, e.g. 10.0.0.0/8."""
    except_: Annotated[tuple[CIDR, ...], Field(max_length=16)] = Field(default=(), alias="except")
    """Parts of the range that are left out. Absent = none."""


def _mixed_peer(peer: NetworkPolicyPeer) -> Mapping[str, object] | None:
    selectors = peer.pod_selector is not None or peer.namespace_selector is not None
    return {} if selectors == (peer.ip_block is not None) else None


class NetworkPolicyPeer(Struct):
    """Who may be at the other end: pods by labels, or IP addresses."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            name="policy_peer",
            cel="(has(self.podSelector) || has(self.namespaceSelector)) != has(self.ipBlock)",
            message="a peer needs podSelector and/or namespaceSelector, or else ipBlock alone",
            check=_mixed_peer,
        ),
    )

    pod_selector: LabelSelector | None = None
    """Pods, in the service's namespace or in those of namespaceSelector."""
    namespace_selector: LabelSelector | None = None
    """Namespaces; alone: all their pods."""
    ip_block: IPBlock | None = None
    """IP addresses; not together with a selector."""


class NetworkPolicySpec(Struct):
    """The NetworkPolicy of the pods. Link-local addresses (a cloud's metadata) and the API server's are always out of
    the reach of IP blocks."""

    ingress_from: Annotated[tuple[NetworkPolicyPeer, ...], Field(max_length=16)] = ()
    """Who may call the API. Absent or empty = everyone."""
    egress_to: Annotated[tuple[NetworkPolicyPeer, ...], Field(max_length=16)] = ()
    """Where the pods may connect to beside name resolution and, where a model is fetched over the network, https and
    the ports of endpoints and proxies. Absent or empty = nowhere else."""


class ServiceSpec(Struct):
    """The Kubernetes Service in front of the pods."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the Service. Absent = ClusterIP."""
    annotations: UserAnnotations = Field(default_factory=dict)
    """Annotations of the Service, e.g. of a cloud's load balancer."""


class NetworkSpec(Struct):
    """The Service, who may reach the pods, and what they trust."""

    service: ServiceSpec | None = None
    """The Service `<name>`. Absent = type ClusterIP."""
    api_key_secret_ref: SecretKeyRef | None = None
    """API key that clients must send; mounted as a file, so a rotated key acts without a restart. Absent = no key."""
    policy: NetworkPolicySpec | None = None
    """The NetworkPolicy of the pods. Absent = the defaults."""
    ca_bundle_config_map_ref: ConfigMapKeyRef | None = None
    """PEM certificates of a private CA, which fetches trust beside the public ones. Absent = the installation's."""
