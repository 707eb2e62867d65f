"""`build_status`: what a fleet looks like in the resource."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ttsfleet_operator.api.status import TTSServiceStatus
from ttsfleet_operator.status.build import MORE_WARNINGS


def test_serving_fleet(fleet: Any) -> None:
    status = fleet.status()
    assert [f"{one['type']}={one['status']}/{one['reason']}" for one in status["conditions"]] == [
        "Ready=True/Serving",
        "ModelReady=True/ModelFetched",
        "ProfileResolved=True/ProfilesMatched",
        "Scheduled=True/AllScheduled",
        "WorkloadAvailable=True/Available",
    ]
    assert fleet.condition(status, "Ready")["message"] == "3 of 3 replicas serve"
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


def test_same_sight_gives_the_same_status_at_any_time(fleet: Any) -> None:
    first = fleet.status()
    assert fleet.status(previous=first, later=86400) == first


@pytest.mark.parametrize(
    ("warnings", "told"),
    [
        pytest.param((), None, id="none"),
        pytest.param(("a", "b", "a"), ["a", "b"], id="each once"),
        pytest.param(("w" * 300,), ["w" * 199 + "…"], id="a long one"),
        pytest.param(tuple("abcd"), list("abcd"), id="as many as there is room for"),
        pytest.param(tuple("abcde"), ["a", "b", "c", MORE_WARNINGS], id="too many"),
    ],
)
def test_warnings_of_a_plan(fleet: Any, warnings: tuple[str, ...], told: list[str] | None) -> None:
    plan = fleet.plan(fleet.service())
    status = fleet.status(plan=replace(plan, classes=(replace(plan.classes[0], warnings=warnings),)))
    assert status["classes"][0].get("warnings") == told
    assert status["conditions"] == fleet.status()["conditions"]
    TTSServiceStatus.model_validate_json(json.dumps(status))


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
    assert fleet.told(after, "ModelReady") == ["ModelReady=True/ModelFetched"]


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
    assert fleet.told(fleet.seen(fleet.deployment(3, 0), made), "ModelReady") == [expected]


def test_assumed_class_is_named(fleet: Any) -> None:
    service = fleet.service()
    plan = fleet.plan(service)
    (ada,) = plan.classes
    assumed = replace(ada, plan=replace(ada.plan, site=replace(ada.plan.site, assumed=True)))
    status = fleet.status(service, replace(plan, classes=(assumed,)))
    assert fleet.condition(status, "ProfileResolved")["reason"] == "ProfilesAssumed"
    assert "no node of ada" in fleet.condition(status, "ProfileResolved")["message"]
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
