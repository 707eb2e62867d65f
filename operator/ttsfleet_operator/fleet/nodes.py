"""What a node offers, read from its labels and allocatable resources. Pure: a Node object in, `NodeFacts` out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ttsfleet_operator.plan import Problem

Sharing: TypeAlias = Literal["none", "mps", "time-slicing"]


@dataclass(frozen=True)
class DeviceFacts:
    """The devices behind one extended resource of a node.

    `count` is what the node can allocate. `memory_mib` is what one allocation gets: a whole card, a MIG slice, or the
    card's memory divided by `replicas` when it is shared. None or "" = the node does not say.
    """

    product: str
    memory_mib: int | None
    capability: tuple[int, int] | None
    count: int
    sharing: Sharing = "none"
    replicas: int = 1


@dataclass(frozen=True)
class Taint:
    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class NodeFacts:
    """A node as the plan sees it. Equal facts = nothing that matters has changed.

    `devices` is by resource name (nvidia.com/gpu, nvidia.com/mig-1g.5gb). `problem` says why the node's devices
    cannot be planned for; they are then not counted.
    """

    name: str
    devices: Mapping[str, DeviceFacts] = field(default_factory=dict)
    ready: bool = True
    unschedulable: bool = False
    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    problem: Problem | None = None


def read_node(raw: Mapping[str, object]) -> NodeFacts:
    """The facts of a Node object as the API gives it."""
    raise NotImplementedError
