"""The conditions through a service's life, scenario by scenario: it starts, scales, rolls, pauses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ttsfleet_operator.api.status import TTSServiceStatus
from ttsfleet_operator.plan import Problem
from ttsfleet_operator.status.reasons import MAX_MESSAGE, Reason

NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
NO_NODE = Problem("NoMatchingNode", "class ada: no node offers nvidia.com/gpu")
SCENARIOS: list[Any] = [
    pytest.param(
        lambda fleet: fleet.first_sight(),
        [
            "Ready=Unknown/FirstSight",
            "Scheduled=Unknown/Scheduling",
            "WorkloadAvailable=False/Applying",
            "Reconciling=True/Applying",
        ],
        id="first sight",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(3, 0), *(fleet.waiting_pod("ContainerCreating") for _ in range(3))),
        [
            "Ready=False/Starting",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/Scaling",
            "Reconciling=True/Scaling",
            "Degraded=True/BelowDesired",
        ],
        id="starting",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(3, 2), fleet.ready_pod(), fleet.waiting_pod("PodInitializing")),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/Scaling",
            "Reconciling=True/Scaling",
            "Degraded=True/BelowDesired",
        ],
        id="two of three",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(3, 3, total=4, updated=1)),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/RollingOut",
            "Reconciling=True/RollingOut",
        ],
        id="rolling out",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(3, engine_map="narrator-ada-00000000")),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/Scaling",
            "Reconciling=True/Scaling",
        ],
        id="the Deployment still has the plan before",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(3, generation=2)),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/Scaling",
            "Reconciling=True/Scaling",
        ],
        id="the Deployment's controller has not looked yet",
    ),
    pytest.param(
        lambda fleet: fleet.status(
            fleet.service(replicas=1),
            observed=fleet.observed(fleet.deployment(1, 0, total=2, updated=1, surge=0)),
            previous=fleet.status(fleet.service(replicas=1), observed=fleet.observed(fleet.deployment(1))),
        ),
        [
            "Ready=False/RollingOutWithoutSpare",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/RollingOutWithoutSpare",
            "Reconciling=True/RollingOutWithoutSpare",
            "Degraded=True/BelowDesired",
        ],
        id="one replica rolls without a spare device",
    ),
    pytest.param(
        lambda fleet: fleet.status(fleet.service(replicas=0), observed=fleet.observed(fleet.deployment(0))),
        ["Ready=True/ScaledToZero", "Scheduled=True/NothingWanted", "WorkloadAvailable=True/NothingWanted"],
        id="scaled to zero",
    ),
    pytest.param(
        lambda fleet: fleet.status(fleet.service(suspend=True), observed=fleet.observed(fleet.deployment(0))),
        ["Ready=True/Suspended", "Scheduled=True/NothingWanted", "WorkloadAvailable=True/NothingWanted"],
        id="suspended",
    ),
    pytest.param(
        lambda fleet: fleet.status(
            fleet.service(suspend=True), observed=fleet.observed(fleet.deployment(0, 0, total=2))
        ),
        [
            "Ready=True/Suspended",
            "Scheduled=True/NothingWanted",
            "WorkloadAvailable=True/NothingWanted",
            "Reconciling=True/Scaling",
        ],
        id="suspended, pods still ending",
    ),
    pytest.param(
        lambda fleet: fleet.scaled_from_zero(fleet.waiting_pod("ContainerCreating")),
        [
            "Ready=Unknown/ScalingFromZero",
            "Scheduled=Unknown/Scheduling",
            "WorkloadAvailable=False/Scaling",
            "Reconciling=True/Scaling",
        ],
        id="scaled from zero",
    ),
    pytest.param(
        lambda fleet: fleet.scaled_from_zero(fleet.pending_pod(NO_GPU)),
        [
            "Ready=Unknown/ScalingFromZero",
            "Scheduled=False/InsufficientGPU",
            "WorkloadAvailable=False/InsufficientGPU",
            "Reconciling=True/Scaling",
        ],
        id="scaled from zero, waits for a device",
    ),
    pytest.param(
        lambda fleet: fleet.status(
            fleet.service(replicas=2), observed=fleet.observed(fleet.deployment(2, 3, total=3))
        ),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/Scaling",
            "Reconciling=True/Scaling",
        ],
        id="scaling down",
    ),
    pytest.param(
        lambda fleet: fleet.two_classes({"ada": 0, "cpu": 3}, {"ada": NO_NODE}),
        ["Ready=True/Serving", "Scheduled=True/AllScheduled", "WorkloadAvailable=True/Available"],
        id="a class without nodes is not needed",
    ),
    pytest.param(
        lambda fleet: fleet.status(plan=fleet.plan(fleet.service(), {"ada": 3}, {"ada": NO_NODE})),
        ["Ready=True/Serving", "Scheduled=True/AllScheduled", "WorkloadAvailable=True/Available"],
        id="the nodes lost their labels, the pods serve",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(), service_present=False),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=True/Available",
            "Reconciling=True/Applying",
        ],
        id="the Service is missing",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(), paused=True),
        ["Ready=True/Paused", "Scheduled=True/AllScheduled", "WorkloadAvailable=True/Available"],
        id="paused",
    ),
]


@pytest.mark.parametrize(("make", "expected"), SCENARIOS)
def test_conditions(fleet: Any, make: Callable[[Any], dict[str, Any]], expected: list[str]) -> None:
    status = make(fleet)
    assert fleet.told(status, *fleet.judged) == expected
    for one in status["conditions"]:
        assert len(one["message"]) <= MAX_MESSAGE
        assert one["reason"] in {reason.value for reason in Reason}
        assert one["type"] not in ("Reconciling", "Stalled", "Degraded") or one["status"] == "True"
    TTSServiceStatus.model_validate_json(json.dumps(status))


def test_transition_time_moves_with_the_status_only(fleet: Any) -> None:
    first = fleet.status()
    lost = fleet.status(observed=fleet.observed(fleet.deployment(3, 0)), previous=first, later=60)
    back = fleet.status(fleet.service(replicas=4), fleet.plan(fleet.service(replicas=4)), previous=first, later=60)
    assert fleet.condition(lost, "Ready")["lastTransitionTime"] == "2026-11-23T10:01:00Z"
    assert fleet.condition(lost, "ProfileResolved")["lastTransitionTime"] == "2026-11-23T10:00:00Z"
    assert fleet.condition(back, "Ready")["lastTransitionTime"] == "2026-11-23T10:00:00Z"
    assert fleet.condition(back, "Ready")["message"] == "3 of 4 replicas serve"


def test_scaling_back_and_forth_never_makes_ready_false(fleet: Any) -> None:
    status: dict[str, Any] = fleet.status()
    for wanted, up in [(5, 3), (5, 5), (1, 5), (1, 1), (0, 1), (0, 0), (2, 0), (2, 0), (2, 1), (2, 2)]:
        service = fleet.service(replicas=wanted)
        status = fleet.status(service, observed=fleet.observed(fleet.deployment(wanted, up)), previous=status)
        assert fleet.condition(status, "Ready")["status"] != "False", (wanted, up)


def test_paused_service_does_not_claim_the_newest_generation(fleet: Any) -> None:
    before = fleet.status()
    before["observedGeneration"] = 3
    status = fleet.status(observed=fleet.observed(fleet.deployment(), paused=True), previous=before)
    assert status["observedGeneration"] == 3
    assert fleet.condition(status, "Ready")["observedGeneration"] == 3
