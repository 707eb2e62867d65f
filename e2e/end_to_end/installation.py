"""ttsfleet as a user has it: the chart in one namespace, TTSServices in another, and clients that speak with them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from container_images.recipe import ROOT, recipes
from control_plane import binaries, speech
from control_plane.cluster import Cluster
from control_plane.errors import CommandFailed, NeverHappened, StartFailed
from control_plane.helm_release import HelmRelease
from real_nodes.cluster import RealCluster

CHART = ROOT / "charts" / "ttsfleet"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
OPERATOR_NAMESPACE = "ttsfleet-system"
SPEECH_NAMESPACE = "speech"
READY_SECONDS = 240
OPERATOR_SECONDS = 100
# What a replica of tiny-en gets here: two cores are shared by all that runs.
RESOURCES: Mapping[str, Any] = {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "5Gi"}}


class Installation:
    """The chart of this tree with the images of this tree, in a cluster."""

    def __init__(self, cluster: Cluster, release: HelmRelease, registry: str) -> None:
        self.cluster = cluster
        self.release = release
        self._values = _values(cluster, registry)

    def upgrade(self, **more: Any) -> None:
        """Installs or upgrades the chart: defaults but for the images, and `more` values."""
        self.release.upgrade(CHART, {**self._values, **more})

    def wait_operator(self) -> None:
        """Returns when both operators are ready.

        Raises:
            CommandFailed: with the states and the last lines of their pods.
        """

        rollout = ["rollout", "status", f"deployment/{self.release.name}", f"--timeout={OPERATOR_SECONDS}s"]
        try:
            self.cluster.kubectl("-n", OPERATOR_NAMESPACE, *rollout)
        except CommandFailed as error:
            for pod in self.operator_pods():
                name = pod["metadata"]["name"]
                log = self.cluster.kubectl("logs", "-n", OPERATOR_NAMESPACE, name, "--tail=15")
                error.add_note(f"{name}: {pod['status'].get('containerStatuses')}\n{log}")
            raise

    def apply(self, name: str, *, replicas: int = 1, **spec: Any) -> None:
        """Applies a TTSService of the builtin voice on the CPU; `spec` adds to it or replaces parts of it."""
        wanted = speech.service(name, SPEECH_NAMESPACE, replicas=replicas, **{"resources": dict(RESOURCES), **spec})
        self.cluster.apply(wanted)

    def wait_serving(self, name: str, replicas: int = 1, within: float = READY_SECONDS) -> None:
        """Returns when so many replicas serve.

        Raises:
            NeverHappened: with what the service's conditions say.
        """
        try:
            speech.wait_serving(self.cluster, name, SPEECH_NAMESPACE, replicas, within)
        except NeverHappened as error:
            error.add_note(self.explained(name))
            raise

    def explained(self, name: str) -> str:
        """The conditions of a service and the states of its pods, for messages."""
        found = self.cluster.find("ttsservice", name, SPEECH_NAMESPACE) or {}
        lines = [
            f"{one['type']}={one['status']} {one['reason']}: {one['message']}"
            for one in found.get("status", {}).get("conditions", [])
        ]
        lines += [f"{pod['metadata']['name']}: {pod['status']}" for pod in self.pods(name)]
        return "\n".join(lines)

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of a service that are not being deleted."""
        found = self.cluster.get("pods", namespace=SPEECH_NAMESPACE, selector=f"ttsfleet.dev/service={name}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def operator_pods(self) -> list[dict[str, Any]]:
        """The pods of the operator."""
        deployment = self.cluster.get("deployment", self.release.name, OPERATOR_NAMESPACE)
        labels = deployment["spec"]["selector"]["matchLabels"]
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        found: list[dict[str, Any]] = self.cluster.get("pods", namespace=OPERATOR_NAMESPACE, selector=selector)
        return found

    @contextmanager
    def address(self, name: str) -> Iterator[str]:
        """The URL of a service from here: its ClusterIP where that is reached, else a forwarded port."""
        found = self.cluster.get("service", name, SPEECH_NAMESPACE)
        port = found["spec"]["ports"][0]["port"]
        if isinstance(self.cluster, RealCluster):
            yield f"http://{found['spec']['clusterIP']}:{port}"
            return
        with forwarded(self.cluster, f"service/{name}", port) as url:
            yield url


@contextmanager
def forwarded(cluster: Cluster, target: str, port: int, namespace: str = SPEECH_NAMESPACE) -> Iterator[str]:
    """`kubectl port-forward` to a pod or a service; the URL of its end here."""
    command = [str(binaries.path_of("kubectl")), "--kubeconfig", str(cluster.kubeconfig), "-n", namespace]
    command += ["port-forward", "--address", "127.0.0.1", target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout
            said = process.stdout.readline()
            if "Forwarding from 127.0.0.1:" not in said:
                raise StartFailed(f"kubectl port-forward {target}: {said.strip()}")
            yield f"http://{said.split()[2]}"
        finally:
            process.kill()


@contextmanager
def installed(cluster: Cluster, folder: Path, registry: str = "localhost") -> Iterator[Installation]:
    """Installs the chart with defaults but for the images, in namespaces of the restricted standard.

    Args:
        folder: for what helm writes beside.
        registry: where the images of `container_images.build` are; localhost when the nodes have them.
    """
    for name in (OPERATOR_NAMESPACE, SPEECH_NAMESPACE):
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    release = HelmRelease(cluster, folder, "ttsfleet", OPERATOR_NAMESPACE)
    installation = Installation(cluster, release, registry)
    installation.upgrade()
    cluster.wait_for_definitions()
    installation.wait_operator()
    try:
        yield installation
    finally:
        if not isinstance(cluster, RealCluster):  # a cluster of our own ends with all that is in it
            cluster.kubectl("delete", "ttsservices", "--all", "-n", SPEECH_NAMESPACE, "--wait")
            release.uninstall()
            cluster.kubectl("delete", "namespace", OPERATOR_NAMESPACE, SPEECH_NAMESPACE, "--wait")


def _values(cluster: Cluster, registry: str) -> dict[str, Any]:
    """The images of this tree, which nodes of our own have and never pull, and where their API server listens."""
    own = isinstance(cluster, RealCluster)
    operator, runtime = (
        {"repository": recipe.repository, "pullPolicy": "Never" if own else "IfNotPresent"}
        for recipe in recipes(registry)
    )
    chosen: dict[str, Any] = {"image": operator, "runtime": {"image": runtime}}
    if isinstance(cluster, RealCluster):
        chosen["networkPolicy"] = {"apiServer": {"ports": [urlsplit(cluster.server).port]}}
    return chosen
