"""`build_status`: the wire form of `TTSService.status`, from the plan and what the cluster shows. Pure.

Two calls with the same plan and sight give the same status, whenever they are made: times are kept from the previous
status unless what they belong to has changed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import yaml

from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.api.status import MAX_WARNING, MAX_WARNINGS
from ttsfleet_operator.fleet.plan import FleetPlan
from ttsfleet_operator.manifests.names import config_map_name, deployment_name, service_selector
from ttsfleet_operator.status.conditions import Verdict, is_assumed, judge
from ttsfleet_operator.status.observed import ObservedFleet
from ttsfleet_operator.status.reasons import clip
from ttsfleet_operator.status.size import fit
from ttsfleet_operator.status.views import ClassView, FleetView, view_fleet
from ttsfleet_operator.status.wire import Raw, count, items, part, text, write_time

MAX_SUMMARY = 128
MORE_WARNINGS = "there are more: `ttsfleet plan` shows them"
_SUMMARY_VALUES = ("workers", "decode_process_num", "quant_type", "data_type")


def build_status(
    service: TTSService, plan: FleetPlan, observed: ObservedFleet, previous: Raw, now: datetime
) -> dict[str, Any]:
    """The new status. `previous` is the one that the resource has, {} on first sight; `now` has a time zone."""
    problems = {text(one, "name"): part(one, "problem") for one in items(previous, "classes")}
    view = view_fleet(service, plan, observed, problems, now)
    generation = _generation(service, observed, previous)
    known = {text(one, "type"): one for one in items(previous, "conditions")}
    conditions = [_dated(verdict, known.get(verdict.type, {}), generation, now) for verdict in judge(view, known)]
    return fit(
        {
            "observedGeneration": generation,
            "replicas": view.replicas,
            "desiredReplicas": view.wanted,
            "readyReplicas": view.ready,
            "selector": selector(service.name),
            "url": f"http://{service.name}.{service.namespace}.svc" if observed.service_present else "",
            "gpuSummary": _gpu_summary(view),
            "workersSummary": _workers_summary(view),
            "model": _model(view, part(previous, "model")),
            "classes": [_class(service, one) for one in view.classes],
            "conditions": conditions,
        }
    )


def selector(service: str) -> str:
    """The label selector of all pods of a service, as the scale subresource gives it."""
    return ",".join(f"{label}={value}" for label, value in service_selector(service).items())


def _generation(service: TTSService, observed: ObservedFleet, previous: Raw) -> int:
    """A paused service has not acted on its newest generation, so it does not claim to have observed it."""
    if observed.paused and previous:
        return count(previous, "observedGeneration")
    return service.metadata.generation


def _dated(verdict: Verdict, before: Raw, generation: int, now: datetime) -> dict[str, Any]:
    kept = text(before, "lastTransitionTime") if before.get("status") == verdict.status else ""
    return {
        "type": verdict.type,
        "status": verdict.status,
        "reason": verdict.reason.value,
        "message": verdict.message,
        "observedGeneration": generation,
        "lastTransitionTime": kept or write_time(now),
    }


def _model(view: FleetView, previous: Raw) -> dict[str, Any]:
    """`digest` is what the fetch step verified; before that, what the spec pins."""
    spec = view.service.spec.model
    pinned = spec.manifest_sha256 or (spec.source.https.sha256 if spec.source.https is not None else "")
    seen = next((one.digest for one in view.classes if one.digest), "")
    shapes = [one.decision.plan.shape.name for one in view.classes if one.decision.plan is not None]
    return {
        "type": shapes[0].split("-0.")[0] if shapes else text(previous, "type"),
        "digest": seen or (f"sha256:{pinned}" if pinned else ""),
        "fetched": sum(one.fetched for one in view.classes),
    }


def _class(service: TTSService, one: ClassView) -> dict[str, Any]:
    decision = one.decision
    plan_hash = decision.bundle.hash if decision.bundle is not None else ""
    status: dict[str, Any] = {
        "name": one.name,
        "profile": decision.plan.profile.name if decision.plan is not None else decision.hardware_class.profile,
        "planHash": plan_hash,
        "pendingPlanHash": decision.pending.hash if decision.pending is not None else "",
        "desired": one.desired,
        "ready": one.ready,
        "deployment": deployment_name(service.name, one.name) if decision.bundle is not None else "",
        "engineConfigMap": config_map_name(service.name, one.name, plan_hash) if plan_hash else "",
    }
    if decision.bundle is not None:
        status["plan"] = plan_summary(decision.bundle.engine_yaml)
    if decision.memory is not None:
        status["memory"] = {
            "deviceMiB": decision.memory.device_mib,
            "estimatedMiB": decision.memory.total_mib,
            "assumed": is_assumed(one),
        }
    if decision.warnings:
        status["warnings"] = _warnings(decision.warnings)
    if one.problem is not None:
        status["problem"] = {
            "reason": one.problem.finding.reason.value,
            "message": one.problem.finding.message,
            "pods": one.problem.pods,
            "since": write_time(one.problem.since),
        }
    return status


def _warnings(warnings: Sequence[str]) -> list[str]:
    """The first of the plan's own sentences, each once, and a last one that says that there are more."""
    told = list(dict.fromkeys(clip(one, MAX_WARNING) for one in warnings))
    return told if len(told) <= MAX_WARNINGS else [*told[: MAX_WARNINGS - 1], MORE_WARNINGS]


def plan_summary(engine_yaml: str) -> dict[str, Any]:
    """The values of a stored plan that a person asks about first. The CPU's has no quantisation."""
    return dict(_summary(engine_yaml))


@functools.lru_cache(maxsize=4096)
def _summary(engine_yaml: str) -> Mapping[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    values = yaml.load(engine_yaml, Loader=loader) or {}
    return {name: values.get(name, "none" if name.endswith("_type") else 0) for name in _SUMMARY_VALUES}


def _gpu_summary(view: FleetView) -> str:
    return clip(", ".join(f"{one.name} {one.desired}" for one in view.classes if one.desired), MAX_SUMMARY)


def _workers_summary(view: FleetView) -> str:
    """Workers per pod of each class that runs; of the first class when none does."""
    planned: Sequence[ClassView] = [one for one in view.classes if one.decision.bundle is not None]
    running = [one for one in planned if one.desired] or planned[:1]
    workers = [
        str(plan_summary(one.decision.bundle.engine_yaml)["workers"])
        for one in running
        if one.decision.bundle is not None
    ]
    return clip(", ".join(dict.fromkeys(workers)), MAX_SUMMARY)
