"""The proxy breaks exactly what it is asked to: watches, single answers, a process at a given write."""

from __future__ import annotations

import json
import select
import signal
import subprocess
from collections.abc import Iterator
from typing import IO

import pytest

from control_plane import binaries
from control_plane.api_request import read_request
from control_plane.errors import NeverHappened
from control_plane.plane import ControlPlane
from control_plane.proxy import Proxy
from control_plane.waiting import eventually

Kubectl = subprocess.Popen[str]


@pytest.fixture
def proxy(own_control_plane: ControlPlane) -> Iterator[Proxy]:
    proxy = own_control_plane.proxy("proxied", ["system:masters"])
    yield proxy
    proxy.stop()


@pytest.fixture
def kubectl(own_control_plane: ControlPlane, proxy: Proxy) -> Iterator[Kubectl]:
    """A kubectl that waits for manifests on its stdin and then creates them through the proxy."""
    with start_kubectl(proxy, "create", "-f", "-") as process:
        yield process
        process.kill()


def start_kubectl(proxy: Proxy, *arguments: str) -> Kubectl:
    return subprocess.Popen(
        [binaries.path_of("kubectl"), "--kubeconfig", str(proxy.kubeconfig), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def config_maps(namespace: str, count: int) -> str:
    items = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"map-{number}", "namespace": namespace}}
        for number in range(count)
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def names(plane: ControlPlane, namespace: str) -> list[str]:
    """The ConfigMaps that the tests made."""
    found = plane.get("configmaps", namespace=namespace)
    return sorted(each["metadata"]["name"] for each in found if each["metadata"]["name"].startswith("map-"))


def says_something(stream: IO[str], within: float) -> bool:
    return bool(select.select([stream], [], [], within)[0])


def test_the_api_server_sees_the_user_of_the_proxy(own_control_plane: ControlPlane, proxy: Proxy) -> None:
    told = own_control_plane.kubectl("auth", "whoami", "-o", "json", kubeconfig=proxy.kubeconfig)
    assert json.loads(told)["status"]["userInfo"]["username"] == "proxied"


def test_writes_are_counted_and_reads_are_not(own_control_plane: ControlPlane, proxy: Proxy, namespace: str) -> None:
    through = {"kubeconfig": proxy.kubeconfig}
    own_control_plane.kubectl("create", "-f", "-", input=config_maps(namespace, 2), **through)
    own_control_plane.kubectl("get", "configmaps", "-n", namespace, **through)
    own_control_plane.kubectl("create", "configmap", "dry", "-n", namespace, "--dry-run=server", **through)
    own_control_plane.kubectl("delete", "configmap", "map-0", "-n", namespace, "--wait=false", **through)
    seen = [(entry.request.verb, entry.request.resource, entry.status) for entry in proxy.writes()]
    assert seen == [("create", "configmaps", 201), ("create", "configmaps", 201), ("delete", "configmaps", 200)]


@pytest.mark.parametrize("writes", [1, 3])
def test_a_process_is_killed_right_after_a_write(
    own_control_plane: ControlPlane, proxy: Proxy, kubectl: Kubectl, namespace: str, writes: int
) -> None:
    kill = proxy.kill_after(kubectl.pid, writes)
    assert kubectl.stdin
    kubectl.stdin.write(config_maps(namespace, 5))
    kubectl.stdin.close()
    assert kill.wait().resource == "configmaps"
    assert kubectl.wait(timeout=30) == -signal.SIGKILL
    assert names(own_control_plane, namespace) == [f"map-{number}" for number in range(writes)]


def test_a_kill_that_does_not_come_is_told(proxy: Proxy, kubectl: Kubectl) -> None:
    with pytest.raises(NeverHappened, match="2 more writes"):
        proxy.kill_after(kubectl.pid, 2).wait(within=0.1)


def test_a_client_that_is_told_429_asks_again(own_control_plane: ControlPlane, proxy: Proxy, namespace: str) -> None:
    refusal = proxy.refuse(lambda request: request.is_write, times=1)
    own_control_plane.kubectl("create", "-f", "-", input=config_maps(namespace, 1), kubeconfig=proxy.kubeconfig)
    assert refusal.given == 1
    assert [entry.status for entry in proxy.writes()] == [429, 201]


