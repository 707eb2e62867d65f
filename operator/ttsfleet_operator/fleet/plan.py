"""The plan of a whole service: each class's bundle, what is pending, and how the replicas are split. Pure.

A plan in force is a file (docs/adr/0006): the `PlanBundle` stored in the cluster stays what runs until the user's
inputs change, whatever a newer release, image or profile row would render.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ttsfleet_operator.api.hardware import HardwareClass
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.nodes import NodeFacts
from ttsfleet_operator.fleet.settings import FleetSettings, References
from ttsfleet_operator.memory import MemoryEstimate
from ttsfleet_operator.plan import ClassPlan, Problem
from ttsfleet_operator.profiles import ProfileTable

PodTemplate: TypeAlias = Callable[[TTSService, ClassPlan, FleetSettings, References], Mapping[str, Any]]


@dataclass(frozen=True)
class PlanBundle:
    """Everything that decides a class's pods. `hash` names the ConfigMap that holds it."""

    hash: str
    engine_yaml: str
    pod_template: Mapping[str, Any]


@dataclass(frozen=True)
class RunningClass:
    """What the cluster has of one class.

    `bundle` is read from the ConfigMap that the class's Deployment refers to, `inputs_hash` from that ConfigMap's
    annotation, `distribution_hash` from the Deployment's ("" where unknown). `replicas` is the Deployment's
    spec.replicas, `ready` its status.readyReplicas.
    """

    class_name: str
    bundle: PlanBundle | None
    inputs_hash: str
    ready: int
    replicas: int
    distribution_hash: str = ""


@dataclass(frozen=True)
class ClassDecision:
    """What shall be of one class.

    bundle: what shall run; None = nothing can be run and nothing runs, so the class has no Deployment
    inputs_hash: of the inputs that `bundle` was rendered from; stored beside it
    plan: of today's inputs, profiles and nodes; None where there is none (the problem says why)
    pending: what would run if the inputs changed now; None when it equals `bundle`
    memory: the estimate of `bundle` on today's devices
    desired: replicas of the class's Deployment
    matching_nodes: ready or not; None = nodes may not be read
    """

    hardware_class: HardwareClass
    plan: ClassPlan | None
    bundle: PlanBundle | None
    inputs_hash: str
    pending: PlanBundle | None
    memory: MemoryEstimate | None
    desired: int
    matching_nodes: int | None
    problem: Problem | None
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.hardware_class.name


@dataclass(frozen=True)
class FleetPlan:
    """The whole answer. `distribution_hash` is stored on each class's Deployment."""

    service: TTSService
    classes: tuple[ClassDecision, ...]
    distribution_hash: str
    problem: Problem | None = None

    @property
    def desired(self) -> int:
        """Replicas that the classes together shall have; less than asked for where `problem` says so."""
        return sum(decision.desired for decision in self.classes)


def plan_fleet(
    service: TTSService,
    table: ProfileTable,
    nodes: Sequence[NodeFacts] | None,
    running: Mapping[str, RunningClass],
    settings: FleetSettings,
    references: References,
    pod_template: PodTemplate,
) -> FleetPlan:
    """What shall be. `nodes` None = the operator may not read them; `running` is by class name."""
    raise NotImplementedError
