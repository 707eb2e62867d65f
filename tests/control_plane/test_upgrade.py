"""From one release of the chart to the next, with the operator at work: what runs goes on, the new plan waits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from control_plane import binaries
from control_plane.helm_release import HelmRelease, operator_settings
from control_plane.operator_process import OperatorProcess
from control_plane.plane import ControlPlane
from control_plane.waiting import eventually

CHART = Path(__file__).resolve().parents[2] / "charts" / "ttsfleet"
NAMESPACE = "ttsfleet-system"
SERVICE = {
    "apiVersion": "ttsfleet.dev/v1alpha1",
    "kind": "TTSService",
    "metadata": {"name": "narrator", "namespace": "speech"},
    "spec": {
        "replicas": 2,
        "model": {"source": {"builtin": {"name": "tiny-en"}}},
        "hardware": {"classes": [{"name": "ada", "gpu": {"products": ["NVIDIA-GeForce-RTX-4090"]}}]},
    },
}


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    if os.environ.get("E2E_KUBECONFIG"):
        pytest.skip("installs cluster-wide objects; not on a given cluster")
    if binaries.missing(("helm",)):
        pytest.skip(f"not built: helm; build with `{binaries.BUILD_COMMAND}`")
    with ControlPlane.started() as started:
        started.nodes("4090", 2)
        for name in (NAMESPACE, "speech"):
            started.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield started


@contextmanager
def operator_of(release: HelmRelease, plane: ControlPlane, name: str) -> Iterator[OperatorProcess]:
    """The operator as the release describes it, and ready."""
    kubeconfig = plane.kubeconfig_for_service_account(NAMESPACE, "ttsfleet")
    process = OperatorProcess(kubeconfig, name, **operator_settings(release))
    try:
        process.wait_leader()
        yield process
    finally:
        process.stop()


def next_release(folder: Path) -> Path:
    """The chart with the next version, and so with the next images."""
    chart = shutil.copytree(CHART, folder / "next")
    text = (chart / "Chart.yaml").read_text().replace("ersion: 0.1.0", "ersion: 0.1.1")
    (chart / "Chart.yaml").write_text(text)
    return chart


def runtime_image(plane: ControlPlane) -> str:
    containers: list[dict[str, Any]] = plane.get("deployment", "narrator-ada", "speech")["spec"]["template"]["spec"][
        "containers"
    ]
    image: str = containers[0]["image"]
    return image


def test_next_release_restarts_no_pod_until_the_spec_changes(plane: ControlPlane, tmp_path: Path) -> None:
    release = HelmRelease(plane, tmp_path, "ttsfleet", NAMESPACE)
    release.upgrade(CHART)
    plane.wait_for_definitions()

    def pods() -> dict[str, str]:
        found = plane.get("pods", namespace="speech", selector="ttsfleet.dev/service=narrator")
        return {one["metadata"]["uid"]: one["status"].get("phase", "") for one in found}

    def status_of_class() -> dict[str, Any]:
        (only,) = plane.get("ttsservice", "narrator", "speech").get("status", {}).get("classes") or [{}]
        found: dict[str, Any] = only
        return found

    with operator_of(release, plane, "first"):
        plane.apply(SERVICE)
        eventually(lambda: list(pods().values()) == ["Running"] * 2, "two running pods", within=60)
    before = pods()
    metadata = plane.get("ttsservice", "narrator", "speech")["metadata"]
    generation = plane.get("deployment", "narrator-ada", "speech")["metadata"]["generation"]
    assert runtime_image(plane) == "ttsfleet/runtime:0.1.0"

    release.upgrade(next_release(tmp_path))
    with operator_of(release, plane, "second"):
        eventually(lambda: status_of_class().get("pendingPlanHash"), "a pending plan in the status", within=60)
        assert pods() == before
        assert plane.get("deployment", "narrator-ada", "speech")["metadata"]["generation"] == generation
        kept = plane.get("ttsservice", "narrator", "speech")["metadata"]
        assert (kept["uid"], kept["generation"]) == (metadata["uid"], metadata["generation"])

        patch = '{"spec":{"engine":{"cache_capacity":7}}}'
        plane.kubectl("patch", "ttsservice", "narrator", "-n", "speech", "--type=merge", "-p", patch)
        eventually(lambda: runtime_image(plane) == "ttsfleet/runtime:0.1.1", "the new release's image", within=60)
        eventually(lambda: status_of_class().get("pendingPlanHash") == "", "nothing pending", within=60)


def fetched(name: str, **spec: Any) -> dict[str, Any]:
    """A TTSService whose pods fetch their model from a hub."""
    source = {"huggingFace": {"repo": "FunAudioLLM/CosyVoice2-0.5B"}}
    whole = {**SERVICE["spec"], "replicas": 1, "model": {"source": source}, **spec}
    return {**SERVICE, "metadata": {"name": name, "namespace": "speech"}, "spec": whole}


def test_private_ca_of_the_installation_reaches_new_pods_and_restarts_none(
    plane: ControlPlane, tmp_path: Path
) -> None:
    release = HelmRelease(plane, tmp_path, "ttsfleet", NAMESPACE)
    release.upgrade(CHART)
    plane.wait_for_definitions()

    def volumes(name: str) -> list[str]:
        found = plane.find("deployment", f"{name}-ada", "speech")
        return [one["name"] for one in found["spec"]["template"]["spec"]["volumes"]] if found else []

    def pending(name: str) -> bool:
        classes = plane.get("ttsservice", name, "speech").get("status", {}).get("classes") or [{}]
        return bool(classes[0].get("pendingPlanHash"))

    with operator_of(release, plane, "first"):
        plane.apply(fetched("narrator"), fetched("automatic", rollout={"planChanges": "Automatic"}))
        eventually(lambda: volumes("narrator") and volumes("automatic"), "both Deployments", within=60)
    generation = plane.get("deployment", "narrator-ada", "speech")["metadata"]["generation"]

    alone = {"replicas": 1, "leaderElection": {"enabled": False}, "reconcile": {"resyncSeconds": 10}}
    release.upgrade(CHART, {"caBundle": {"configMapName": "corporate-ca", "key": "ca.pem"}, **alone})
    with operator_of(release, plane, "second"):
        eventually(lambda: pending("narrator"), "a pending plan in the status", within=60)
        plane.apply(fetched("newcomer"))
        eventually(lambda: "ca" in volumes("newcomer"), "the bundle in a new service's pods", within=60)
        assert plane.get("deployment", "narrator-ada", "speech")["metadata"]["generation"] == generation
        assert "ca" not in volumes("automatic"), "nothing rolls to what is not there"
        bundle = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "corporate-ca", "namespace": "speech"},
        }
        plane.apply({**bundle, "data": {"ca.pem": "certificates"}})
        eventually(lambda: "ca" in volumes("automatic"), "a plan that may take over by itself", within=60)

    pod = plane.get("deployment", "newcomer-ada", "speech")["spec"]["template"]["spec"]
    (volume,) = (one for one in pod["volumes"] if one["name"] == "ca")
    assert (volume["configMap"]["name"], volume["configMap"].get("optional")) == ("corporate-ca", None)
    mounts = {one["name"]: {mount["name"] for mount in one["volumeMounts"]} for one in pod["initContainers"]}
    assert "ca" in mounts["fetch"]
    assert "ca" not in {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
