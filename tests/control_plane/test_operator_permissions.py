"""The operator with nothing but what the chart grants: it works, and is refused nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import binaries
from control_plane.audit import AuditEvent
from control_plane.helm_release import HelmRelease, operator_settings
from control_plane.operator_process import OperatorProcess
from control_plane.plane import ControlPlane
from control_plane.speech import condition, service, wait_condition
from control_plane.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "ttsfleet"
NAMESPACE = "ttsfleet-system"
USER = f"system:serviceaccount:{NAMESPACE}:ttsfleet"
SERVICE = {
    "apiVersion": "ttsfleet.dev/v1alpha1",
    "kind": "TTSService",
    "metadata": {"name": "narrator", "namespace": "speech"},
    "spec": {
        "replicas": 2,
        "model": {"source": {"builtin": {"name": "tiny-en"}}, "cache": {"claim": {"size": "1Gi"}}},
        "hardware": {"classes": [{"name": "cpu", "cpu": {}}, {"name": "spare", "cpu": {}}]},
    },
}

HUB = {"source": {"huggingFace": {"repo": "FunAudioLLM/CosyVoice2-0.5B"}}}
BEHIND_THE_API_SERVER = "192.0.2.10"


@pytest.fixture(params=[pytest.param([], id="cluster-wide"), pytest.param(["speech"], id="namespaced")])
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HelmRelease]:
    """The chart, cluster-wide and for one namespace, each on a control plane of its own."""
    if os.environ.get("E2E_KUBECONFIG"):
        pytest.skip("reads the audit log of a control plane of our own")
    if binaries.missing(("helm",)):
        pytest.skip(f"not built: helm; build with `{binaries.BUILD_COMMAND}`")
    with ControlPlane.started() as plane:
        for name in (NAMESPACE, "speech"):
            plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        release = HelmRelease(plane, tmp_path, "ttsfleet", NAMESPACE)
        release.upgrade(CHART, values={"watchNamespaces": request.param})
        plane.wait_for_definitions()
        yield release


@pytest.fixture
def operator(release: HelmRelease) -> Iterator[OperatorProcess]:
    """The operator with the settings of the chart's Deployment and the rights of its service account."""
    plane = release.cluster
    assert isinstance(plane, ControlPlane)
    # This control plane does not tell where it listens.
    plane.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "kubernetes", "namespace": "default"},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [BEHIND_THE_API_SERVER]}],
        }
    )
    kubeconfig = plane.kubeconfig_for_service_account(NAMESPACE, "ttsfleet")
    process = OperatorProcess(kubeconfig, "ttsfleet-0", **operator_settings(release))
    try:
        yield process
    finally:
        process.stop()


def cpu_class(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "cpu": {}, **settings}


