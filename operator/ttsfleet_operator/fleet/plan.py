"""The plan of a whole service: each class's bundle, what is pending, and how the replicas are split. Pure.

A plan in force is a file (docs/adr/0006): the `PlanBundle` stored in the cluster stays what runs until the user's
inputs change, whatever a newer release, image or profile row would render.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ttsfleet_operator.api.hardware import HardwareClass
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.engine_config import render_engine_yaml
from ttsfleet_operator.errors import PlanError
from ttsfleet_operator.fleet.bundle import (
    PlanBundle,
    RunningClass,
    choose_bundle,
    distribution_hash,
    inputs_hash,
    make_bundle,
    policy_of,
)
from ttsfleet_operator.fleet.class_site import site_of_devices
from ttsfleet_operator.fleet.matching import ClassNodes, nodes_of_class
from ttsfleet_operator.fleet.nodes import NodeFacts
from ttsfleet_operator.fleet.settings import FleetSettings, References, referenced_keys, takeover_keys
from ttsfleet_operator.fleet.split import ClassShare, split_replicas
from ttsfleet_operator.memory import MemoryEstimate
from ttsfleet_operator.plan import ClassPlan, Problem, estimate_memory, plan_class
from ttsfleet_operator.plan_rules import ASSUMED_CORES
from ttsfleet_operator.pod_layout import pod_placement
from ttsfleet_operator.profiles import ProfileTable
from ttsfleet_operator.sites import Site, cpu_site, label_values, memory_limit_mib, requested_cores

__all__ = ["ClassDecision", "FleetPlan", "PlanBundle", "PodTemplate", "RunningClass", "plan_fleet"]

PodTemplate: TypeAlias = Callable[[TTSService, ClassPlan, FleetSettings, References], Mapping[str, Any]]


@dataclass(frozen=True)
class ClassDecision:
    """What shall be of one class.

    bundle: what shall run; None = nothing can be run and nothing runs, so the class has no Deployment
    inputs_hash: of the inputs that `bundle` was rendered from; stored beside it
    plan: of today's inputs, profiles and nodes; None where there is none (the problem says why)
    pending: what would run if the inputs changed now; None when it equals `bundle`
    memory: the estimate of `bundle` on today's devices
    desired: replicas of the class's Deployment
    matching_nodes: ready or not; None = not known, or any node does (the CPU class)
    problem: why the class has no plan, no node or not every device; what runs goes on
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


