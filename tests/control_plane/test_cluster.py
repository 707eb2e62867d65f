"""The control plane is a real one, down to its scheduler and RBAC, and it leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from control_plane import binaries
from control_plane.certificates import Authority, write_kubeconfig
from control_plane.cluster import given_cluster
from control_plane.errors import ClusterRefused, CommandFailed
from control_plane.plane import ControlPlane
from control_plane.waiting import eventually

E2E = Path(__file__).resolve().parents[2] / "e2e"
START_AND_WAIT = """
import sys
from control_plane.operator_process import OperatorProcess
from control_plane.plane import ControlPlane
with ControlPlane.started() as plane:
    operator = OperatorProcess(plane.kubeconfig)
    print(plane.folder, operator.pid, *plane.processes.pids().values(), flush=True)
    sys.stdin.readline()
    operator.stop()
"""


@pytest.fixture
def nodes(own_control_plane: ControlPlane) -> Iterator[Callable[..., list[str]]]:
    """Creates nodes as `ControlPlane.nodes` does; they are deleted after the test."""
    made: list[str] = []

    def create(gpu: str | None = None, count: int = 1, **settings: Any) -> list[str]:
        names = own_control_plane.nodes(gpu, count, **settings)
        made.extend(names)
        return names

    yield create
    own_control_plane.delete_nodes(made)


def deployment(name: str, replicas: int, product: str) -> dict[str, Any]:
    """Pods that want one GPU of the product each."""
    labels = {"app": name}
    resources = {"limits": {"nvidia.com/gpu": "1"}}
    pod = {
        "nodeSelector": {"nvidia.com/gpu.product": product},
        "containers": [{"name": "main", "image": "example.com/main:1", "resources": resources}],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def in_namespace(namespace: str, *objects: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects with their namespace set."""
    return [{**each, "metadata": {**each["metadata"], "namespace": namespace}} for each in objects]


