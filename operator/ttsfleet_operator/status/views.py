"""The plan and the sight of one service, joined: what the conditions are decided from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.plan import ClassDecision, FleetPlan
from ttsfleet_operator.manifests.names import config_map_name
from ttsfleet_operator.status.deployments import Rollout, read_rollout
from ttsfleet_operator.status.observed import ObservedClass, ObservedFleet
from ttsfleet_operator.status.pods import diagnose, has_model, is_fetching, is_live, is_scheduled, model_digest
from ttsfleet_operator.status.reasons import (
    FAULT_PATIENCE_SECONDS,
    Finding,
    Reason,
    Urgency,
    finding,
    of_plan,
)
from ttsfleet_operator.status.refusals import explain_refusals, explain_undeleted
from ttsfleet_operator.status.wire import Raw, count, items, part, read_time, text

DEFAULT_PROGRESS_DEADLINE_SECONDS = 3600


@dataclass(frozen=True)
class ClassProblem:
    """The worst finding of a class. `stuck` = it has lasted longer than its kind is given to heal by itself."""

    finding: Finding
    pods: int
    since: datetime
    stuck: bool


@dataclass(frozen=True)
class ClassView:
    """One class.

    current: its Deployment runs the plan that shall run, with the wanted replicas, all available
    refusal: the plan's problem; findings: all that hinders, the plan's problem among it
    blind: it is not current, and its pods were not listed: what is not known stays as it was
    """

    decision: ClassDecision
    rollout: Rollout
    exists: bool
    current: bool
    blind: bool
    refusal: Finding | None
    findings: tuple[Finding, ...]
    problem: ClassProblem | None
    unscheduled: bool
    fetched: int
    fetching: bool
    digest: str

    @property
    def name(self) -> str:
        return self.decision.name

    @property
    def desired(self) -> int:
        return self.decision.desired

    @property
    def ready(self) -> int:
        return self.rollout.ready

    @property
    def hinders(self) -> bool:
        """Whether the problem keeps the class from what it shall be. One without nodes may have all that it needs."""
        if self.problem is None:
            return False
        return not self.current or self.problem.finding.reason.urgency is not Urgency.WAIT


@dataclass(frozen=True)
class FleetView:
    """One service. `wanted` is what the user asks for, `problem` what concerns the service as a whole."""

    service: TTSService
    observed: ObservedFleet
    classes: tuple[ClassView, ...]
    wanted: int
    problem: Finding | None
    shortage: Finding | None

    @property
    def ready(self) -> int:
        return sum(one.ready for one in self.classes)

    @property
    def replicas(self) -> int:
        return sum(one.rollout.replicas for one in self.classes)

    @property
    def placed(self) -> int:
        """Replicas that the plan gives to classes."""
        return sum(one.desired for one in self.classes)

    @property
    def worst(self) -> ClassView | None:
        """The class whose problem counts most: of those that shall run something, else of all."""
        troubled = [one for one in self.classes if one.hinders]
        if self.placed >= self.wanted:
            troubled = [one for one in troubled if one.desired] or troubled
        return min(troubled, key=lambda one: (not one.desired, _rank(one)), default=None)

    @property
    def stalling(self) -> ClassView | None:
        """The class because of which no further progress is expected, if any."""
        stuck = [
            one
            for one in self.classes
            if one.hinders and one.problem is not None and one.problem.stuck and self._needed(one)
        ]
        return min(stuck, key=lambda one: (not one.desired, _rank(one)), default=None)

    @property
    def waiting(self) -> bool:
        """Whether a class is hindered by what may still heal."""
        return any(one.hinders and self._needed(one) for one in self.classes)

    def _needed(self, one: ClassView) -> bool:
        """A class without replicas is needed only where the others do not take all of them."""
        return one.desired > 0 or self.placed < self.wanted


def view_fleet(
    service: TTSService, plan: FleetPlan, observed: ObservedFleet, previous: Mapping[str, Raw], now: datetime
) -> FleetView:
    """Join plan and sight. `previous` has each class's `problem` of the last status, by class name."""
    classes = tuple(
        _view_class(service, decision, observed, previous.get(decision.name, {}), now) for decision in plan.classes
    )
    shortage = None
    problem = _problem_of_all(observed)
    if plan.problem is not None:
        found = of_plan(plan.problem)
        if found.reason is Reason.REPLICAS_EXCEED_CLASSES:
            shortage = found
        elif all(decision.problem != plan.problem for decision in plan.classes):
            problem = problem or found
    wanted = 0 if service.spec.suspend else service.spec.replicas
    return FleetView(service, observed, classes, wanted, problem, shortage)


def _problem_of_all(observed: ObservedFleet) -> Finding | None:
    if observed.name_conflicts:
        return finding(Reason.NAME_CONFLICT, objects=", ".join(sorted(observed.name_conflicts)))
    if observed.version_skew:
        return finding(
            Reason.VERSION_SKEW, image=observed.version_skew, release=observed.release or "of this release"
        )
    if observed.refusals:
        return explain_refusals(observed.refusals)
    return explain_undeleted(observed.undeleted) if observed.undeleted else None


