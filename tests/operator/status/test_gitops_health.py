"""kstatus (Flux) and Argo CD must read the same from every status that `build_status` makes.

kstatus is implemented here from its published rules; Argo CD's Lua runs in Lua 5.1, the language of its engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lupa.lua51
import pytest
import yaml

from ttsfleet_operator.plan import Problem

ARGO = Path(__file__).resolve().parents[3] / "examples" / "gitops" / "argocd"
NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
HEALTH_FIELDS = ("observedGeneration", "replicas", "desiredReplicas", "readyReplicas", "conditions")
AGREED = {
    "InProgress": {"Progressing"},
    "Failed": {"Degraded"},
    "Current": {"Healthy", "Suspended"},
}


def kstatus(resource: Mapping[str, Any]) -> str:
    """kstatus's status of a custom resource: generation, then Reconciling and Stalled, then Ready."""
    if resource["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = resource.get("status", {})
    generation, observed = resource["metadata"].get("generation"), status.get("observedGeneration")
    if generation is not None and observed is not None and generation != observed:
        return "InProgress"
    for condition in status.get("conditions", []):
        if condition["status"] == "True" and condition["type"] in ("Reconciling", "Stalled"):
            return "InProgress" if condition["type"] == "Reconciling" else "Failed"
    ready = next((one for one in status.get("conditions", []) if one["type"] == "Ready"), None)
    return "Current" if ready is None or ready["status"] == "True" else "InProgress"


def argo(resource: Mapping[str, Any]) -> dict[str, str]:
    """What Argo CD's engine makes of the resource: the script sees a global `obj` and returns a table."""
    lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True)

    def table(value: object) -> object:
        if isinstance(value, Mapping):
            return lua.table_from({key: table(one) for key, one in value.items()})
        return lua.table_from([table(one) for one in value]) if isinstance(value, list) else value

    lua.globals().obj = table(resource)
    return dict(lua.execute((ARGO / "health.lua").read_text()))


def resource(fleet: Any, status: Mapping[str, Any], generation: int = 4) -> dict[str, Any]:
    return {
        "apiVersion": "ttsfleet.dev/v1alpha1",
        "kind": "TTSService",
        "metadata": {"name": "narrator", "namespace": "speech", "generation": generation},
        "status": {key: status[key] for key in status if key in HEALTH_FIELDS},
    }


def again(fleet: Any, deployment: Any, *pods: Any, later: float = 0, **facts: Any) -> dict[str, Any]:
    """The status of a second look, `later` seconds after the first."""
    observed = fleet.observed(deployment, *pods, **facts)
    first = fleet.status(observed=observed)
    return fleet.status(observed=observed, previous=first, later=later)  # type: ignore[no-any-return]


def rolled_back_plan(fleet: Any) -> dict[str, Any]:
    problem = Problem("OutOfMemory", "the plan needs 99999 MiB; workers: 3 would fit")
    return fleet.status(plan=fleet.plan(fleet.service(), {"ada": 3}, {"ada": problem}))  # type: ignore[no-any-return]