def config_map(name: str, namespace: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def may(plane: ControlPlane, kubeconfig: Path, namespace: str, verb: str, resource: str) -> bool:
    """What the API server says of a user's right."""
    try:
        plane.kubectl("auth", "can-i", verb, resource, "-n", namespace, kubeconfig=kubeconfig)
    except CommandFailed:
        return False
    return True


def test_the_server_is_the_pinned_version(own_control_plane: ControlPlane) -> None:
    pinned = next(binary.version() for binary in binaries.BINARIES if binary.name == "kube-apiserver")
    assert f'"gitVersion":"{pinned}"' in own_control_plane.kubectl("get", "--raw", "/version").replace(" ", "")


def test_a_node_becomes_ready_with_the_labels_of_its_gpu(
    own_control_plane: ControlPlane, nodes: Callable[..., list[str]]
) -> None:
    (name,) = nodes("4090", gpus=2, zone="zone-b", labels={"team": "speech", "nvidia.com/gpu.memory": None})
    node = own_control_plane.get("node", name)
    labels = node["metadata"]["labels"]
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-GeForce-RTX-4090"
    assert labels["topology.kubernetes.io/zone"] == "zone-b"
    assert labels["team"] == "speech"
    assert "nvidia.com/gpu.memory" not in labels
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "2"


def test_pods_run_on_the_nodes_with_their_gpu(
    own_control_plane: ControlPlane, nodes: Callable[..., list[str]], namespace: str
) -> None:
    wanted = nodes("3080", 2, prefix="right") + nodes("h100", prefix="wrong")
    own_control_plane.apply(*in_namespace(namespace, deployment("voice", 2, "NVIDIA-GeForce-RTX-3080")))
    own_control_plane.kubectl("rollout", "status", "deployment/voice", "-n", namespace, "--timeout=30s")
    pods = own_control_plane.get("pods", namespace=namespace)
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == sorted(wanted[:2])


def test_a_pod_without_a_free_gpu_stays_unscheduled(
    own_control_plane: ControlPlane, nodes: Callable[..., list[str]], namespace: str
) -> None:
    nodes("a100", prefix="full")
    own_control_plane.apply(*in_namespace(namespace, deployment("voice", 2, "NVIDIA-A100-SXM4-80GB")))

    def reasons() -> list[str]:
        pods = own_control_plane.get("pods", namespace=namespace)
        conditions = [condition for pod in pods for condition in pod["status"].get("conditions", [])]
        return [condition["message"] for condition in conditions if condition.get("reason") == "Unschedulable"]

    (message,) = eventually(reasons, "one unschedulable pod")
    assert "Insufficient nvidia.com/gpu" in message


def test_pods_of_a_node_held_by_hand_are_what_the_test_says(
    own_control_plane: ControlPlane, nodes: Callable[..., list[str]], namespace: str
) -> None:
    nodes("l4", prefix="held", by_hand=True)
    own_control_plane.apply(*in_namespace(namespace, deployment("voice", 1, "NVIDIA-L4")))

    def placed() -> str:
        pods = own_control_plane.get("pods", namespace=namespace)
        return str(pods[0]["metadata"]["name"]) if pods and pods[0]["spec"].get("nodeName") else ""

    pod = eventually(placed, "a pod on the node")
    waiting = '{"status":{"containerStatuses":[{"name":"main","image":"","imageID":"","ready":false,"restartCount":0,"state":{"waiting":{"reason":"ImagePullBackOff"}}}]}}'  # noqa: E501
    own_control_plane.kubectl(
        "patch", "pod", pod, "-n", namespace, "--subresource=status", "--type=merge", "-p", waiting
    )
    status = own_control_plane.get("pod", pod, namespace)["status"]
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"


def test_a_user_may_do_what_rbac_allows_and_no_more(own_control_plane: ControlPlane, namespace: str) -> None:
    reader = own_control_plane.kubeconfig_for("reader", ["readers"])
    binding = ["-n", namespace, "--clusterrole=view", "--group=readers"]
    own_control_plane.kubectl("create", "rolebinding", "readers", *binding)
    eventually(lambda: may(own_control_plane, reader, namespace, "list", "pods"), "the binding to act")
    assert not may(own_control_plane, reader, namespace, "list", "secrets")
    with pytest.raises(CommandFailed, match="is forbidden"):
        own_control_plane.kubectl("create", "configmap", "mine", "-n", namespace, kubeconfig=reader)


def test_a_service_account_is_known_by_its_kubeconfig(own_control_plane: ControlPlane, namespace: str) -> None:
    kubeconfig = own_control_plane.kubeconfig_for_service_account(namespace, "robot")
    told = own_control_plane.kubectl("auth", "whoami", "-o", "json", kubeconfig=kubeconfig)
    assert f'"system:serviceaccount:{namespace}:robot"' in told
    assert f'"system:serviceaccounts:{namespace}"' in told


def test_the_audit_log_shows_who_wrote_what(own_control_plane: ControlPlane, namespace: str) -> None:
    writer = own_control_plane.kubeconfig_for("writer", ["system:masters"])
    mark = own_control_plane.audit_mark()
    own_control_plane.apply(config_map("seen", namespace), kubeconfig=writer)
    own_control_plane.kubectl("get", "configmaps", "-n", namespace, kubeconfig=writer)
    (write,) = own_control_plane.audit(since=mark, user="writer", writes=True)
    assert (write.verb, write.resource, write.namespace, write.name) == ("patch", "configmaps", namespace, "seen")
    assert write.code == 201
    assert [event.verb for event in own_control_plane.audit(since=mark, user="writer", verb="list")] == ["list"]
    assert list(own_control_plane.audit(since=mark, user="somebody-else")) == []


def test_an_api_server_that_restarts_knows_what_was_there(own_control_plane: ControlPlane, namespace: str) -> None:
    own_control_plane.apply(config_map("kept", namespace, key="value"))
    own_control_plane.restart_api_server()
    assert own_control_plane.get("configmap", "kept", namespace)["data"] == {"key": "value"}


@pytest.mark.parametrize("end", ["orderly", "terminated", "killed"])
def test_nothing_is_left_running(tmp_path: Path, end: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(E2E), "TMPDIR": str(tmp_path)},
    )
    with process:
        assert process.stdin
        assert process.stdout
        folder, *pids = process.stdout.readline().split()
        assert len(pids) == 6
        assert all(is_running(int(pid)) for pid in pids)
        if end == "orderly":
            process.stdin.write("\n")
            process.stdin.flush()
        else:
            process.send_signal(signal.SIGTERM if end == "terminated" else signal.SIGKILL)
        process.wait(timeout=30)
    eventually(lambda: not any(is_running(int(pid)) for pid in pids), "the end of all processes")
    # Nobody could remove the folder of a killed process: the next start does.
    assert Path(folder).exists() == (end == "killed")
    shutil.rmtree(folder, ignore_errors=True)


def is_running(pid: int) -> bool:
    """Whether the process is there and not only waits to be reaped."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_a_start_removes_what_a_killed_one_left() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    first = ControlPlane()
    first.stop()
    left = first.folder.with_name(f"ttsfleet-e2e-{ended.pid}-left")
    left.mkdir()
    second = ControlPlane()
    second.stop()
    assert not left.exists()


@pytest.mark.parametrize(
    ("context", "allowed", "is_allowed"),
    [
        pytest.param("kind-dev", None, True, id="kind is allowed"),
        pytest.param("minikube", None, True, id="minikube is allowed"),
        pytest.param("minikube-production", None, False, id="a name that only begins so is not"),
        pytest.param("production", None, False, id="any other is refused"),
        pytest.param("production", "staging, production", True, id="unless it is listed"),
        pytest.param("kind-dev", "staging", False, id="the list replaces the default"),
    ],
)
def test_a_given_cluster_is_used_only_when_its_context_is_allowed(
    tmp_path: Path, context: str, allowed: str | None, is_allowed: bool
) -> None:
    authority = Authority(tmp_path, "authority")
    client = authority.issue("client", "somebody")
    path = write_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", authority.files.certificate, client)
    path.write_text(path.read_text().replace('"ttsfleet-e2e"', f'"{context}"'))
    environment = {"E2E_KUBECONFIG": str(path), **({"E2E_ALLOWED_CONTEXTS": allowed} if allowed else {})}
    if is_allowed:
        given = given_cluster(environment)
        assert given
        assert given.kubeconfig == path
    else:
        with pytest.raises(ClusterRefused, match=f"E2E_ALLOWED_CONTEXTS={context}"):
            given_cluster(environment)


def test_without_e2e_kubeconfig_no_cluster_is_given() -> None:
    assert given_cluster({}) is None
