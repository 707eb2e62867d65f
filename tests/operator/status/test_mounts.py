"""Why a pod's volumes are not mounted, from its Events, and that no foreign words get into it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ttsfleet_operator.status.mounts import waits_for_volumes
from ttsfleet_operator.status.pods import diagnose
from ttsfleet_operator.status.reasons import Finding, Reason

SECRET_WORDS = "token=hunter2 <html>body of an answer</html>"
SETUP = 'MountVolume.SetUp failed for volume "x" : '
NOT_IN_TIME = (
    "Unable to attach or mount volumes: unmounted volumes=[x], unattached volumes=[], failed to process volumes=[]: "
)


def event(fleet: Any, words: str, *, ago: float = 0, reason: str = "FailedMount", **about: str) -> dict[str, Any]:
    """An Event of pod `p` as a kubelet writes it, last seen `ago` seconds ago."""
    return {
        "involvedObject": {"kind": "Pod", "name": "p", **about},
        "type": "Warning",
        "reason": reason,
        "message": f"{words} {SECRET_WORDS}",
        "firstTimestamp": fleet.ago(ago + 60),
        "lastTimestamp": fleet.ago(ago),
    }


CAUSES = [
    pytest.param([SETUP + 'secret "keys" not found'], "Secret keys is missing", id="Secret"),
    pytest.param([SETUP + 'configmap "ca.crt" not found'], "ConfigMap ca.crt is missing", id="ConfigMap"),
    pytest.param(
        [NOT_IN_TIME + 'error processing PVC n/m: failed to fetch PVC: persistentvolumeclaims "m" not found'],
        "claim m is missing",
        id="claim",
    ),
    pytest.param([SETUP + "references non-existent secret key: k"], "a Secret has no key k", id="key of a Secret"),
    pytest.param(
        [SETUP + "configmap references non-existent config key: k"],
        "a ConfigMap has no key k",
        id="key of a ConfigMap",
    ),
    pytest.param(
        [NOT_IN_TIME + "timed out waiting for the condition", SETUP + 'secret "keys" not found'],
        "Secret keys is missing",
        id="what is missing counts before the wait for it",
    ),
    pytest.param(
        [SETUP + 'secret "keys" not found', SETUP + 'configmap "ca" not found'],
        "ConfigMap ca is missing and Secret keys is missing",
        id="two objects",
    ),
    pytest.param(
        ['Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) other'],
        "it is attached to another node, and its claim allows only one (accessModes)",
        id="attached elsewhere",
    ),
    pytest.param(
        [NOT_IN_TIME + "error processing PVC n/m: PVC is not bound"], "its claim is not bound", id="unbound"
    ),
    pytest.param(
        [SETUP + "mount failed: access denied by server while mounting"], "the storage denies access", id="denied"
    ),
    pytest.param(
        [NOT_IN_TIME + "timed out waiting for the condition"], "it was not there in time", id="not there in time"
    ),
    pytest.param(["?"], "the pod's Events tell why", id="unknown words"),
]


def problem(fleet: Any, *events: dict[str, Any]) -> Finding | None:
    return diagnose(fleet.waiting_pod("ContainerCreating"), events=events)


@pytest.mark.parametrize(("words", "cause"), CAUSES)
def test_cause(fleet: Any, words: list[str], cause: str) -> None:
    for order in (words, words[::-1]):
        found = problem(fleet, *(event(fleet, one) for one in order))
        assert found is not None
        assert found.reason is Reason.VOLUME_MOUNT_FAILED
        assert found.message == f"a volume cannot be mounted: {cause}"


def test_trouble_that_is_over_is_not_told_beside_a_newer_one(fleet: Any) -> None:
    old = event(fleet, SETUP + 'secret "keys" not found', ago=700)
    found = problem(fleet, old, event(fleet, SETUP + 'configmap "ca" not found'))
    assert found is not None
    assert found.message == "a volume cannot be mounted: ConfigMap ca is missing"


def test_problem_began_with_its_first_event(fleet: Any) -> None:
    found = problem(fleet, event(fleet, "?", ago=30), event(fleet, "?", ago=5))
    assert found is not None
    assert found.since == fleet.now - timedelta(seconds=90)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"name": "other"}, id="another pod"),
        pytest.param({"uid": "before"}, id="an earlier pod of this name"),
        pytest.param({"reason": "FailedKillPod"}, id="another reason"),
    ],
)
def test_events_of_others_are_left_out(fleet: Any, other: dict[str, str]) -> None:
    assert problem(fleet, event(fleet, SETUP + 'secret "keys" not found', **other)) is None


def sandboxed(fleet: Any) -> dict[str, Any]:
    pod = fleet.waiting_pod("ContainerCreating")
    pod["status"]["conditions"].append({"type": "PodReadyToStartContainers", "status": "True"})
    return pod  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda fleet: fleet.ready_pod("p"), id="it runs"),
        pytest.param(sandboxed, id="it has its sandbox"),
        pytest.param(lambda fleet: fleet.fetch_failed(11), id="its fetch ended"),
    ],
)
def test_pod_that_has_its_volumes_has_no_such_problem(fleet: Any, make: Any) -> None:
    found = diagnose(make(fleet), events=[event(fleet, SETUP + 'secret "keys" not found')])
    assert found is None or found.reason is not Reason.VOLUME_MOUNT_FAILED


def scheduled(fleet: Any, seconds: float, pod: dict[str, Any]) -> dict[str, Any]:
    pod["status"]["conditions"][0]["lastTransitionTime"] = fleet.ago(seconds)
    return pod


@pytest.mark.parametrize(
    ("make", "waits"),
    [
        pytest.param(lambda fleet: scheduled(fleet, 10, fleet.waiting_pod("ContainerCreating")), True, id="long"),
        pytest.param(lambda fleet: scheduled(fleet, 10, fleet.pod()), True, id="its kubelet has said nothing"),
        pytest.param(lambda fleet: scheduled(fleet, 9, fleet.waiting_pod("ContainerCreating")), False, id="not long"),
        pytest.param(
            lambda fleet: scheduled(fleet, 99, fleet.waiting_pod("ErrImagePull")), False, id="for its image"
        ),
        pytest.param(lambda fleet: scheduled(fleet, 99, sandboxed(fleet)), False, id="it has its sandbox"),
        pytest.param(lambda fleet: scheduled(fleet, 99, fleet.ready_pod()), False, id="it runs"),
        pytest.param(lambda fleet: fleet.pending_pod("0/1 nodes", seconds=99), False, id="it has no node"),
    ],
)
def test_when_events_are_looked_for(fleet: Any, make: Any, waits: bool) -> None:
    assert waits_for_volumes(make(fleet), fleet.now) is waits
