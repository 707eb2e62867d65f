"""`build_status`: what a fleet looks like in the resource, scenario by scenario."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from ttsfleet_operator.api.status import TTSServiceStatus
from ttsfleet_operator.plan import Problem
from ttsfleet_operator.status.reasons import MAX_MESSAGE, Reason
from ttsfleet_operator.status.size import MAX_BYTES, size_of

NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
CPU = {"name": "cpu", "cpu": {}}


def condition(status: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return next((one for one in status["conditions"] if one["type"] == kind), {})


def told(status: Mapping[str, Any], *kinds: str) -> list[str]:
    """`Ready=True/Serving` for each kind that is there."""
    found = [condition(status, kind) for kind in kinds]
    return [f"{one['type']}={one['status']}/{one['reason']}" for one in found if one]


def test_serving_fleet(fleet: Any) -> None:
    status = fleet.status()
    assert [f"{one['type']}={one['status']}/{one['reason']}" for one in status["conditions"]] == [
        "Ready=True/Serving",
        "ModelReady=True/ModelFetched",
        "ProfileResolved=True/ProfilesMatched",
        "Scheduled=True/AllScheduled",
        "WorkloadAvailable=True/Available",
    ]
    assert condition(status, "Ready")["message"] == "3 of 3 replicas serve"
    assert {one["observedGeneration"] for one in status["conditions"]} == {4} == {status["observedGeneration"]}
    (ada,) = status["classes"]
    digest = ada["planHash"]
    assert ada == {
        "name": "ada",
        "profile": "rtx-4090",
        "planHash": digest,
        "pendingPlanHash": "",
        "desired": 3,
        "ready": 3,
        "deployment": "narrator-ada",
        "engineConfigMap": f"narrator-ada-{digest}",
        "plan": {"workers": 3, "decode_process_num": 2, "quant_type": ada["plan"]["quant_type"], "data_type": "bf16"},
        "memory": {"deviceMiB": 24564, "estimatedMiB": ada["memory"]["estimatedMiB"], "assumed": False},
    }
    assert {key: status[key] for key in ("replicas", "desiredReplicas", "readyReplicas", "url", "model")} == {
        "replicas": 3,
        "desiredReplicas": 3,
        "readyReplicas": 3,
        "url": "http://narrator.speech.svc",
        "model": {"type": "cosyvoice2", "digest": "", "fetched": 3},
    }
    assert status["selector"] == "app.kubernetes.io/name=ttsfleet-runtime,ttsfleet.dev/service=narrator"
    assert (status["gpuSummary"], status["workersSummary"]) == ("ada 3", "3")


def first_sight(fleet: Any) -> dict[str, Any]:
    return fleet.status(observed=fleet.observed(None))  # type: ignore[no-any-return]


def seen(fleet: Any, deployment: Any, *pods: Any, **fleet_facts: Any) -> dict[str, Any]:
    """The second look: the resource has a status from the first."""
    observed = fleet.observed(deployment, *pods, **fleet_facts)
    return fleet.status(observed=observed, previous=first_sight(fleet))  # type: ignore[no-any-return]


def scaled_from_zero(fleet: Any, *pods: Any, **spec: Any) -> dict[str, Any]:
    empty = fleet.service(replicas=0)
    zero = fleet.status(empty, observed=fleet.observed(fleet.deployment(0)))
    service = fleet.service(replicas=3, **spec)
    observed = fleet.observed(fleet.deployment(3, 0, total=len(pods)), *pods)
    return fleet.status(service, observed=observed, previous=zero)  # type: ignore[no-any-return]


def two_classes(fleet: Any, desired: Mapping[str, int], problems: Mapping[str, Problem]) -> dict[str, Any]:
    service = fleet.service(classes=[{"name": "ada", "gpu": {"products": ["NVIDIA-L4"]}}, CPU])
    observed = fleet.observed(fleet.deployment(desired["ada"]) if desired["ada"] else None)
    cpu = replace(observed.classes["ada"], name="cpu", deployment=fleet.deployment(desired["cpu"]))
    observed = replace(observed, classes=dict(observed.classes) | {"cpu": cpu})
    return fleet.status(service, fleet.plan(service, desired, problems), observed)  # type: ignore[no-any-return]


LACK = Problem("OutOfMemory", "the plan needs 99999 MiB; lower workers")
NO_NODE = Problem("NoMatchingNode", "class ada: no node offers nvidia.com/gpu")
NO_MAP = Problem("MissingConfigMap", "ConfigMap ca[ca.crt] does not exist in namespace speech")
ALL = ("Ready", "Scheduled", "WorkloadAvailable", "Reconciling", "Stalled", "Degraded")
SCENARIOS: list[Any] = [
    pytest.param(
        first_sight,
        [
            "Ready=Unknown/FirstSight",
            "Scheduled=Unknown/Scheduling",
            "WorkloadAvailable=False/Applying",
            "Reconciling=True/Applying",
        ],
        id="first sight",
    ),
    pytest.param(
        lambda fleet: seen(
            fleet, fleet.deployment(3, 0), *(fleet.waiting_pod("ContainerCreating") for _ in range(3))
        ),
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
        lambda fleet: seen(fleet, fleet.deployment(3, 2), fleet.ready_pod(), fleet.waiting_pod("PodInitializing")),
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
        lambda fleet: seen(fleet, fleet.deployment(3, 2), fleet.pending_pod(NO_GPU)),
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
        lambda fleet: seen(fleet, fleet.deployment(3, 2), fleet.pending_pod(NO_GPU, seconds=3601)),
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
        lambda fleet: seen(
            fleet,
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
        lambda fleet: seen(fleet, fleet.deployment(3, 3, total=4, updated=1), fleet.waiting_pod("ErrImagePull")),
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
        lambda fleet: seen(fleet, fleet.deployment(3, 3, total=4, updated=1)),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/RollingOut",
            "Reconciling=True/RollingOut",
        ],
        id="rolling out",
    ),
    pytest.param(
        lambda fleet: seen(fleet, fleet.deployment(3, engine_map="narrator-ada-00000000")),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/Scaling",
            "Reconciling=True/Scaling",
        ],
        id="the Deployment still has the plan before",
    ),
    pytest.param(
        lambda fleet: seen(fleet, fleet.deployment(3, generation=2)),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/Scaling",
            "Reconciling=True/Scaling",
        ],
        id="the Deployment's controller has not looked yet",
    ),
    pytest.param(
        lambda fleet: seen(
            fleet,
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
        lambda fleet: scaled_from_zero(fleet, fleet.waiting_pod("ContainerCreating")),
        [
            "Ready=Unknown/ScalingFromZero",
            "Scheduled=Unknown/Scheduling",
            "WorkloadAvailable=False/Scaling",
            "Reconciling=True/Scaling",
        ],
        id="scaled from zero",
    ),
    pytest.param(
        lambda fleet: scaled_from_zero(fleet, fleet.pending_pod(NO_GPU)),
        [
            "Ready=Unknown/ScalingFromZero",
            "Scheduled=False/InsufficientGPU",
            "WorkloadAvailable=False/InsufficientGPU",
            "Reconciling=True/Scaling",
        ],
        id="scaled from zero, waits for a device",
    ),
    pytest.param(
        lambda fleet: scaled_from_zero(fleet, fleet.waiting_pod("InvalidImageName")),
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
        lambda fleet: two_classes(fleet, {"ada": 0, "cpu": 3}, {"ada": NO_NODE}),
        ["Ready=True/Serving", "Scheduled=True/AllScheduled", "WorkloadAvailable=True/Available"],
        id="a class without nodes is not needed",
    ),
    pytest.param(
        lambda fleet: fleet.status(plan=fleet.plan(fleet.service(), {"ada": 3}, {"ada": NO_NODE})),
        ["Ready=True/Serving", "Scheduled=True/AllScheduled", "WorkloadAvailable=True/Available"],
        id="the nodes lost their labels, the pods serve",
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
        lambda fleet: two_classes(fleet, {"ada": 0, "cpu": 3}, {"ada": LACK}),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=False/OutOfMemory",
            "Degraded=True/OutOfMemory",
        ],
        id="one class is refused, another takes all",
    ),
    pytest.param(
        lambda fleet: two_classes(fleet, {"ada": 0, "cpu": 2}, {"ada": LACK}),
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
        lambda fleet: seen(fleet, None, name_conflicts=("Deployment/narrator-ada",)),
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
        lambda fleet: seen(fleet, fleet.deployment(), version_skew="tts:99", release="0.1.0"),
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
        lambda fleet: seen(fleet, fleet.deployment(), field_conflicts=("Deployment/narrator-ada",)),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=True/Available",
            "Degraded=True/FieldConflict",
        ],
        id="a fight over fields, given up",
    ),
    pytest.param(
        lambda fleet: seen(fleet, fleet.deployment(5), foreign_scalers=("HorizontalPodAutoscaler/mine",)),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=True/Available",
            "Degraded=True/ForeignScaler",
        ],
        id="a foreign scaler",
    ),
    pytest.param(
        lambda fleet: seen(fleet, fleet.deployment(), service_present=False),
        [
            "Ready=True/Serving",
            "Scheduled=True/AllScheduled",
            "WorkloadAvailable=True/Available",
            "Reconciling=True/Applying",
        ],
        id="the Service is missing",
    ),
    pytest.param(
        lambda fleet: seen(fleet, fleet.deployment(), paused=True),
        ["Ready=True/Paused", "Scheduled=True/AllScheduled", "WorkloadAvailable=True/Available"],
        id="paused",
    ),
]


@pytest.mark.parametrize(("make", "expected"), SCENARIOS)
def test_conditions(fleet: Any, make: Callable[[Any], dict[str, Any]], expected: list[str]) -> None:
    status = make(fleet)
    assert told(status, *ALL) == expected
    for one in status["conditions"]:
        assert len(one["message"]) <= MAX_MESSAGE
        assert one["reason"] in {reason.value for reason in Reason}
        assert one["type"] not in ("Reconciling", "Stalled", "Degraded") or one["status"] == "True"
    TTSServiceStatus.model_validate_json(json.dumps(status))


def test_fault_stalls_only_after_a_minute(fleet: Any) -> None:
    observed = fleet.observed(fleet.deployment(3, 0), fleet.waiting_pod("ErrImagePull"))
    first = fleet.status(observed=observed)
    again = fleet.status(observed=observed, previous=first, later=59)
    late = fleet.status(observed=observed, previous=again, later=60)
    kinds = ("Ready", "Reconciling", "Stalled")
    assert told(first, *kinds) == told(again, *kinds) == ["Ready=False/ImagePullBackOff", "Reconciling=True/Scaling"]
    assert told(late, *kinds) == ["Ready=False/ImagePullBackOff", "Stalled=True/ImagePullBackOff"]


def test_problem_keeps_its_start_while_its_reason_stays(fleet: Any) -> None:
    observed = fleet.observed(fleet.deployment(3, 1), *(fleet.waiting_pod("ErrImagePull", name=n) for n in "ab"))
    first = fleet.status(observed=observed)
    later = fleet.status(observed=observed, previous=first, later=30)
    assert later["classes"][0]["problem"] == first["classes"][0]["problem"]
    problem = first["classes"][0]["problem"]
    assert (problem["pods"], problem["since"]) == (2, "2026-11-23T10:00:00Z")


def test_same_sight_gives_the_same_status_at_any_time(fleet: Any) -> None:
    first = fleet.status()
    assert fleet.status(previous=first, later=86400) == first


def test_transition_time_moves_with_the_status_only(fleet: Any) -> None:
    first = fleet.status()
    lost = fleet.status(observed=fleet.observed(fleet.deployment(3, 0)), previous=first, later=60)
    back = fleet.status(fleet.service(replicas=4), fleet.plan(fleet.service(replicas=4)), previous=first, later=60)
    assert condition(lost, "Ready")["lastTransitionTime"] == "2026-11-23T10:01:00Z"
    assert condition(lost, "ProfileResolved")["lastTransitionTime"] == "2026-11-23T10:00:00Z"
    assert condition(back, "Ready")["lastTransitionTime"] == "2026-11-23T10:00:00Z"
    assert condition(back, "Ready")["message"] == "3 of 4 replicas serve"


def test_scaling_back_and_forth_never_makes_ready_false(fleet: Any) -> None:
    status: dict[str, Any] = fleet.status()
    for wanted, up in [(5, 3), (5, 5), (1, 5), (1, 1), (0, 1), (0, 0), (2, 0), (2, 0), (2, 1), (2, 2)]:
        service = fleet.service(replicas=wanted)
        status = fleet.status(service, observed=fleet.observed(fleet.deployment(wanted, up)), previous=status)
        assert condition(status, "Ready")["status"] != "False", (wanted, up)


def test_paused_service_does_not_claim_the_newest_generation(fleet: Any) -> None:
    before = fleet.status()
    before["observedGeneration"] = 3
    status = fleet.status(observed=fleet.observed(fleet.deployment(), paused=True), previous=before)
    assert status["observedGeneration"] == 3
    assert condition(status, "Ready")["observedGeneration"] == 3


def test_pending_plan_is_shown_and_changes_no_condition(fleet: Any) -> None:
    pending = fleet.status(plan=fleet.plan(fleet.service(), pending=True))
    assert pending["classes"][0]["pendingPlanHash"] == "feedbeef"
    assert pending["conditions"] == fleet.status()["conditions"]


def test_model_digest_comes_from_the_fetch_and_else_from_the_pin(fleet: Any) -> None:
    pin, real = "ab" * 32, f"sha256:{'cd' * 32}"
    source = {"https": {"url": "https://models.example/m.tar", "sha256": pin}}
    service = fleet.service(model={"source": source})
    fetched = fleet.pod(initContainerStatuses=[fleet.container("fetch", terminated={"exitCode": 0, "message": real})])
    waiting = fleet.observed(fleet.deployment(3, 0), fleet.waiting_pod("PodInitializing"))
    before = fleet.status(service, observed=waiting)
    assert before["model"]["digest"] == f"sha256:{pin}"
    after = fleet.status(service, observed=fleet.observed(fleet.deployment(3, 0), fetched))
    assert after["model"] == {"type": "cosyvoice3", "digest": real, "fetched": 1}
    assert told(after, "ModelReady") == ["ModelReady=True/ModelFetched"]


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param(lambda fleet: fleet.fetch_failed(11), "ModelReady=False/FetchDenied", id="denied"),
        pytest.param(
            lambda fleet: fleet.pod(initContainerStatuses=[fleet.container("fetch", running={"startedAt": "x"})]),
            "ModelReady=False/Fetching",
            id="being fetched",
        ),
        pytest.param(
            lambda fleet: fleet.waiting_pod("PodInitializing"), "ModelReady=Unknown/Starting", id="not begun"
        ),
    ],
)
def test_model_condition(fleet: Any, pod: Callable[[Any], Any], expected: str) -> None:
    made = pod(fleet)
    made["spec"]["initContainers"] = [{"name": "fetch"}]
    assert told(seen(fleet, fleet.deployment(3, 0), made), "ModelReady") == [expected]


def test_assumed_class_is_named(fleet: Any) -> None:
    service = fleet.service()
    plan = fleet.plan(service)
    (ada,) = plan.classes
    assumed = replace(ada, plan=replace(ada.plan, site=replace(ada.plan.site, assumed=True)))
    status = fleet.status(service, replace(plan, classes=(assumed,)))
    assert condition(status, "ProfileResolved")["reason"] == "ProfilesAssumed"
    assert "no node of ada" in condition(status, "ProfileResolved")["message"]
    assert status["classes"][0]["memory"]["assumed"] is True


def test_plan_in_force_is_shown_not_the_one_of_today(fleet: Any) -> None:
    service = fleet.service()
    plan = fleet.plan(service)
    (ada,) = plan.classes
    text = ada.bundle.engine_yaml.replace("workers: 3", "workers: 2")
    stored = replace(ada, bundle=replace(ada.bundle, engine_yaml=text))
    status = fleet.status(service, replace(plan, classes=(stored,)))
    assert status["classes"][0]["plan"]["workers"] == 2
    assert status["workersSummary"] == "2"


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
    problem = seen(fleet, fleet.refused(message))["classes"][0]["problem"]
    assert (problem["reason"], problem["pods"]) == (reason, 0)
    assert words in problem["message"]
    assert "hunter2" not in problem["message"]


def sixteen(fleet: Any, problem: str = "") -> dict[str, Any]:
    """A status of 16 classes, more than the schema admits, with the longest names and a problem in each."""
    service = fleet.service(replicas=160)
    one = service.spec.hardware.classes[0]
    classes = tuple(one.model_copy(update={"name": f"class-number-{index:07d}"}) for index in range(16))
    hardware = service.spec.hardware.model_copy(update={"classes": classes})
    named = {"name": f"n{'x' * 39}", "namespace": "s" * 63}
    service = service.model_copy(
        update={
            "metadata": service.metadata.model_copy(update=named),
            "spec": service.spec.model_copy(update={"hardware": hardware}),
        }
    )
    names = [one.name for one in classes]
    problems = {name: Problem("UnsupportedQuantization", problem) for name in names} if problem else {}
    plan = fleet.plan(service, dict.fromkeys(names, 10), problems, pending=True)
    return fleet.status(service, plan, fleet.observed(None))  # type: ignore[no-any-return]


@pytest.mark.parametrize("problem", ["", "short", "p" * 512, "ü" * 512, "\N{SPEAKING HEAD IN SILHOUETTE}" * 512])
def test_sixteen_classes_stay_within_8_kib(fleet: Any, problem: str) -> None:
    status = sixteen(fleet, problem)
    assert size_of(status) <= MAX_BYTES
    assert len(status["classes"]) == 16
    for one in status["classes"]:
        assert one["planHash"]
        assert one["desired"] == 10
        assert not problem or one["problem"]["reason"] == "UnsupportedQuantization"
    assert sixteen(fleet, problem) == status


def test_message_names_the_class_once(fleet: Any) -> None:
    plan = fleet.plan(fleet.service(), {"ada": 3}, {"ada": NO_NODE})
    status = fleet.status(plan=plan, observed=fleet.observed(fleet.deployment(3, 0)))
    assert condition(status, "Scheduled")["message"] == "class ada: no node offers nvidia.com/gpu"
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
    before = seen(fleet, deployment, *([pod(fleet)] * 3))
    after = fleet.status(observed=unlisted(fleet, deployment), previous=before, later=5)
    assert after == before


def test_nothing_is_said_of_pods_that_were_not_looked_at(fleet: Any) -> None:
    first = fleet.status(observed=fleet.observed(None))
    status = fleet.status(observed=unlisted(fleet, fleet.deployment(3, 0)), previous=first)
    assert told(status, "ModelReady", "Scheduled") == ["ModelReady=Unknown/Starting", "Scheduled=Unknown/Scheduling"]


def test_remembered_problem_ends_with_the_trouble(fleet: Any) -> None:
    before = seen(fleet, fleet.deployment(3, 0), fleet.waiting_pod("ErrImagePull"))
    assert "problem" not in fleet.status(observed=unlisted(fleet, fleet.deployment()), previous=before)["classes"][0]


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
    status = seen(fleet, fleet.deployment(), refusals=(f"Deployment/narrator-ada: {words}",))
    assert told(status, "Ready", "Stalled") == ["Ready=True/Serving", f"Stalled=True/{reason}"]
    assert condition(status, "Stalled")["message"] == message