def objects_of_others(name: str) -> list[dict[str, Any]]:
    """A Deployment, a budget and a NetworkPolicy that bear the names which a TTSService's children would."""
    selector = {"matchLabels": {"app": "other"}}
    container = {"name": "other", "image": "registry.example/other:1"}
    template = {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": [container]}}
    given = (
        ("apps/v1", "Deployment", f"{name}-cpu", {"replicas": 0, "selector": selector, "template": template}),
        ("policy/v1", "PodDisruptionBudget", name, {"maxUnavailable": 1, "selector": selector}),
        ("networking.k8s.io/v1", "NetworkPolicy", name, {"podSelector": selector}),
    )
    return [
        {"apiVersion": version, "kind": kind, "metadata": {"name": called, "namespace": "speech"}, "spec": spec}
        for version, kind, called, spec in given
    ]


def test_operator_works_is_refused_nothing_and_uses_what_it_is_granted(
    release: HelmRelease, operator: OperatorProcess
) -> None:
    plane = release.cluster
    assert isinstance(plane, ControlPlane)

    def happens(check: Callable[[], object], what: str) -> None:
        def running_and_true() -> bool:
            if not operator.running:
                raise RuntimeError(operator.log()[-3000:])
            return bool(check())

        eventually(running_and_true, what, within=60)

    def used() -> set[tuple[str, str]]:
        return {(resource_of(one), one.verb) for one in plane.audit(user=USER) if one.resource}

    def suspend(value: bool) -> None:
        patch = json.dumps({"spec": {"suspend": value}})
        plane.kubectl("patch", "ttsservice", "stuck", "-n", "speech", "--type=merge", "-p", patch)
        reason = "Suspended" if value else "ScalingFromZero"
        happens(lambda: condition(plane, "stuck", "speech", "Ready").get("reason") == reason, f"Ready is {reason}")

    def classes(*given: dict[str, Any]) -> None:
        patch = json.dumps({"spec": {"hardware": {"classes": given}}})
        plane.kubectl("patch", "ttsservice", "narrator", "-n", "speech", "--type=merge", "-p", patch)

    def deployment(name: str) -> Any:
        return plane.find("deployment", f"narrator-{name}", "speech")

    def maps() -> int:
        selector = "ttsfleet.dev/service=narrator,ttsfleet.dev/class=cpu"
        return len(plane.get("configmaps", namespace="speech", selector=selector))

    plane.nodes(by_hand=True)
    plane.apply(*objects_of_others("taken"), SERVICE, service("stuck", "speech"), service("taken", "speech"))
    plane.apply(service("fetching", "speech", model=HUB))
    happens(lambda: deployment("cpu") and deployment("spare"), "both Deployments")
    happens(lambda: ("pods", "list") in used(), "a look at the pods that do not run")
    policy = eventually(lambda: plane.find("networkpolicy", "fetching", "speech"), "the policy of one that fetches")
    assert f"{BEHIND_THE_API_SERVER}/32" in policy["spec"]["egress"][1]["to"][0]["ipBlock"]["except"]
    plane.kubectl("delete", "deployment", "narrator-cpu", "-n", "speech")
    happens(lambda: deployment("cpu"), "the Deployment that was deleted by hand")
    classes(cpu_class("cpu"))
    happens(lambda: not deployment("spare"), "the end of a class that left the spec")
    classes(cpu_class("cpu", engine={"cache_capacity": 7}))
    happens(lambda: maps() == 2, "the new plan beside the old one, which can be rolled back to")
    happens(lambda: ("replicasets", "list") in used(), "a look at who uses the old plan")
    plane.kubectl("scale", "deployment", "narrator-cpu", "-n", "speech", "--replicas=5")
    happens(lambda: ("horizontalpodautoscalers", "list") in used(), "a search for the foreign scaler")
    happens(lambda: ("leases", "update") in used(), "a renewal of the Lease")
    happens(lambda: ("events", "list") in used(), "a look at why a pod that has a node does not start")
    for value in (True, False, True):
        suspend(value)
    happens(lambda: ("events", "patch") in used(), "an Event that is told again")
    wait_condition(plane, "taken", "speech", "Stalled", reason="NameConflict")

    refused = {(resource_of(one), one.verb) for one in plane.audit(user=USER) if one.code == 403}
    assert refused == set(), operator.log()[-3000:]
    unused = granted(release.objects()) - used() - {(kind, "create") for kind, verb in used() if verb == "patch"}
    assert unused == {(kind, "delete") for kind in RARELY_DELETED} | {(MONITORS, verb) for verb in MONITOR_VERBS}


RARELY_DELETED = ("services", "networkpolicies", "poddisruptionbudgets")  # when a spec no longer wants them
MONITORS = "servicemonitors"  # this control plane does not have the kind
MONITOR_VERBS = ("get", "list", "create", "patch", "delete")


def resource_of(event: AuditEvent) -> str:
    return f"{event.resource}/{event.subresource}" if event.subresource else event.resource


def granted(objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """What the chart's roles allow the operator."""
    roles = [one for one in objects if one["kind"] in ("ClusterRole", "Role")]
    own = [one for one in roles if not one["metadata"]["name"].endswith(("-edit", "-view"))]
    rules = [rule for role in own for rule in role["rules"]]
    return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