SCENARIOS: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "first-sight": (lambda fleet: fleet.status(observed=fleet.observed(None)), "Progressing"),
    "starting": (lambda fleet: again(fleet, fleet.deployment(3, 0)), "Progressing"),
    "healthy": (lambda fleet: fleet.status(), "Healthy"),
    "below-desired": (lambda fleet: again(fleet, fleet.deployment(3, 2), fleet.pending_pod(NO_GPU)), "Progressing"),
    "no-device-too-long": (
        lambda fleet: again(fleet, fleet.deployment(3, 2), fleet.pending_pod(NO_GPU), later=3600),
        "Degraded",
    ),
    "rolling-out": (lambda fleet: again(fleet, fleet.deployment(3, 3, total=4, updated=1)), "Progressing"),
    "image-first-minute": (
        lambda fleet: again(fleet, fleet.deployment(3, 3, total=4, updated=1), fleet.waiting_pod("ErrImagePull")),
        "Progressing",
    ),
    "image-cannot-be-pulled": (
        lambda fleet: again(
            fleet, fleet.deployment(3, 3, total=4, updated=1), fleet.waiting_pod("ErrImagePull"), later=60
        ),
        "Degraded",
    ),
    "crash-loop": (
        lambda fleet: again(
            fleet,
            fleet.deployment(3, 0),
            fleet.pod(containerStatuses=[fleet.container(restarts=5, terminated={"exitCode": 3})]),
            later=90,
        ),
        "Degraded",
    ),
    "fetch-denied": (
        lambda fleet: again(fleet, fleet.deployment(3, 0), fleet.fetch_failed(11), later=61),
        "Degraded",
    ),
    "plan-does-not-fit": (rolled_back_plan, "Degraded"),
    "name-conflict": (
        lambda fleet: again(fleet, None, name_conflicts=("Deployment/narrator-ada",)),
        "Degraded",
    ),
    "foreign-scaler": (
        lambda fleet: again(fleet, fleet.deployment(5), foreign_scalers=("HorizontalPodAutoscaler/mine",)),
        "Healthy",
    ),
    "field-conflict": (
        lambda fleet: again(fleet, fleet.deployment(), field_conflicts=("Deployment/narrator-ada",)),
        "Healthy",
    ),
    "suspended": (
        lambda fleet: fleet.status(fleet.service(suspend=True), observed=fleet.observed(fleet.deployment(0))),
        "Suspended",
    ),
    "scaled-to-zero": (
        lambda fleet: fleet.status(fleet.service(replicas=0), observed=fleet.observed(fleet.deployment(0))),
        "Healthy",
    ),
    "scaling-from-zero": (
        lambda fleet: fleet.status(
            observed=fleet.observed(fleet.deployment(3, 0)),
            previous=fleet.status(fleet.service(replicas=0), observed=fleet.observed(fleet.deployment(0))),
        ),
        "Progressing",
    ),
    "paused": (lambda fleet: again(fleet, fleet.deployment(), paused=True), "Suspended"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_kstatus_and_argo_agree(fleet: Any, name: str) -> None:
    make, expected = SCENARIOS[name]
    made = resource(fleet, make(fleet))
    found = argo(made)
    assert found["status"] == expected, found["message"]
    assert expected in AGREED[kstatus(made)]
    assert found["message"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_wait_for_the_newest_spec(fleet: Any, name: str) -> None:
    made = resource(fleet, SCENARIOS[name][0](fleet), generation=5)
    assert (kstatus(made), argo(made)["status"]) == ("InProgress", "Progressing")


@pytest.mark.parametrize("status", [{}, {"replicas": 0}], ids=["no status", "no conditions"])
def test_argo_waits_for_the_operator(fleet: Any, status: dict[str, Any]) -> None:
    assert argo(resource(fleet, status))["status"] == "Progressing"


def argo_cases() -> list[dict[str, Any]]:
    return list(yaml.safe_load((ARGO / "health_test.yaml").read_text())["tests"])


@pytest.mark.parametrize("case", argo_cases(), ids=lambda case: Path(case["inputPath"]).stem)
def test_data_in_the_format_of_argo(fleet: Any, case: dict[str, Any]) -> None:
    made = yaml.safe_load((ARGO / case["inputPath"]).read_text())
    assert argo(made) == case["healthStatus"]
    assert made == resource(fleet, SCENARIOS[Path(case["inputPath"]).stem][0](fleet))


def test_data_has_each_health() -> None:
    assert {case["healthStatus"]["status"] for case in argo_cases()} == {
        "Healthy",
        "Progressing",
        "Degraded",
        "Suspended",
    }
    assert {f"testdata/{path.name}" for path in (ARGO / "testdata").iterdir()} == {
        case["inputPath"] for case in argo_cases()
    }
