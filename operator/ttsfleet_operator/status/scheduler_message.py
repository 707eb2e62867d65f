"""Why the scheduler found no node, from its message. Pure text; the counts of nodes in it drift and are dropped.

The message is `0/5 nodes are available: 2 Insufficient nvidia.com/gpu, 3 node(s) didn't match … . preemption: …`. A
node appears under the first filter that refused it, so nodes of other kinds are noise beside the reason that counts:
a lack on nodes that do match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ttsfleet_operator.status.reasons import Reason

# Taints that say nothing about this service: set by Kubernetes itself, or on nodes that never take workloads.
_SYSTEM_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "node-role.kubernetes.io/")
_TAINT = re.compile(r"\{([^:}\s]+)[^}]*\}")
_INSUFFICIENT = re.compile(r"Insufficient (\S+)")
_CLAIM = re.compile(r"persistentvolumeclaim \"([^\"]+)\" (not found|is being deleted)")
_NAMED = {"cpu": (Reason.INSUFFICIENT_CPU, "CPU"), "memory": (Reason.INSUFFICIENT_MEMORY, "memory")}
_PLAIN_RESOURCES = frozenset({"ephemeral-storage", "pods", "hugepages-1Gi", "hugepages-2Mi"})

# Fragments of the scheduler's plugins, all lower case.
_PHRASES: tuple[tuple[str, Reason, str], ...] = (
    ("too many pods", Reason.INSUFFICIENT_RESOURCES, "matching nodes have all the pods that they take"),
    ("unbound immediate persistentvolumeclaim", Reason.VOLUME_NOT_BOUND, "a claim has no volume yet"),
    ("volume node affinity conflict", Reason.VOLUME_NOT_BOUND, "the claim's volume lies where no matching node is"),
    ("no available volume zone", Reason.VOLUME_NOT_BOUND, "the claim's volume lies in another zone"),
    ("available persistent volumes to bind", Reason.VOLUME_NOT_BOUND, "no volume fits the claim"),
    ("enough free storage", Reason.VOLUME_NOT_BOUND, "matching nodes have too little storage for the claim"),
    ("max volume count", Reason.VOLUME_NOT_BOUND, "matching nodes have all the volumes that they take"),
    ("topology spread", Reason.TOPOLOGY_CONSTRAINT, "the spread over nodes or zones would be broken"),
    ("anti-affinity", Reason.TOPOLOGY_CONSTRAINT, "an anti-affinity rule keeps the pod off"),
    ("pod affinity rules", Reason.TOPOLOGY_CONSTRAINT, "a pod affinity rule is not met"),
    ("were unschedulable", Reason.NODE_TAINTS, "some nodes are cordoned"),
    ("node affinity/selector", Reason.NO_MATCHING_NODE, "other nodes are not of this class"),
    ("match node selector", Reason.NO_MATCHING_NODE, "other nodes are not of this class"),
    ("scheduled node affinity", Reason.NO_MATCHING_NODE, "other nodes are not of this class"),
    ("no nodes available", Reason.NO_MATCHING_NODE, "the cluster has no node"),
)

_ORDER = (
    Reason.VOLUME_NOT_BOUND,
    Reason.INSUFFICIENT_GPU,
    Reason.INSUFFICIENT_MEMORY,
    Reason.INSUFFICIENT_CPU,
    Reason.INSUFFICIENT_RESOURCES,
    Reason.TOPOLOGY_CONSTRAINT,
    Reason.NODE_TAINTS,
    Reason.NO_MATCHING_NODE,
    Reason.UNSCHEDULABLE,
)


@dataclass(frozen=True)
class Unschedulable:
    """`reason` is the cause that counts; `causes` says all of them, in a fixed order."""

    reason: Reason
    causes: str


def explain_unschedulable(message: str) -> Unschedulable:
    """The causes in a scheduler's message."""
    body = message.split("preemption:")[0]
    found: dict[tuple[int, str], Reason] = {}
    system = False
    for clause in _clauses(body):
        if clause.system:
            system = True
        else:
            found[(_ORDER.index(clause.reason), clause.text)] = clause.reason
    if not found:
        text = "nodes are tainted by the cluster itself" if system else "the scheduler found no node"
        return Unschedulable(
            Reason.NO_MATCHING_NODE if system else Reason.UNSCHEDULABLE, f"no node takes the pod: {text}"
        )
    ordered = sorted(found)
    reason = found[ordered[0]]
    texts = [text for _, text in ordered]
    if reason is Reason.NO_MATCHING_NODE and texts == ["other nodes are not of this class"]:
        texts = ["none is of this class"]
    return Unschedulable(reason, f"no node takes the pod: {'; '.join(texts)}")


@dataclass(frozen=True)
class _Clause:
    reason: Reason
    text: str
    system: bool = False


def _clauses(body: str) -> list[_Clause]:
    clauses = []
    for key in _TAINT.findall(body):
        system = key.startswith(_SYSTEM_TAINTS)
        clauses.append(_Clause(Reason.NODE_TAINTS, f"taint {key} is not tolerated", system))
    for resource in _INSUFFICIENT.findall(body):
        clauses.append(_insufficient(resource.rstrip(".,")))
    claim = _CLAIM.search(body)
    if claim is not None:
        clauses.append(_Clause(Reason.VOLUME_NOT_BOUND, f"claim {claim[1]} {claim[2]}"))
    lower = body.lower()
    clauses += [_Clause(reason, text) for fragment, reason, text in _PHRASES if fragment in lower]
    if "untolerated taint" in lower and not _TAINT.search(body):
        clauses.append(_Clause(Reason.NODE_TAINTS, "a taint is not tolerated"))
    return clauses


def _insufficient(resource: str) -> _Clause:
    if resource in _NAMED:
        reason, word = _NAMED[resource]
        return _Clause(reason, f"matching nodes have too little {word} free")
    if resource in _PLAIN_RESOURCES:
        return _Clause(Reason.INSUFFICIENT_RESOURCES, f"matching nodes have too little {resource} free")
    return _Clause(Reason.INSUFFICIENT_GPU, f"no {resource} is free")
