"""What runs on real nodes: pods with logs and exec, services, names, limits."""

from __future__ import annotations

import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from control_plane import binaries
from control_plane.errors import CommandFailed
from control_plane.waiting import eventually
from real_nodes.cluster import RealCluster
from real_nodes.images import POD_IMAGE, write_archive
from real_nodes.layout import HOST_ADDRESS
from real_nodes.pods import pod, service

pytestmark = [pytest.mark.real_nodes, pytest.mark.slow]

LETTERS = ("a", "b", "c")


def run(cluster: RealCluster, namespace: str, *objects: dict[str, Any]) -> None:
    """Creates the objects and waits until the pods among them are ready."""
    for one in objects:
        one["metadata"]["namespace"] = namespace
    cluster.apply(*objects)
    names = [f"pod/{one['metadata']['name']}" for one in objects if one["kind"] == "Pod"]
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", *names)


def in_pod(cluster: RealCluster, namespace: str, name: str, *arguments: str) -> str:
    return cluster.kubectl("exec", "-n", namespace, name, "--", "/pod", *arguments).strip()


def test_three_nodes_in_two_zones_are_ready(cluster: RealCluster) -> None:
    nodes = {node["metadata"]["name"]: node for node in cluster.get("nodes")}
    zones = {name: node["metadata"]["labels"]["topology.kubernetes.io/zone"] for name, node in nodes.items()}
    assert zones == {"node-a": "zone-a", "node-b": "zone-b", "node-c": "zone-a"}
    ready = [one for node in nodes.values() for one in node["status"]["conditions"] if one["type"] == "Ready"]
    assert [one["status"] for one in ready] == ["True"] * 3
    boots = {node["status"]["nodeInfo"]["bootID"] for node in nodes.values()}
    assert len(boots) == 3


def test_a_pod_on_each_node_runs_with_logs_and_exec(cluster: RealCluster, namespace: str) -> None:
    run(cluster, namespace, *(pod(f"on-{one}", ["serve", ":8080"], node=f"node-{one}") for one in LETTERS))
    for one in LETTERS:
        assert cluster.get("pod", f"on-{one}", namespace)["status"]["phase"] == "Running"
        assert cluster.kubectl("logs", "-n", namespace, f"on-{one}") == "listening on :8080\n"
        assert in_pod(cluster, namespace, f"on-{one}", "get", "http://127.0.0.1:8080") == f"on-{one}"


def test_a_service_is_reached_from_nodes_and_host_by_address_and_by_name(
    cluster: RealCluster, namespace: str
) -> None:
    server = pod("server", ["serve", ":8080"], node="node-b", labels={"app": "server"})
    clients = [pod(f"client-{one}", ["pause"], node=f"node-{one}") for one in LETTERS]
    run(cluster, namespace, server, *clients, service("server", {"app": "server"}, 80, 8080))
    address = cluster.get("service", "server", namespace)["spec"]["clusterIP"]
    for one in LETTERS:
        for host in (address, "server", f"server.{namespace}.svc.cluster.local"):
            reached = eventually(
                lambda one=one, host=host: answer(cluster, namespace, f"client-{one}", f"http://{host}"), host
            )
            assert reached == "server"
    with urllib.request.urlopen(f"http://{address}", timeout=5) as reply:
        assert reply.read() == b"server\n"
    assert in_pod(cluster, namespace, "client-a", "lookup", f"server.{namespace}.svc.cluster.local") == address


def answer(cluster: RealCluster, namespace: str, name: str, url: str) -> str | None:
    try:
        return in_pod(cluster, namespace, name, "get", url)
    except CommandFailed:
        return None


@pytest.mark.parametrize(
    "address",
    ["192.0.2.1", "203.0.113.7"],
)
def test_pods_and_nodes_reach_nothing_outside_the_cluster(cluster: RealCluster, namespace: str, address: str) -> None:
    run(cluster, namespace, pod("client", ["pause"]))
    with pytest.raises(CommandFailed, match="unreachable"):
        in_pod(cluster, namespace, "client", "get", f"http://{address}", "2")
    with pytest.raises(CommandFailed, match="unreachable"):
        cluster.exec_in_node("a", "ip", "route", "get", address)
    assert HOST_ADDRESS in cluster.exec_in_node("a", "ip", "route", "get", HOST_ADDRESS)


def test_the_proxy_of_the_control_plane_works_here_too(cluster: RealCluster) -> None:
    proxy = cluster.proxy("somebody", ["system:masters"])
    assert "node-a" in cluster.kubectl("get", "nodes", "-o", "name", kubeconfig=proxy.kubeconfig)


