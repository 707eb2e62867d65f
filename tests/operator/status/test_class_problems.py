"""What is wrong with a class over time, and the words of the API server's refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ttsfleet_operator.plan import Problem

NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
NO_NODE = Problem("NoMatchingNode", "class ada: no node offers nvidia.com/gpu")


def test_fault_stalls_only_after_a_minute(fleet: Any) -> None:
    observed = fleet.observed(fleet.deployment(3, 0), fleet.waiting_pod("ErrImagePull"))
    first = fleet.status(observed=observed)
    again = fleet.status(observed=observed, previous=first, later=59)
    late = fleet.status(observed=observed, previous=again, later=60)
    kinds = ("Ready", "Reconciling", "Stalled")
    assert (
        fleet.told(first, *kinds)
        == fleet.told(again, *kinds)
        == ["Ready=False/ImagePullBackOff", "Reconciling=True/Scaling"]
    )
    assert fleet.told(late, *kinds) == ["Ready=False/ImagePullBackOff", "Stalled=True/ImagePullBackOff"]


def test_problem_keeps_its_start_while_its_reason_stays(fleet: Any) -> None:
    observed = fleet.observed(fleet.deployment(3, 1), *(fleet.waiting_pod("ErrImagePull", name=n) for n in "ab"))
    first = fleet.status(observed=observed)
    later = fleet.status(observed=observed, previous=first, later=30)
    assert later["classes"][0]["problem"] == first["classes"][0]["problem"]
    problem = first["classes"][0]["problem"]
    assert (problem["pods"], problem["since"]) == (2, "2026-11-23T10:00:00Z")


def test_message_names_the_class_once(fleet: Any) -> None:
    plan = fleet.plan(fleet.service(), {"ada": 3}, {"ada": NO_NODE})
    status = fleet.status(plan=plan, observed=fleet.observed(fleet.deployment(3, 0)))
    assert fleet.condition(status, "Scheduled")["message"] == "class ada: no node offers nvidia.com/gpu"
    assert status["classes"][0]["problem"]["message"] == "no node offers nvidia.com/gpu"


def unlisted(fleet: Any, deployment: Any) -> Any:
    """The class while its pods were not listed: in the first seconds, and after the operator's restart."""
    observed = fleet.observed(deployment)
    return replace(observed, classes={"ada": replace(observed.classes["ada"], pods_listed=False)})


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(lambda fleet: fleet.waiting_pod("ErrImagePull"), id="image"),
        pytest.param(lambda fleet: fleet.fetch_failed(11), id="fetch"),
        pytest.param(lambda fleet: fleet.pending_pod(NO_GPU), id="no device"),
        pytest.param(lambda fleet: fleet.waiting_pod("PodInitializing"), id="no problem"),
    ],
)
def test_restarted_operator_changes_no_status_before_it_looked(fleet: Any, pod: Callable[[Any], Any]) -> None:
    deployment = fleet.deployment(3, 0)
    before = fleet.seen(deployment, *([pod(fleet)] * 3))
    after = fleet.status(observed=unlisted(fleet, deployment), previous=before, later=5)
    assert after == before


def test_nothing_is_said_of_pods_that_were_not_looked_at(fleet: Any) -> None:
    first = fleet.status(observed=fleet.observed(None))
    status = fleet.status(observed=unlisted(fleet, fleet.deployment(3, 0)), previous=first)
    assert fleet.told(status, "ModelReady", "Scheduled") == [
        "ModelReady=Unknown/Starting",
        "Scheduled=Unknown/Scheduling",
    ]


def test_remembered_problem_ends_with_the_trouble(fleet: Any) -> None:
    before = fleet.seen(fleet.deployment(3, 0), fleet.waiting_pod("ErrImagePull"))
    assert "problem" not in fleet.status(observed=unlisted(fleet, fleet.deployment()), previous=before)["classes"][0]


@pytest.mark.parametrize(
    ("message", "reason", "words"),
    [
        (
            'violates PodSecurity "restricted:latest": allowPrivilegeEscalation',
            "PodSecurityRefused",
            "level restricted",
        ),
        ('admission webhook "deny.example.org" denied the request: hunter2', "AdmissionDenied", "deny.example.org"),
        ('serviceaccount "speech" not found', "ServiceAccountMissing", "ServiceAccount speech"),
        ("no PriorityClass with name urgent was found", "PriorityClassMissing", "PriorityClass urgent"),
        ('pod rejected: RuntimeClass "nvidia" not found', "RuntimeClassMissing", "RuntimeClass nvidia"),
        ("maximum memory usage per Container is 8Gi, but limit is 32Gi", "LimitRangeExceeded", "LimitRange"),
        ("hunter2", "PodsRefused", "refuses to create"),
    ],
)
def test_refused_pods(fleet: Any, message: str, reason: str, words: str) -> None:
    problem = fleet.seen(fleet.refused(message))["classes"][0]["problem"]
    assert (problem["reason"], problem["pods"]) == (reason, 0)
    assert words in problem["message"]
    assert "hunter2" not in problem["message"]


@pytest.mark.parametrize(
    ("words", "reason", "message"),
    [
        pytest.param(
            'Deployment.apps "x" is invalid: spec.template.spec.tolerations[0].key: Invalid value: "hunter2"',
            "ApplyRefused",
            "the API server refuses Deployment/narrator-ada (spec.template.spec.tolerations[0].key)",
            id="invalid field",
        ),
        pytest.param(
            "hunter2",
            "ApplyRefused",
            "the API server refuses Deployment/narrator-ada (see the operator's log)",
            id="unknown words",
        ),
        pytest.param(
            'admission webhook "deny.example.org" denied the request: hunter2',
            "AdmissionDenied",
            "admission webhook deny.example.org denies Deployment/narrator-ada",
            id="webhook",
        ),
    ],
)
def test_refused_child(fleet: Any, words: str, reason: str, message: str) -> None:
    status = fleet.seen(fleet.deployment(), refusals=(f"Deployment/narrator-ada: {words}",))
    assert fleet.told(status, "Ready", "Stalled") == ["Ready=True/Serving", f"Stalled=True/{reason}"]
    assert fleet.condition(status, "Stalled")["message"] == message


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        pytest.param(
            'services "narrator" is forbidden: User "hunter2" cannot delete resource "services" in API group ""',
            "its role lacks the verb",
            id="role",
        ),
        pytest.param(
            'admission webhook "keep.example.org" denied the request: hunter2',
            "admission webhook keep.example.org",
            id="webhook",
        ),
        pytest.param(
            "services \"narrator\" is forbidden: ValidatingAdmissionPolicy 'keep' with binding 'b' denied: hunter2",
            "admission policy keep",
            id="policy",
        ),
        pytest.param("hunter2", "see the operator's log", id="unknown words"),
    ],
)
def test_child_that_cannot_be_deleted(fleet: Any, words: str, cause: str) -> None:
    status = fleet.seen(fleet.deployment(), undeleted=(f"Service/narrator: {words}",))
    assert fleet.told(status, "Ready", "Stalled") == ["Ready=True/Serving", "Stalled=True/DeleteRefused"]
    message = fleet.condition(status, "Stalled")["message"]
    assert message == f"Service/narrator is not wanted any more, and the API server refuses to delete it ({cause})"
