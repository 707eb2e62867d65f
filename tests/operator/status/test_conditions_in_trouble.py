"""The conditions of a service with which something is wrong, scenario by scenario."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ttsfleet_operator.api.status import TTSServiceStatus
from ttsfleet_operator.plan import Problem
from ttsfleet_operator.status.reasons import MAX_MESSAGE, Reason

NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
LACK = Problem("OutOfMemory", "the plan needs 99999 MiB; lower workers")
NO_NODE = Problem("NoMatchingNode", "class ada: no node offers nvidia.com/gpu")
NO_MAP = Problem("MissingConfigMap", "ConfigMap ca[ca.crt] does not exist in namespace speech")
SCENARIOS: list[Any] = [
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(3, 2), fleet.pending_pod(NO_GPU)),
        [
            "Ready=True/Serving",
            "Scheduled=False/InsufficientGPU",
            "WorkloadAvailable=False/InsufficientGPU",
            "Reconciling=True/Scaling",
            "Degraded=True/InsufficientGPU",
        ],
        id="no device for the third, may come",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(3, 2), fleet.pending_pod(NO_GPU, seconds=3601)),
        [
            "Ready=True/Serving",
            "Scheduled=False/InsufficientGPU",
            "WorkloadAvailable=False/InsufficientGPU",
            "Stalled=True/InsufficientGPU",
            "Degraded=True/InsufficientGPU",
        ],
        id="no device for the third, for too long",
    ),
    pytest.param(
        lambda fleet: fleet.seen(
            fleet.refused(
                'pods "narrator-ada-x" is forbidden: exceeded quota: gpus, requested: '
                "requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=2, limited: 2"
            ),
        ),
        [
            "Ready=False/QuotaExceeded",
            "Scheduled=False/QuotaExceeded",
            "WorkloadAvailable=False/QuotaExceeded",
            "Reconciling=True/Scaling",
            "Degraded=True/QuotaExceeded",
        ],
        id="quota",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(3, 3, total=4, updated=1), fleet.waiting_pod("ErrImagePull")),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/ImagePullBackOff",
            "Reconciling=True/RollingOut",
            "Degraded=True/ImagePullBackOff",
        ],
        id="the new image cannot be pulled while the old pods serve",
    ),
    pytest.param(
        lambda fleet: fleet.seen(
            fleet.deployment(
                3, 2, conditions=[{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
            ),
        ),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/ProgressDeadlineExceeded",
            "Stalled=True/ProgressDeadlineExceeded",
            "Degraded=True/ProgressDeadlineExceeded",
        ],
        id="deadline missed without a known cause",
    ),
    pytest.param(
        lambda fleet: fleet.status(observed=fleet.observed(fleet.deployment(3, 0)), previous=fleet.status()),
        [
            "Ready=False/NotServing",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/Scaling",
            "Reconciling=True/Scaling",
            "Degraded=True/BelowDesired",
        ],
        id="all replicas lost, no cause known",
    ),
    pytest.param(
        lambda fleet: fleet.scaled_from_zero(fleet.waiting_pod("InvalidImageName")),
        [
            "Ready=False/InvalidImageName",
            "Scheduled=Unknown/Scheduling",
            "WorkloadAvailable=False/InvalidImageName",
            "Stalled=True/InvalidImageName",
            "Degraded=True/InvalidImageName",
        ],
        id="scaled from zero into a fault",
    ),
    pytest.param(
        lambda fleet: fleet.status(
            plan=fleet.plan(fleet.service(), {"ada": 3}, {"ada": NO_NODE}),
            observed=fleet.observed(fleet.deployment(3, 0)),
        ),
        [
            "Ready=False/NoMatchingNode",
            "Scheduled=False/NoMatchingNode",
            "WorkloadAvailable=False/NoMatchingNode",
            "Reconciling=True/Scaling",
            "Degraded=True/NoMatchingNode",
        ],
        id="no node of the class",
    ),
    pytest.param(
        lambda fleet: fleet.status(
            plan=fleet.plan(fleet.service(), {"ada": 0}, {"ada": NO_MAP}, NO_MAP), observed=fleet.observed(None)
        ),
        [
            "Ready=False/MissingConfigMap",
            "Scheduled=Unknown/Scheduling",
            "WorkloadAvailable=False/MissingConfigMap",
            "Reconciling=True/MissingConfigMap",
            "Degraded=True/MissingConfigMap",
        ],
        id="a ConfigMap may come a moment later",
    ),
    pytest.param(
        lambda fleet: fleet.status(
            plan=fleet.plan(fleet.service(), {"ada": 0}, {"ada": LACK}), observed=fleet.observed(None)
        ),
        [
            "Ready=False/OutOfMemory",
            "Scheduled=Unknown/Scheduling",
            "WorkloadAvailable=False/OutOfMemory",
            "Stalled=True/OutOfMemory",
            "Degraded=True/OutOfMemory",
        ],
        id="no plan fits",
    ),
    pytest.param(
        lambda fleet: fleet.status(plan=fleet.plan(fleet.service(), {"ada": 3}, {"ada": LACK})),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/OutOfMemory",
            "Stalled=True/OutOfMemory",
            "Degraded=True/OutOfMemory",
        ],
        id="the new spec has no plan, the old one serves",
    ),
    pytest.param(
        lambda fleet: fleet.two_classes({"ada": 0, "cpu": 3}, {"ada": LACK}),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/OutOfMemory",
            "Degraded=True/OutOfMemory",
        ],
        id="one class is refused, another takes all",
    ),
    pytest.param(
        lambda fleet: fleet.two_classes({"ada": 0, "cpu": 2}, {"ada": LACK}),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/OutOfMemory",
            "Stalled=True/OutOfMemory",
            "Degraded=True/OutOfMemory",
        ],
        id="one class is refused, another takes some",
    ),
    pytest.param(
        lambda fleet: fleet.status(
            plan=fleet.plan(
                fleet.service(),
                {"ada": 2},
                problem=Problem("ReplicasExceedClasses", "the classes admit 2 of 3 replicas"),
            ),
            observed=fleet.observed(fleet.deployment(2)),
        ),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/ReplicasExceedClasses",
            "Degraded=True/ReplicasExceedClasses",
        ],
        id="more replicas than the classes admit",
    ),
    pytest.param(
        lambda fleet: fleet.seen(None, name_conflicts=("Deployment/narrator-ada",)),
        [
            "Ready=False/NameConflict",
            "Scheduled=Unknown/Scheduling",
            "WorkloadAvailable=False/NameConflict",
            "Stalled=True/NameConflict",
            "Degraded=True/NameConflict",
        ],
        id="somebody else's Deployment",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(), version_skew="tts:99", release="0.1.0"),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/VersionSkew",
            "Stalled=True/VersionSkew",
            "Degraded=True/VersionSkew",
        ],
        id="version skew",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(), field_conflicts=("Deployment/narrator-ada",)),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=True/Available",
            "Degraded=True/FieldConflict",
        ],
        id="a fight over fields, given up",
    ),
    pytest.param(
        lambda fleet: fleet.seen(fleet.deployment(5), foreign_scalers=("HorizontalPodAutoscaler/mine",)),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=True/Available",
            "Degraded=True/ForeignScaler",
        ],
        id="a foreign scaler",
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