def _view_class(
    service: TTSService, decision: ClassDecision, observed: ObservedFleet, previous: Raw, now: datetime
) -> ClassView:
    seen = observed.classes.get(decision.name) or ObservedClass(decision.name)
    rollout = read_rollout(seen.deployment)
    live = [pod for pod in seen.pods if is_live(pod)]
    current = _is_current(service, decision, observed, seen, rollout)
    refusal = None if decision.problem is None else of_plan(decision.problem, decision.name)
    blind = not current and not seen.pods_listed
    found = [*([refusal] if refusal is not None else []), *_findings(service, decision, observed, seen, rollout)]
    if blind:
        found += _remembered(previous)
    hindering = [one for one in found if not current or one.reason.urgency is not Urgency.WAIT]
    return ClassView(
        decision=decision,
        rollout=rollout,
        exists=seen.deployment is not None,
        current=current,
        blind=blind,
        refusal=refusal,
        findings=tuple(hindering),
        problem=_worst(service, found, previous, now),
        unscheduled=any(not is_scheduled(pod) for pod in live) or rollout.replicas < decision.desired,
        fetched=max(rollout.ready, sum(has_model(pod) for pod in live)),
        fetching=any(is_fetching(pod) for pod in live),
        digest=next(filter(None, sorted(model_digest(pod) for pod in live)), ""),
    )


def _is_current(
    service: TTSService, decision: ClassDecision, observed: ObservedFleet, seen: ObservedClass, rollout: Rollout
) -> bool:
    if seen.deployment is None:
        return decision.desired == 0
    if not rollout.settled or _plan_of(service, decision, seen.deployment) not in (
        "",
        _engine_map(service, decision),
    ):
        return False
    ours_to_scale = not (observed.foreign_scalers or observed.field_conflicts or observed.paused)
    return rollout.replicas == decision.desired or not ours_to_scale


def _engine_map(service: TTSService, decision: ClassDecision) -> str:
    return config_map_name(service.name, decision.name, decision.bundle.hash) if decision.bundle else ""


def _plan_of(service: TTSService, decision: ClassDecision, deployment: Raw) -> str:
    """The engine ConfigMap that the Deployment's pods mount; "" when none is recognised."""
    prefix = f"{service.name}-{decision.name}-"
    for volume in items(part(deployment, "spec", "template", "spec"), "volumes"):
        name = text(part(volume, "configMap"), "name")
        if name.startswith(prefix):
            return name
    return ""


def _findings(
    service: TTSService, decision: ClassDecision, observed: ObservedFleet, seen: ObservedClass, rollout: Rollout
) -> list[Finding]:
    """What is wrong with the Deployment and its pods, one entry per pod; ended pods matter while replicas lack."""
    found = [] if rollout.refusal is None else [rollout.refusal]
    short = rollout.ready < decision.desired
    for pod in seen.pods:
        trouble = diagnose(pod, observed.lost_nodes, seen.events) if short or is_live(pod) else None
        if trouble is not None:
            found.append(trouble)
    if rollout.deadline_missed and not found and decision.problem is None:
        found.append(finding(Reason.PROGRESS_DEADLINE_EXCEEDED, seconds=_deadline(service)))
    return found


def _remembered(previous: Raw) -> list[Finding]:
    """The problem of pods in the last status, once per pod: it holds until the pods are looked at again."""
    known = [reason for reason in Reason if reason.value == previous.get("reason")]
    if not known or not _is_of_pods(known[0]):
        return []
    return [Finding(known[0], text(previous, "message"))] * max(1, count(previous, "pods"))


def _worst(service: TTSService, found: list[Finding], previous: Raw, now: datetime) -> ClassProblem | None:
    """The first by rank. One that lasts keeps its `since`."""
    if not found:
        return None
    worst = min(found, key=lambda one: (one.reason.rank, one.message))
    same = [one for one in found if one.reason is worst.reason]
    before = read_time(text(previous, "since")) if previous.get("reason") == worst.reason.value else None
    since = before or min((one.since for one in same if one.since is not None), default=now)
    since = min(since, now)
    return ClassProblem(
        finding=worst,
        pods=len(same) if _is_of_pods(worst.reason) else 0,
        since=since,
        stuck=now - since >= _patience(service, worst.reason),
    )


def _is_of_pods(reason: Reason) -> bool:
    return Reason.INVALID_IMAGE_NAME.rank <= reason.rank <= Reason.EVICTED.rank


def _patience(service: TTSService, reason: Reason) -> timedelta:
    match reason.urgency:
        case Urgency.FAULT:
            return timedelta(seconds=FAULT_PATIENCE_SECONDS)
        case Urgency.WAIT:
            return timedelta(seconds=_deadline(service))
        case _:
            return timedelta(0)


def _deadline(service: TTSService) -> int:
    rollout = service.spec.rollout
    return DEFAULT_PROGRESS_DEADLINE_SECONDS if rollout is None else rollout.progress_deadline_seconds


def _rank(one: ClassView) -> int:
    return one.problem.finding.reason.rank if one.problem is not None else len(Reason)