def test_a_dropped_watch_ends_and_the_next_one_is_let_through(proxy: Proxy, namespace: str) -> None:
    arguments = ("get", "configmaps", "-n", namespace, "--watch-only", "-o", "name")
    for _ in range(2):
        with start_kubectl(proxy, *arguments) as watcher:
            eventually(proxy.open_watches, "a watch")
            assert proxy.drop_watches(lambda request: request.resource == "secrets") == 0
            assert proxy.drop_watches() == 1
            watcher.communicate(timeout=30)
        eventually(lambda: not proxy.open_watches(), "the end of the watch")


def test_a_frozen_watch_says_nothing_until_it_is_thawed(
    own_control_plane: ControlPlane, proxy: Proxy, namespace: str
) -> None:
    with start_kubectl(proxy, "get", "configmaps", "-n", namespace, "--watch-only", "-o", "name") as watcher:
        assert watcher.stdout
        eventually(proxy.open_watches, "a watch")
        own_control_plane.kubectl("create", "configmap", "before", "-n", namespace)
        eventually(lambda: watcher.stdout and "before" in watcher.stdout.readline(), "the event before")
        proxy.freeze_watches()
        own_control_plane.kubectl("create", "configmap", "during", "-n", namespace)
        assert not says_something(watcher.stdout, within=0.5)
        assert len(proxy.open_watches()) == 1
        proxy.thaw_watches()
        assert watcher.stdout.readline() == "configmap/during\n"
        watcher.kill()


def test_the_watches_of_a_killed_api_server_end(
    own_control_plane: ControlPlane, proxy: Proxy, namespace: str
) -> None:
    with start_kubectl(proxy, "get", "configmaps", "-n", namespace, "--watch-only", "-o", "name") as watcher:
        eventually(proxy.open_watches, "a watch")
        own_control_plane.restart_api_server()
        eventually(lambda: not proxy.open_watches(), "the end of the watch")
        watcher.communicate(timeout=30)
    assert own_control_plane.kubectl("get", "namespace", namespace, kubeconfig=proxy.kubeconfig)


@pytest.mark.parametrize(
    ("method", "target", "meaning", "is_write"),
    [
        pytest.param("GET", "/api/v1/nodes?limit=5", "list nodes", False, id="list"),
        pytest.param("GET", "/api/v1/nodes/a", "get nodes/a", False, id="get"),
        pytest.param("GET", "/api/v1/nodes?watch=true", "watch nodes", False, id="watch"),
        pytest.param("POST", "/api/v1/namespaces", "create namespaces", True, id="create a namespace"),
        pytest.param("DELETE", "/api/v1/namespaces/a", "delete namespaces/a", True, id="delete a namespace"),
        pytest.param(
            "PUT", "/api/v1/namespaces/a/finalize", "update namespaces/a/finalize", True, id="its finalizer"
        ),
        pytest.param("GET", "/api/v1/namespaces/a/pods", "list pods/a", False, id="list in a namespace"),
        pytest.param(
            "PATCH",
            "/apis/ttsfleet.dev/v1/namespaces/a/ttsservices/b/status",
            "patch ttsservices/a/b/status",
            True,
            id="status of a custom resource",
        ),
        pytest.param(
            "DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection deployments/a", True, id="all"
        ),
        pytest.param("POST", "/api/v1/namespaces/a/pods?dryRun=All", "create pods/a", False, id="a dry run"),
        pytest.param(
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            "create subjectaccessreviews",
            False,
            id="a review",
        ),
        pytest.param("GET", "/readyz", "GET /readyz", False, id="no resource"),
        pytest.param("GET", "/apis/apps/v1", "GET /apis/apps/v1", False, id="discovery"),
    ],
)
def test_a_request_is_read_as_the_api_server_reads_it(method: str, target: str, meaning: str, is_write: bool) -> None:
    request = read_request(method, target)
    assert str(request) == meaning
    assert request.is_write == is_write