@dataclass(frozen=True)
class _Planner:
    """What every class is decided from."""

    service: TTSService
    table: ProfileTable
    nodes: Sequence[NodeFacts] | None
    settings: FleetSettings
    references: References
    pod_template: PodTemplate

    def decide(self, hardware_class: HardwareClass, running: RunningClass | None) -> tuple[ClassDecision, ClassShare]:
        """The decision without its replicas, and the class's part in the split."""
        nodes = self._nodes(hardware_class)
        plan, problem = self._plan(hardware_class, nodes)
        missing = [key for key in referenced_keys(self.service) if not self.references.hash_of(key)]
        if problem is None and missing:
            names = " and ".join(str(key) for key in missing)
            problem = Problem(
                "MissingConfigMap", f"ConfigMap {names} does not exist in namespace {self.service.namespace}"
            )
        can_run = plan is not None and problem is None
        rendered = self._rendered(plan) if plan is not None and can_run else None
        rollout = self.service.spec.rollout
        awaited = [key for key in takeover_keys(self.service, self.settings) if not self.references.hash_of(key)]
        choice = choose_bundle(
            rendered,
            inputs_hash(self.service, hardware_class, self.references),
            running,
            automatic=rollout is not None and rollout.plan_changes == "Automatic",
            settled=not awaited and (nodes is None or nodes.count > 0),
        )
        memory = self._memory_in_force(choice.bundle, rendered, plan)
        decision = ClassDecision(
            hardware_class=hardware_class,
            plan=plan,
            bundle=choice.bundle,
            inputs_hash=choice.inputs_hash,
            pending=choice.pending,
            memory=memory,
            desired=0,
            matching_nodes=None if nodes is None else nodes.count,
            problem=problem or (nodes.problem if nodes is not None else None),
            warnings=_warnings(plan, nodes, choice.pending, memory),
        )
        return decision, _share(decision, nodes, running)

    def _nodes(self, hardware_class: HardwareClass) -> ClassNodes | None:
        if hardware_class.gpu is None or self.nodes is None:
            return None
        products = label_values(hardware_class.gpu, self.table)
        return nodes_of_class(hardware_class, products, self.service.spec.pod, self.nodes)

    def _plan(
        self, hardware_class: HardwareClass, nodes: ClassNodes | None
    ) -> tuple[ClassPlan | None, Problem | None]:
        known = {row.name for row in self.table.rows}
        try:
            plan = plan_class(self.service, hardware_class, self.table, self._site(hardware_class, nodes))
        except PlanError as error:
            unknown = hardware_class.profile and hardware_class.profile not in known
            return None, Problem("UnknownProfile" if unknown else "UnknownProduct", str(error))
        return plan, plan.problem

    def _site(self, hardware_class: HardwareClass, nodes: ClassNodes | None) -> Site:
        if hardware_class.gpu is None:
            site = cpu_site(
                self.table, requested_cores(self.service) or ASSUMED_CORES, memory_limit_mib(self.service)
            )
            return replace(site, product="a CPU pod")
        return site_of_devices(self.service, hardware_class, self.table, nodes.devices if nodes is not None else ())

    def _rendered(self, plan: ClassPlan) -> PlanBundle:
        engine_yaml = render_engine_yaml(self.service, plan, pod_placement(self.service))
        template = self.pod_template(self.service, plan, self.settings, self.references)
        return make_bundle(engine_yaml, template)

    def _memory_in_force(
        self, bundle: PlanBundle | None, rendered: PlanBundle | None, plan: ClassPlan | None
    ) -> MemoryEstimate | None:
        """Of the bundle's own values, which may be older than the plan's; names it lacks are as planned today."""
        if bundle is None or plan is None:
            return None
        if rendered is not None and rendered.engine_yaml == bundle.engine_yaml:
            return plan.memory
        stored = bundle.engine()
        in_force = {
            name: stored[name] if type(stored.get(name)) is type(value) else value
            for name, value in plan.engine().items()
        }
        return estimate_memory(self.service, plan.shape, plan.site, in_force)


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
    planner = _Planner(service, table, nodes, settings, references, pod_template)
    drafts = [planner.decide(one, running.get(one.name)) for one in service.spec.hardware.classes]
    distribution = distribution_hash(service)
    known = [running[decision.name].distribution_hash for decision, _ in drafts if decision.name in running]
    total = 0 if service.spec.suspend else service.spec.replicas
    shares = split_replicas(
        total,
        "Weighted" if policy_of(service) == "Weighted" else "Priority",
        [share for _, share in drafts],
        rebalance=any(one not in ("", distribution) for one in known),
    )
    classes = tuple(replace(decision, desired=shares[decision.name]) for decision, _ in drafts)
    return FleetPlan(service, classes, distribution, _fleet_problem(total, classes))


def _share(decision: ClassDecision, nodes: ClassNodes | None, running: RunningClass | None) -> ClassShare:
    one = decision.hardware_class
    return ClassShare(
        name=one.name,
        weight=one.weight,
        min_replicas=one.min_replicas,
        max_replicas=one.max_replicas if decision.bundle is not None else 0,
        capacity=None if nodes is None else nodes.capacity,
        replicas=running.replicas if running is not None else 0,
        ready=running.ready if running is not None else 0,
    )


def _fleet_problem(total: int, classes: Sequence[ClassDecision]) -> Problem | None:
    placed = sum(decision.desired for decision in classes)
    if placed == total:
        return None
    blocked = [decision for decision in classes if decision.bundle is None]
    if len(blocked) == len(classes) and blocked[0].problem is not None:
        return blocked[0].problem
    names = ", ".join(decision.name for decision in blocked)
    without = f" (without {names}, which cannot run)" if names else ""
    return Problem(
        "ReplicasExceedClasses",
        f"{total} replicas are asked for and the classes' maxReplicas allow {placed}{without}; raise maxReplicas, "
        "add a class or lower spec.replicas",
    )


def _warnings(
    plan: ClassPlan | None, nodes: ClassNodes | None, pending: PlanBundle | None, memory: MemoryEstimate | None
) -> tuple[str, ...]:
    warnings = [*(plan.warnings if plan is not None else ()), *(nodes.warnings if nodes is not None else ())]
    if memory is not None and not memory.fits and pending is not None:
        warnings.append(
            f"the plan in force needs {memory.total_mib} MiB, the smallest matching device has {memory.usable_mib} "
            "usable; the pending plan fits"
        )
    return tuple(warnings)
