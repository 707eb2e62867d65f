"""A TTSService of a cluster, explained to a person: how it is, why, and what to do. Pure.

Everything is read from the resource's own status; its pods, where given, only add names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ttsfleet_operator.labels import CLASS_LABEL
from ttsfleet_operator.status.pods import diagnose, is_live, is_ready
from ttsfleet_operator.status.reasons import Reason
from ttsfleet_operator.status.wire import Raw, count, items, part, read_time, text

_KNOWN = {reason.value: reason for reason in Reason}


@dataclass(frozen=True)
class ClassLine:
    name: str
    replicas: str
    profile: str
    plan: str
    memory: str
    hash: str
    pending: str
    problem: str


@dataclass(frozen=True)
class ConditionLine:
    type: str
    status: str
    reason: str
    message: str
    age: str


@dataclass(frozen=True)
class PodLine:
    name: str
    class_name: str
    node: str
    state: str


@dataclass(frozen=True)
class Advice:
    """One thing that is wrong: what it is, and what to do."""

    reason: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Explanation:
    """`state`: Ready, Progressing, Stalled, Suspended or Unknown, as kstatus and Argo CD see it."""

    name: str
    namespace: str
    state: str
    summary: str
    url: str = ""
    model: str = ""
    classes: tuple[ClassLine, ...] = ()
    conditions: tuple[ConditionLine, ...] = ()
    pods: tuple[PodLine, ...] = ()
    advice: tuple[Advice, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def well(self) -> bool:
        return self.state in ("Ready", "Suspended")


def explain(resource: Raw, pods: Sequence[Raw] = (), *, now: datetime) -> Explanation:
    """The explanation of one resource, as the API gives it."""
    metadata, status = part(resource, "metadata"), part(resource, "status")
    state, summary = _state(resource)
    model = part(status, "model")
    return Explanation(
        name=text(metadata, "name"),
        namespace=text(metadata, "namespace"),
        state=state,
        summary=summary,
        url=text(status, "url"),
        model=" ".join(filter(None, (text(model, "type"), text(model, "digest")[:19]))),
        classes=tuple(_class(one) for one in items(status, "classes")),
        conditions=tuple(_condition(one, now) for one in items(status, "conditions")),
        pods=tuple(sorted((_pod(pod) for pod in pods), key=lambda line: (line.class_name, line.name))),
        advice=tuple(_advice(status, pods)),
        warnings=tuple(_warnings(status)),
        notes=tuple(_notes(resource)),
    )


def _state(resource: Raw) -> tuple[str, str]:
    metadata, status = part(resource, "metadata"), part(resource, "status")
    conditions = {text(one, "type"): one for one in items(status, "conditions")}
    ready = conditions.get("Ready", {})
    if metadata.get("deletionTimestamp"):
        return "Progressing", "it is being deleted"
    if not conditions:
        return "Unknown", "no operator has looked at it yet; is one running, and does it watch this namespace?"
    generation, observed = count(metadata, "generation"), count(status, "observedGeneration")
    if generation != observed:
        return (
            "Progressing",
            f"the operator has not acted on the newest spec yet (generation {generation}, not {observed})",
        )
    for kind, state in (("Reconciling", "Progressing"), ("Stalled", "Stalled")):
        if conditions.get(kind, {}).get("status") == "True":
            return state, text(conditions[kind], "message") if ready.get("status") != "True" else _both(
                ready, conditions[kind]
            )
    if ready.get("status") != "True":
        return "Progressing", text(ready, "message")
    if text(ready, "reason") in (Reason.SUSPENDED, Reason.PAUSED):
        return "Suspended", text(ready, "message")
    return "Ready", text(ready, "message")


def _both(ready: Raw, other: Raw) -> str:
    return f"{text(ready, 'message')}; {text(other, 'message')}"


def _class(one: Raw) -> ClassLine:
    plan, memory, problem = part(one, "plan"), part(one, "memory"), part(one, "problem")
    values = f"{count(plan, 'workers')} workers, decode {count(plan, 'decode_process_num')}" if plan else ""
    types = [text(plan, "data_type"), text(plan, "quant_type")] if plan else []
    assumed = " (assumed)" if memory.get("assumed") else ""
    return ClassLine(
        name=text(one, "name"),
        replicas=f"{count(one, 'ready')}/{count(one, 'desired')}",
        profile=text(one, "profile"),
        plan=", ".join(filter(None, (values, *types))),
        memory=f"{count(memory, 'estimatedMiB')} of {count(memory, 'deviceMiB')} MiB{assumed}" if memory else "",
        hash=text(one, "planHash"),
        pending=text(one, "pendingPlanHash"),
        problem=text(problem, "reason"),
    )


def _condition(one: Raw, now: datetime) -> ConditionLine:
    return ConditionLine(
        type=text(one, "type"),
        status=text(one, "status"),
        reason=text(one, "reason"),
        message=text(one, "message"),
        age=age(text(one, "lastTransitionTime"), now),
    )


def age(moment: str, now: datetime) -> str:
    """`3m`, `5h`, `2d` since a time of the API; "" when it is unknown."""
    then = read_time(moment)
    if then is None:
        return ""
    seconds = max(0, int((now - then).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _pod(pod: Raw) -> PodLine:
    trouble = diagnose(pod)
    phase = text(part(pod, "status"), "phase") or "Unknown"
    state = trouble.reason.value if trouble else "Ready" if is_ready(pod) else phase if is_live(pod) else "Ending"
    labels = part(pod, "metadata", "labels")
    return PodLine(
        text(part(pod, "metadata"), "name"), text(labels, CLASS_LABEL), text(part(pod, "spec"), "nodeName"), state
    )


def _advice(status: Raw, pods: Sequence[Raw]) -> Iterator[Advice]:
    """Each reason once: those of the classes first, then of the conditions that say something is wrong."""
    seen: set[str] = set()
    for one in items(status, "classes"):
        problem = part(one, "problem")
        reason = text(problem, "reason")
        if reason and reason not in seen:
            seen.add(reason)
            yield Advice(
                reason, f"class {text(one, 'name')}: {text(problem, 'message')}", _remedy(reason, status, pods)
            )
    for one in items(status, "conditions"):
        reason = text(one, "reason")
        wrong = one.get("type") in ("Stalled", "Degraded") or one.get("status") == "False"
        remedy = _remedy(reason, status, pods)
        if wrong and remedy and reason not in seen and not (seen and reason == Reason.BELOW_DESIRED):
            seen.add(reason)
            yield Advice(reason, text(one, "message"), remedy)


def _remedy(reason: str, status: Raw, pods: Sequence[Raw]) -> str:
    """The reason's remedy, with the names that are known in place of those in capitals."""
    known = _KNOWN.get(reason)
    if known is None:
        return "this command does not know the reason: use the release of the operator"
    remedy = known.remedy.replace("SELECTOR", text(status, "selector") or "SELECTOR")
    for pod in pods:
        trouble = diagnose(pod)
        if trouble is not None and trouble.reason is known:
            return remedy.replace(" POD", f" {text(part(pod, 'metadata'), 'name')}")
    return remedy


def _warnings(status: Raw) -> Iterator[str]:
    for one in items(status, "classes"):
        warnings = one.get("warnings")
        for warning in warnings if isinstance(warnings, list) else ():
            yield f"class {text(one, 'name')}: {warning}"


def _notes(resource: Raw) -> Iterator[str]:
    status = part(resource, "status")
    pending = [text(one, "name") for one in items(status, "classes") if text(one, "pendingPlanHash")]
    if pending:
        yield (
            f"a newer plan waits for {', '.join(pending)}: it is taken over with the next change of the spec, or "
            "with rollout.planChanges: Automatic"
        )
    if any(part(one, "memory").get("assumed") for one in items(status, "classes")):
        yield "assumed: no node of the class was seen, so its plan is sized by the profile's smallest memory"
