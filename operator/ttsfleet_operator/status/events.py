"""Events for the transitions of a status. Pure.

An Event's name is derived from the object and the reason, so a service that flaps has one Event per reason and not
thousands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ttsfleet_operator.api.service import API_VERSION, KIND, TTSService
from ttsfleet_operator.status.reasons import Reason, clip, say
from ttsfleet_operator.status.wire import Raw, items, part, text, write_time

COMPONENT = "ttsfleet-operator"


@dataclass(frozen=True)
class EventDraft:
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def transitions(previous: Raw, new: Raw) -> list[EventDraft]:
    """What changed, at most one draft per reason; drafts of one reason are joined."""
    drafts: dict[str, EventDraft] = {}
    for draft in (*_conditions(previous, new), *_classes(previous, new)):
        known = drafts.get(draft.reason)
        if known is not None and draft.message not in known.message:
            draft = EventDraft(known.type, known.reason, clip(f"{known.message}; {draft.message}"))
        drafts[draft.reason] = draft if known is None or draft.message not in known.message else known
    return list(drafts.values())


def event_name(service: TTSService, reason: str) -> str:
    """The name of the one Event of this resource and reason; a new resource of the same name has its own."""
    digest = hashlib.sha256(f"{service.metadata.uid}/{reason}".encode()).hexdigest()[:12]
    return f"{service.name}.{digest}"


def event_manifest(service: TTSService, draft: EventDraft, now: datetime) -> dict[str, Any]:
    """The Event object."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": event_name(service, draft.reason), "namespace": service.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": service.name,
            "namespace": service.namespace,
            "uid": service.metadata.uid,
        },
        "type": draft.type,
        "reason": draft.reason,
        "message": clip(draft.message),
        "lastTimestamp": write_time(now),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
    }


def _conditions(previous: Raw, new: Raw) -> Iterator[EventDraft]:
    """A service below its replicas is told once it has served: until then `Ready` says the same."""
    before = {text(one, "type"): one for one in items(previous, "conditions")}
    serves = any((text(one, "type"), text(one, "status")) == ("Ready", "True") for one in items(new, "conditions"))
    for one in items(new, "conditions"):
        kind, status, reason = text(one, "type"), text(one, "status"), text(one, "reason")
        old = before.get(kind, {})
        if (status, reason) == (text(old, "status"), text(old, "reason")):
            continue
        if reason == Reason.BELOW_DESIRED and not serves:
            continue
        if kind == "Ready" and status == "True":
            yield EventDraft("Normal", reason, text(one, "message"))
        elif (kind == "Ready" and status == "False") or kind in ("Stalled", "Degraded"):
            calm = reason in (Reason.STARTING, Reason.BELOW_DESIRED)
            yield EventDraft("Normal" if calm else "Warning", reason, text(one, "message"))


def _classes(previous: Raw, new: Raw) -> Iterator[EventDraft]:
    before = {text(one, "name"): one for one in items(previous, "classes")}
    for one in items(new, "classes"):
        name = text(one, "name")
        old = before.get(name, {})
        problem, former = part(one, "problem"), part(old, "problem")
        reason = text(problem, "reason")
        if reason and reason != text(former, "reason"):
            yield EventDraft("Warning", reason, clip(f"class {name}: {text(problem, 'message')}"))
        if former and not problem:
            message = say(Reason.PROBLEM_SOLVED, name=name, reason=text(former, "reason"))
            yield EventDraft("Normal", Reason.PROBLEM_SOLVED, message)
        plan, running = text(one, "planHash"), text(old, "planHash")
        if plan and running and plan != running:
            yield EventDraft("Normal", Reason.PLAN_CHANGED, say(Reason.PLAN_CHANGED, name=name, plan=plan))
        plan = text(one, "pendingPlanHash")
        if plan and plan != text(old, "pendingPlanHash"):
            yield EventDraft("Normal", Reason.PLAN_PENDING, say(Reason.PLAN_PENDING, name=name, plan=plan))
