"""When a status is written, and which Events its changes make."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from ttsfleet_operator.status.events import event_manifest, event_name, transitions
from ttsfleet_operator.status.pace import due, look_again_seconds, wait_seconds

NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


def changed(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda status: status | fields


def reasoned(status: dict[str, Any]) -> dict[str, Any]:
    ready, *others = status["conditions"]
    return status | {"conditions": [ready | {"reason": "Paused"}, *others]}


def reworded(status: dict[str, Any]) -> dict[str, Any]:
    ready, *others = status["conditions"]
    return status | {"conditions": [ready | {"message": "2 of 3 replicas serve"}, *others]}


def troubled(status: dict[str, Any]) -> dict[str, Any]:
    problem = {"reason": "OOMKilled", "message": "", "pods": 1, "since": ""}
    return status | {"classes": [status["classes"][0] | {"problem": problem}]}


def without_problem(status: dict[str, Any]) -> dict[str, Any]:
    return status | {"conditions": [*status["conditions"], {"type": "Stalled", "status": "True", "reason": "X"}]}


@pytest.mark.parametrize(
    ("change", "seconds", "expected"),
    [
        pytest.param(changed(), 0, None, id="nothing changed"),
        pytest.param(changed(), 3600, None, id="nothing changed for an hour"),
        pytest.param(changed(readyReplicas=2), 0, 10.0, id="a number, just written"),
        pytest.param(changed(readyReplicas=2), 9.5, 0.5, id="a number, half a second early"),
        pytest.param(changed(readyReplicas=2), 10, 0.0, id="a number after 10 s"),
        pytest.param(reworded, 3, 7.0, id="a message"),
        pytest.param(reasoned, 0, 0.0, id="a reason"),
        pytest.param(without_problem, 0, 0.0, id="a new condition"),
        pytest.param(troubled, 0, 0.0, id="a class's problem"),
        pytest.param(changed(observedGeneration=5), 0, 0.0, id="a newer spec was seen"),
    ],
)
def test_when_a_status_is_written(fleet: Any, change: Any, seconds: float, expected: float | None) -> None:
    before = fleet.status()
    now = fleet.now + timedelta(seconds=seconds)
    assert wait_seconds(before, change(before), fleet.now, now) == expected
    assert due(before, change(before), fleet.now, now) == (expected == 0.0)


def test_first_status_is_written_at_once(fleet: Any) -> None:
    assert due({}, fleet.status(), None, fleet.now)


def test_difference_left_by_a_process_before_is_written_at_once(fleet: Any) -> None:
    before = fleet.status()
    assert due(before, before | {"readyReplicas": 2}, None, fleet.now)
    assert not due(before, before, None, fleet.now)


def test_settled_service_is_not_looked_at_again_by_itself(fleet: Any) -> None:
    assert look_again_seconds(fleet.status()) is None
    moving = fleet.status(observed=fleet.observed(fleet.deployment(3, 2)))
    assert look_again_seconds(moving) == 10.0


def drafts(previous: Any, new: Any) -> list[str]:
    return [f"{one.type} {one.reason}: {one.message}" for one in transitions(previous, new)]


def test_life_of_a_service_in_events(fleet: Any) -> None:
    first = fleet.status(observed=fleet.observed(None))
    starting = fleet.status(observed=fleet.observed(fleet.deployment(3, 0)), previous=first)
    waiting = fleet.status(
        observed=fleet.observed(fleet.deployment(3, 2), fleet.pending_pod(NO_GPU)), previous=starting
    )
    serving = fleet.status(previous=waiting)
    no_gpu = "class ada: no node takes the pod: no nvidia.com/gpu is free"
    assert drafts({}, first) == []
    assert drafts(first, starting) == ["Normal Starting: the first of 3 replicas is starting"]
    assert drafts(starting, waiting) == [
        "Normal Serving: 2 of 3 replicas serve",
        f"Warning InsufficientGPU: {no_gpu}",
    ]
    assert drafts(waiting, serving) == ["Normal ProblemSolved: class ada: InsufficientGPU is over"]
    assert drafts(serving, serving) == []


def test_failure_and_pending_plan_in_events(fleet: Any) -> None:
    before = fleet.status()
    pending = fleet.status(plan=fleet.plan(fleet.service(), pending=True), previous=before)
    assert drafts(before, pending) == [
        "Normal PlanPending: class ada: plan feedbeef waits for a change of the spec",
    ]
    conflict = fleet.status(observed=fleet.observed(None, name_conflicts=("Service/narrator",)), previous=before)
    assert drafts(before, conflict) == [
        "Warning NameConflict: none of 3 replicas serves; Service/narrator exists and is not ours; it is left alone",
    ]


def test_one_event_per_reason_of_several_classes(fleet: Any) -> None:
    def status(problem: dict[str, Any] | None) -> dict[str, Any]:
        problems = {"problem": problem} if problem else {}
        return {"classes": [{"name": name} | problems for name in ("ada", "l4")]}

    (draft,) = transitions(status(None), status({"reason": "OOMKilled", "message": "killed"}))
    assert draft.message == "class ada: killed; class l4: killed"


def test_event_name_is_of_object_and_reason(fleet: Any) -> None:
    service = fleet.service()
    other = service.model_copy(update={"metadata": service.metadata.model_copy(update={"uid": "u-2"})})
    names = {event_name(service, "Serving"), event_name(service, "Starting"), event_name(other, "Serving")}
    assert len(names) == 3
    assert event_name(service, "Serving") == event_name(fleet.service(replicas=9), "Serving")
    (draft, *_) = transitions({}, fleet.status())
    manifest = event_manifest(service, draft, fleet.now)
    assert manifest["metadata"] == {"name": event_name(service, draft.reason), "namespace": "speech"}
    assert manifest["involvedObject"]["uid"] == "u-1"
    assert manifest["lastTimestamp"] == "2026-11-23T10:00:00Z"