def test_a_container_over_its_memory_limit_is_reported_as_oom_killed(cluster: RealCluster, namespace: str) -> None:
    eater = pod("eater", ["eat", "256"], memory="64Mi", restartPolicy="Never")
    eater["metadata"]["namespace"] = namespace
    cluster.apply(eater)

    def ended() -> dict[str, object] | None:
        states = cluster.get("pod", "eater", namespace)["status"].get("containerStatuses") or [{}]
        end: dict[str, object] | None = states[0].get("state", {}).get("terminated")
        return end

    end = eventually(ended, "the container has ended", within=60, every=0.2)
    assert (end["reason"], end["exitCode"]) == ("OOMKilled", 137)


def test_an_imported_image_runs_on_every_node(cluster: RealCluster, namespace: str, tmp_path: Path) -> None:
    image = "localhost/later:1"
    program = {"other-name": binaries.path_of("pod")}
    cluster.import_image(write_archive(tmp_path / "later.tar", image, program, ["/other-name"]))
    pods = [pod(f"later-{one}", ["serve", ":1"], node=f"node-{one}") for one in LETTERS]
    for one in pods:
        one["spec"]["containers"][0]["image"] = image
    run(cluster, namespace, *pods)


def test_a_restricted_pod_has_memory_and_an_image_as_volumes(cluster: RealCluster) -> None:
    user = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    volumes = [
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        {"name": "image", "image": {"reference": POD_IMAGE, "pullPolicy": "Never"}},
    ]
    with cluster.namespace(labels={"pod-security.kubernetes.io/enforce": "restricted"}) as namespace:
        restricted = pod("restricted", ["serve", ":8080"], securityContext=user, volumes=volumes)
        restricted["spec"]["containers"][0] |= {
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "memory", "mountPath": "/dev/shm"},
                {"name": "image", "mountPath": "/mounted"},
            ],
        }
        run(cluster, namespace, restricted)
        command = ["exec", "-n", namespace, "restricted", "--", "/mounted/pod", "get", "http://127.0.0.1:8080"]
        assert cluster.kubectl(*command) == "restricted\n"


def test_a_pod_is_reached_through_a_forwarded_port(cluster: RealCluster, namespace: str) -> None:
    run(cluster, namespace, pod("server", ["serve", ":8080"]))
    kubectl = [str(binaries.path_of("kubectl")), "--kubeconfig", str(cluster.kubeconfig)]
    command = [*kubectl, "port-forward", "-n", namespace, "pod/server", ":8080"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout
            port = forward.stdout.readline().split()[2].rpartition(":")[2]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5) as reply:
                assert reply.read() == b"server\n"
        finally:
            forward.kill()


def test_a_drained_node_runs_the_pod_no_more_until_it_is_free_again(cluster: RealCluster, namespace: str) -> None:
    run(cluster, namespace, pod("server", ["serve", ":8080"], node="node-b"))
    try:
        cluster.kubectl("drain", "node-b", "--ignore-daemonsets", "--force", "--delete-emptydir-data")
        assert cluster.find("pod", "server", namespace) is None
        assert cluster.get("node", "node-b")["spec"]["unschedulable"] is True
    finally:
        cluster.kubectl("uncordon", "node-b")


def test_a_device_plugin_on_the_host_can_register_with_a_kubelet(cluster: RealCluster) -> None:
    registration = cluster.node("a").host_path_of_var / "lib" / "kubelet" / "device-plugins" / "kubelet.sock"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(registration))


def test_a_sysctl_of_the_whole_kernel_that_is_written_on_a_node_stays_there(cluster: RealCluster) -> None:
    key = "/proc/sys/vm/swappiness"
    before = Path(key).read_text()
    changed = str(int(before) + 1)
    cluster.node("a").exec("tee", key, input=changed)
    assert cluster.exec_in_node("a", "cat", key) == changed
    assert cluster.exec_in_node("b", "cat", key) == before
    assert Path(key).read_text() == before


def test_a_host_path_belongs_to_one_node(cluster: RealCluster) -> None:
    cluster.exec_in_node("a", "mkdir", "-p", "/var/cache/models")
    assert (cluster.node("a").host_path_of_var / "cache" / "models").is_dir()
    assert "models" not in cluster.exec_in_node("b", "ls", "/var/cache")
    assert not Path("/var/cache/models").exists()
