"""What was seen of one service in the cluster. Values; who reads them is `reconcile`, or `ttsfleet status`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ttsfleet_operator.status.wire import Raw


@dataclass(frozen=True)
class ObservedClass:
    """One class. `pods` and their `events` are needed only while the Deployment is not fully available.

    `pods_listed` False = `pods` was not read, so nothing follows from its emptiness.
    """

    name: str
    deployment: Raw | None = None
    pods: tuple[Raw, ...] = ()
    events: tuple[Raw, ...] = ()
    pods_listed: bool = True


@dataclass(frozen=True)
class ObservedFleet:
    """One service. Objects in the conflicts are written as `Kind/name`.

    service_present: the Service exists and is ours
    name_conflicts: objects of a child's name without our owner reference
    field_conflicts: children whose fields somebody else keeps changing back
    foreign_scalers: HorizontalPodAutoscalers that aim at a class Deployment
    refusals: children that the API server refuses, as `Kind/name: its words`
    undeleted: children that are not wanted any more and that the API server refuses to delete, likewise
    version_skew: the runtime image that this operator must not run, or ""
    release: the operator's
    paused: the annotation that stops reconciliation is set; the spec's newest generation is then not acted on
    lost_nodes: names of nodes that do not answer
    """

    classes: Mapping[str, ObservedClass] = field(default_factory=dict)
    service_present: bool = True
    name_conflicts: tuple[str, ...] = ()
    field_conflicts: tuple[str, ...] = ()
    foreign_scalers: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    undeleted: tuple[str, ...] = ()
    version_skew: str = ""
    release: str = ""
    paused: bool = False
    lost_nodes: frozenset[str] = frozenset()
