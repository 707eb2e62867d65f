"""The conditions of a TTSService, decided from a `FleetView`. Pure.

Positive: Ready, ModelReady, ProfileResolved, Scheduled, WorkloadAvailable. Present only when True: Reconciling,
Stalled (never both: kstatus takes the first it finds) and Degraded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from ttsfleet_operator.status.reasons import Finding, Reason, Urgency, clip, say
from ttsfleet_operator.status.views import ClassView, FleetView
from ttsfleet_operator.status.wire import Raw, text

Status: TypeAlias = Literal["True", "False", "Unknown"]

_FETCH = frozenset(reason for reason in Reason if reason.value.startswith("Fetch") and reason is not Reason.FETCHING)
_PLACING = frozenset(
    reason for reason in Reason if Reason.INSUFFICIENT_GPU.rank <= reason.rank <= Reason.UNSCHEDULABLE.rank
) | frozenset(reason for reason in Reason if Reason.QUOTA_EXCEEDED.rank <= reason.rank <= Reason.PODS_REFUSED.rank)
_NONE_WANTED = frozenset({Reason.SCALED_TO_ZERO.value, Reason.SUSPENDED.value, Reason.SCALING_FROM_ZERO.value})


class Verdict(NamedTuple):
    """A condition without its times."""

    type: str
    status: Status
    reason: Reason
    message: str


def judge(view: FleetView, previous: Mapping[str, Raw]) -> list[Verdict]:
    """All conditions, in their order. `previous` has those of the last status by type."""
    ready = _ready(view, previous.get("Ready", {}))
    model, scheduled = _model(view, previous.get("ModelReady", {})), _scheduled(view, previous.get("Scheduled", {}))
    verdicts = [ready, model, _profile(view), scheduled, _available(view)]
    stalled = _stalled(view)
    verdicts += [one for one in (_reconciling(view) if stalled is None else stalled,) if one is not None]
    degraded = _degraded(view) if ready.status != "Unknown" else _conflict(view)
    return [*verdicts, *([degraded] if degraded is not None else [])]


def _ready(view: FleetView, previous: Raw) -> Verdict:
    if view.wanted == 0:
        reason = Reason.SUSPENDED if view.service.spec.suspend else Reason.SCALED_TO_ZERO
        return Verdict("Ready", "True", reason, say(reason))
    if view.ready > 0:
        reason = Reason.PAUSED if view.observed.paused else Reason.SERVING
        return Verdict("Ready", "True", reason, _serves(view, reason))
    trouble = _trouble(view)
    if previous.get("reason") in _NONE_WANTED and (trouble is None or _may_come(view)):
        return Verdict("Ready", "Unknown", Reason.SCALING_FROM_ZERO, _count(view, Reason.SCALING_FROM_ZERO))
    if trouble is not None:
        message = f"none of {view.wanted} replicas serves; {trouble.message}"
        return Verdict("Ready", "False", trouble.reason, clip(message))
    reason = _unready(view, previous)
    return Verdict("Ready", "Unknown" if reason is Reason.FIRST_SIGHT else "False", reason, _count(view, reason))


def _unready(view: FleetView, previous: Raw) -> Reason:
    if not previous and not any(one.exists for one in view.classes):
        return Reason.FIRST_SIGHT
    if any(one.rollout.without_spare for one in view.classes):
        return Reason.ROLLING_OUT_WITHOUT_SPARE
    never_served = not previous or previous.get("reason") in (Reason.FIRST_SIGHT.value, Reason.STARTING.value)
    return Reason.STARTING if never_served else Reason.NOT_SERVING


def _may_come(view: FleetView) -> bool:
    """Whether all that is missing after a scale-up from zero is capacity that may still come."""
    worst = view.worst
    problem = worst.problem if worst is not None else None
    waiting = problem is not None and problem.finding.reason.urgency is Urgency.WAIT and not problem.stuck
    return view.problem is None and waiting


def _model(view: FleetView, previous: Raw) -> Verdict:
    kind = "ModelReady"
    there = Reason.MODEL_IN_IMAGE if view.service.spec.model.source.builtin is not None else Reason.MODEL_FETCHED
    if any(one.fetched for one in view.classes):
        return Verdict(kind, "True", there, say(there))
    if view.wanted == 0:
        if previous.get("status") == "True":
            return Verdict(kind, "True", there, say(there))
        return Verdict(kind, "Unknown", Reason.NOTHING_WANTED, say(Reason.NOTHING_WANTED))
    failed = _first_of(view, _FETCH)
    if failed is not None:
        return Verdict(kind, "False", failed.reason, failed.message)
    kept = _kept(view, kind, previous)
    if kept is not None:
        return kept
    if any(one.fetching for one in view.classes):
        return Verdict(kind, "False", Reason.FETCHING, say(Reason.FETCHING))
    return Verdict(kind, "Unknown", Reason.STARTING, _count(view, Reason.STARTING))


def _profile(view: FleetView) -> Verdict:
    kind = "ProfileResolved"
    refused = [
        (one, one.refusal)
        for one in view.classes
        if one.refusal is not None and one.refusal.reason.urgency is not Urgency.WAIT
    ]
    if refused:
        first, refusal = min(refused, key=lambda pair: pair[1].reason.rank)
        return Verdict(kind, "False", refusal.reason, _about(first, refusal))
    assumed = [one.name for one in view.classes if is_assumed(one)]
    if assumed:
        return Verdict(
            kind, "True", Reason.PROFILES_ASSUMED, say(Reason.PROFILES_ASSUMED, classes=", ".join(assumed))
        )
    return Verdict(kind, "True", Reason.PROFILES_MATCHED, say(Reason.PROFILES_MATCHED))


def is_assumed(one: ClassView) -> bool:
    """Whether the class is sized for a GPU that nobody has seen."""
    plan = one.decision.plan
    return one.decision.hardware_class.gpu is not None and plan is not None and plan.site.assumed


def _scheduled(view: FleetView, previous: Raw) -> Verdict:
    kind = "Scheduled"
    if view.wanted == 0:
        return Verdict(kind, "True", Reason.NOTHING_WANTED, say(Reason.NOTHING_WANTED))
    failed = _first_of(view, _PLACING)
    if failed is not None:
        return Verdict(kind, "False", failed.reason, failed.message)
    kept = _kept(view, kind, previous)
    if kept is not None:
        return kept
    if view.placed == 0 or any((one.unscheduled or one.blind) and one.desired for one in view.classes):
        return Verdict(kind, "Unknown", Reason.SCHEDULING, say(Reason.SCHEDULING))
    return Verdict(kind, "True", Reason.ALL_SCHEDULED, say(Reason.ALL_SCHEDULED))


def _kept(view: FleetView, kind: str, previous: Raw) -> Verdict | None:
    """The condition as it was, while pods were not looked at. A "False" was a finding: findings are remembered."""
    known = next((reason for reason in Reason if reason.value == previous.get("reason")), None)
    blind = any(one.blind and one.desired for one in view.classes)
    if not blind or known in (None, Reason.NOTHING_WANTED) or previous.get("status") not in ("True", "Unknown"):
        return None
    status: Status = "True" if previous["status"] == "True" else "Unknown"
    return Verdict(kind, status, known, text(previous, "message"))


def _available(view: FleetView) -> Verdict:
    kind = "WorkloadAvailable"
    if view.wanted == 0:
        return Verdict(kind, "True", Reason.NOTHING_WANTED, say(Reason.NOTHING_WANTED))
    trouble = _trouble(view) or view.shortage
    if trouble is not None:
        return Verdict(kind, "False", trouble.reason, trouble.message)
    if all(one.current for one in view.classes) and view.ready >= view.wanted:
        return Verdict(kind, "True", Reason.AVAILABLE, say(Reason.AVAILABLE))
    reason = _motion(view)
    return Verdict(kind, "False", reason, say(reason))


def _stalled(view: FleetView) -> Verdict | None:
    if view.problem is not None:
        return Verdict("Stalled", "True", view.problem.reason, view.problem.message)
    one = view.stalling
    if one is None or one.problem is None:
        return None
    return Verdict("Stalled", "True", one.problem.finding.reason, _about(one, one.problem.finding))


def _reconciling(view: FleetView) -> Verdict | None:
    """Progress is expected: something is not as it shall be, and nothing says that it will stay so."""
    moving = any(not one.current and (one.desired or one.exists) for one in view.classes)
    applying = not view.observed.paused and (_applying(view) or not view.observed.service_present)
    if not moving and not applying:
        waits_for = _trouble(view) if view.waiting else None
        return None if waits_for is None else Verdict("Reconciling", "True", waits_for.reason, waits_for.message)
    if view.observed.paused and not any(one.exists and not one.current for one in view.classes):
        return None
    reason = Reason.APPLYING if applying else _motion(view)
    trouble = _trouble(view)
    message = say(reason) if trouble is None else f"{say(reason)}; {trouble.message}"
    return Verdict("Reconciling", "True", reason, clip(message))


def _motion(view: FleetView) -> Reason:
    if _applying(view):
        return Reason.APPLYING
    if any(one.rollout.without_spare for one in view.classes):
        return Reason.ROLLING_OUT_WITHOUT_SPARE
    return Reason.ROLLING_OUT if any(one.rollout.replacing for one in view.classes) else Reason.SCALING


def _applying(view: FleetView) -> bool:
    return any(one.desired and not one.exists for one in view.classes)


def _degraded(view: FleetView) -> Verdict | None:
    conflict = _conflict(view)
    if conflict is not None:
        return conflict
    trouble = _trouble(view)
    if view.ready >= view.wanted and trouble is None:
        return None
    if trouble is None:
        trouble = view.shortage
    if trouble is not None:
        return Verdict("Degraded", "True", trouble.reason, trouble.message)
    return Verdict("Degraded", "True", Reason.BELOW_DESIRED, _serves(view, Reason.BELOW_DESIRED))


def _conflict(view: FleetView) -> Verdict | None:
    for reason, objects in (
        (Reason.FIELD_CONFLICT, view.observed.field_conflicts),
        (Reason.FOREIGN_SCALER, view.observed.foreign_scalers),
    ):
        if objects:
            return Verdict("Degraded", "True", reason, say(reason, objects=", ".join(sorted(objects))))
    return None


def _trouble(view: FleetView) -> Finding | None:
    """What is wrong with the service, else with its worst class; the message names the class."""
    if view.problem is not None:
        return view.problem
    one = view.worst
    if one is None or one.problem is None:
        return None
    return Finding(one.problem.finding.reason, _about(one, one.problem.finding))


def _first_of(view: FleetView, reasons: frozenset[Reason]) -> Finding | None:
    found = [(one, each) for one in view.classes if one.desired for each in one.findings if each.reason in reasons]
    if not found:
        return None
    one, each = min(found, key=lambda pair: (pair[1].reason.rank, pair[0].name, pair[1].message))
    return Finding(each.reason, _about(one, each))


def _about(one: ClassView, found: Finding) -> str:
    return clip(f"class {one.name}: {found.message}")


def _serves(view: FleetView, reason: Reason) -> str:
    return say(reason, ready=min(view.ready, view.wanted), desired=view.wanted)


def _count(view: FleetView, reason: Reason) -> str:
    return say(reason, desired=view.wanted)
