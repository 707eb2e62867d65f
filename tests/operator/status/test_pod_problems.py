"""What is wrong with a pod, scenario by scenario, and that no foreign words get into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ttsfleet_operator.status.fetch_codes import FETCH_REASONS, digest_of
from ttsfleet_operator.status.pods import diagnose, has_model, is_fetching, model_digest
from ttsfleet_operator.status.reasons import Reason

SECRET_WORDS = "token=hunter2 <html>body of an answer</html>"
OOM = {"exitCode": 137, "reason": "OOMKilled"}


def pull(words: str) -> Callable[[Any], dict[str, Any]]:
    return lambda fleet: fleet.waiting_pod("ErrImagePull", f"{words} {SECRET_WORDS}")


def configured(words: str) -> Callable[[Any], dict[str, Any]]:
    return lambda fleet: fleet.waiting_pod("CreateContainerConfigError", words)


def running(fleet: Any, **container: Any) -> dict[str, Any]:
    return fleet.pod(containerStatuses=[fleet.container(**container)])  # type: ignore[no-any-return]


def lost_readiness(fleet: Any, started: float, unready: float) -> dict[str, Any]:
    pod = running(fleet, running={"startedAt": fleet.ago(started)})
    pod["status"]["conditions"].append({"type": "Ready", "status": "False", "lastTransitionTime": fleet.ago(unready)})
    return pod


def failed(fleet: Any, reason: str, message: str = "") -> dict[str, Any]:
    return fleet.pod(phase="Failed", reason=reason, message=message)  # type: ignore[no-any-return]


def disrupted(fleet: Any) -> dict[str, Any]:
    pod = fleet.ready_pod()
    pod["status"]["conditions"].append(
        {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    )
    pod["metadata"]["deletionTimestamp"] = fleet.ago(5)
    return pod  # type: ignore[no-any-return]


SCENARIOS = [
    pytest.param(pull("manifest unknown"), Reason.IMAGE_PULL_BACK_OFF, "no such image or tag", id="image not found"),
    pytest.param(pull("401 Unauthorized"), Reason.IMAGE_PULL_BACK_OFF, "denies access", id="image denied"),
    pytest.param(
        pull("x509: unknown authority"), Reason.IMAGE_PULL_BACK_OFF, "certificate", id="registry's certificate"
    ),
    pytest.param(pull("no such host"), Reason.IMAGE_PULL_BACK_OFF, "cannot be reached", id="registry unreachable"),
    pytest.param(pull("toomanyrequests"), Reason.IMAGE_PULL_BACK_OFF, "rate limit", id="registry's rate limit"),
    pytest.param(
        pull("?"), Reason.IMAGE_PULL_BACK_OFF, "registry.example/tts:1 cannot be pulled", id="image, unknown"
    ),
    pytest.param(
        lambda fleet: fleet.waiting_pod("ImagePullBackOff", 'Back-off pulling image "x": ErrImagePull: denied'),
        Reason.IMAGE_PULL_BACK_OFF,
        "denies access",
        id="back-off keeps the cause",
    ),
    pytest.param(
        lambda fleet: fleet.waiting_pod("ErrImageNeverPull"), Reason.IMAGE_PULL_BACK_OFF, "Never", id="never pulled"
    ),
    pytest.param(
        lambda fleet: fleet.waiting_pod("InvalidImageName", SECRET_WORDS),
        Reason.INVALID_IMAGE_NAME,
        "no valid image name",
        id="invalid image name",
    ),
    pytest.param(
        configured('secret "hf" not found'), Reason.CREATE_CONTAINER_CONFIG_ERROR, "Secret hf is missing", id="Secret"
    ),
    pytest.param(
        configured('configmap "ca" not found'),
        Reason.CREATE_CONTAINER_CONFIG_ERROR,
        "ConfigMap ca is missing",
        id="ConfigMap",
    ),
    pytest.param(
        configured("couldn't find key token in Secret speech/hf"),
        Reason.CREATE_CONTAINER_CONFIG_ERROR,
        "Secret hf has no key token",
        id="key of a Secret",
    ),
    pytest.param(
        configured(SECRET_WORDS), Reason.CREATE_CONTAINER_CONFIG_ERROR, "is missing, or", id="config error, unknown"
    ),
    pytest.param(
        lambda fleet: fleet.waiting_pod("RunContainerError", SECRET_WORDS),
        Reason.CREATE_CONTAINER_ERROR,
        "RunContainerError",
        id="container cannot be run",
    ),
    pytest.param(
        lambda fleet: running(fleet, restarts=1, last=OOM, waiting={"reason": "CrashLoopBackOff"}),
        Reason.OOM_KILLED,
        "memory limit is too small",
        id="killed for memory",
    ),
    pytest.param(
        lambda fleet: running(fleet, terminated=OOM),
        Reason.OOM_KILLED,
        "container runtime",
        id="just killed for memory",
    ),
    pytest.param(
        lambda fleet: running(
            fleet,
            restarts=7,
            last={"exitCode": 3, "reason": "Error", "message": SECRET_WORDS},
            waiting={"reason": "CrashLoopBackOff", "message": "back-off 2m40s restarting failed container"},
        ),
        Reason.CRASH_LOOP_BACK_OFF,
        "(exit code 3)",
        id="crash loop",
    ),
    pytest.param(
        lambda fleet: running(fleet, restarts=8, last={"exitCode": 3}, running={"startedAt": fleet.ago(1)}),
        Reason.CRASH_LOOP_BACK_OFF,
        "(exit code 3)",
        id="crash loop, trying again",
    ),
    pytest.param(
        lambda fleet: running(fleet, restarts=2, last={"exitCode": 139}, waiting={"reason": "CrashLoopBackOff"}),
        Reason.CRASH_LOOP_BACK_OFF,
        "exit code 139, segmentation fault",
        id="segmentation fault",
    ),
    pytest.param(
        lambda fleet: running(fleet, restarts=2, last={"exitCode": 0}, waiting={"reason": "CrashLoopBackOff"}),
        Reason.CRASH_LOOP_BACK_OFF,
        "exit code 0",
        id="ends without an error, again and again",
    ),
    pytest.param(
        lambda fleet: fleet.pod(initContainerStatuses=[fleet.container("prepare", terminated={"exitCode": 1})]),
        Reason.INIT_FAILED,
        "init container prepare failed (exit code 1)",
        id="another init container",
    ),
    pytest.param(
        lambda fleet: fleet.pod(initContainerStatuses=[fleet.container("fetch", restarts=1, terminated=OOM)]),
        Reason.OOM_KILLED,
        "container fetch",
        id="fetch killed for memory",
    ),
    pytest.param(
        lambda fleet: lost_readiness(fleet, 600, 20),
        Reason.READINESS_FAILING,
        "not ready any more",
        id="lost readiness",
    ),
    pytest.param(disrupted, Reason.NODE_LOST, "does not answer", id="evicted from a lost node"),
    pytest.param(lambda fleet: failed(fleet, "NodeLost"), Reason.NODE_LOST, "does not answer", id="node lost"),
    pytest.param(
        lambda fleet: failed(fleet, "Evicted", "The node was low on resource: ephemeral-storage. Threshold"),
        Reason.EVICTED,
        "short of ephemeral-storage",
        id="evicted for disk",
    ),
    pytest.param(
        lambda fleet: failed(fleet, "UnexpectedAdmissionError", SECRET_WORDS),
        Reason.NODE_REFUSED_POD,
        "UnexpectedAdmissionError",
        id="device plugin refuses",
    ),
    pytest.param(
        lambda fleet: fleet.pending_pod("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
        Reason.INSUFFICIENT_GPU,
        "no nvidia.com/gpu is free",
        id="unschedulable",
    ),
    *(
        pytest.param(
            lambda fleet, code=code: fleet.fetch_failed(code, SECRET_WORDS), reason, "", id=f"fetch exit {code}"
        )
        for code, reason in FETCH_REASONS.items()
    ),
    pytest.param(lambda fleet: fleet.fetch_failed(1), Reason.FETCH_FAILED, "exit code 1", id="fetch, unknown code"),
]


@pytest.mark.parametrize(("make", "reason", "words"), SCENARIOS)
def test_problem_of_a_pod(fleet: Any, make: Callable[[Any], dict[str, Any]], reason: Reason, words: str) -> None:
    found = diagnose(make(fleet))
    assert found is not None
    assert found.reason is reason
    assert words in found.message
    assert "hunter2" not in found.message
    assert "html" not in found.message
    assert reason.remedy


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda fleet: fleet.ready_pod(), id="ready"),
        pytest.param(lambda fleet: fleet.waiting_pod("ContainerCreating"), id="being created"),
        pytest.param(lambda fleet: fleet.waiting_pod("PodInitializing"), id="initialising"),
        pytest.param(lambda fleet: lost_readiness(fleet, 20, 600), id="loading since it started"),
        pytest.param(lambda fleet: lost_readiness(fleet, 20, 20), id="loading, same second"),
        pytest.param(
            lambda fleet: running(fleet, ready=True, restarts=3, last={"exitCode": 1}, running={"startedAt": "x"}),
            id="well again after crashes",
        ),
        pytest.param(
            lambda fleet: fleet.pod(
                initContainerStatuses=[
                    fleet.container("fetch", restarts=2, terminated={"exitCode": 0}, last={"exitCode": 15})
                ]
            ),
            id="fetched at the third try",
        ),
        pytest.param(
            lambda fleet: running(fleet, terminated={"exitCode": 1}) | {"metadata": {"deletionTimestamp": "now"}},
            id="being deleted",
        ),
        pytest.param(lambda fleet: {}, id="nothing known"),
        pytest.param(lambda fleet: {"status": {"conditions": "?", "containerStatuses": 3}}, id="malformed"),
    ],
)
def test_pod_without_a_problem(fleet: Any, make: Callable[[Any], dict[str, Any]]) -> None:
    assert diagnose(make(fleet)) is None


def test_pod_on_a_lost_node(fleet: Any) -> None:
    found = diagnose(fleet.ready_pod(), lost_nodes={"n1"})
    assert found is not None
    assert found.reason is Reason.NODE_LOST


def test_model_is_there_after_the_fetch_or_when_nothing_is_fetched(fleet: Any) -> None:
    digest = f"sha256:{'0a' * 32}"
    ended = {"exitCode": 0, "message": f"{digest}\n"}
    fetched = fleet.pod(initContainerStatuses=[fleet.container("fetch", terminated=ended)])
    fetching = fleet.pod(initContainerStatuses=[fleet.container("fetch", running={"startedAt": fleet.ago(5)})])
    waiting = fleet.waiting_pod("PodInitializing")
    waiting["spec"]["initContainers"] = [{"name": "fetch"}]
    assert [has_model(pod) for pod in (fetched, fetching, waiting, fleet.ready_pod())] == [True, False, False, True]
    assert [is_fetching(pod) for pod in (fetched, fetching)] == [False, True]
    assert model_digest(fetched) == digest


@pytest.mark.parametrize("words", ["", "sha256:short", SECRET_WORDS, f"sha256:{'0A' * 32}", f"x sha256:{'0a' * 32}"])
def test_anything_but_a_digest_is_not_repeated(words: str) -> None:
    assert digest_of(words) == ""
