"""The chart's admission policies on a real API server: what they refuse, with which words, and what they let pass."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import binaries
from control_plane.cluster import Cluster
from control_plane.errors import CommandFailed
from control_plane.helm_release import HelmRelease, Manifest, install_chart
from control_plane.plane import ControlPlane
from control_plane.waiting import eventually

CHART = Path(__file__).resolve().parents[2] / "charts" / "ttsfleet"
NAMESPACE = "ttsfleet-system"
USERS_GROUPS = ["speech-users"]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    if os.environ.get("E2E_KUBECONFIG"):
        pytest.skip("installs and removes cluster-wide objects; not on a given cluster")
    if absent := binaries.missing(("helm",)):
        pytest.skip(f"not built: {', '.join(absent)}; build with `{binaries.BUILD_COMMAND}`")
    with ControlPlane.started() as started:
        yield started


@pytest.fixture(scope="module")
def installation(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> HelmRelease:
    return install_chart(plane, CHART, tmp_path_factory.mktemp("helm"), NAMESPACE)


def service(name: str = "narrator", **spec: Any) -> Manifest:
    given = {
        "model": {"source": {"builtin": {"name": "tiny-en"}}},
        "hardware": {"classes": [{"name": "cpu", "cpu": {}}]},
    }
    metadata = {"name": name, "namespace": "speech"}
    return {"apiVersion": "ttsfleet.dev/v1alpha1", "kind": "TTSService", "metadata": metadata, "spec": given | spec}


@pytest.fixture(scope="module")
def policed(installation: HelmRelease) -> HelmRelease:
    """The policies act: the API server has read them some time after they were created."""

    def refused() -> bool:
        bad = service("probe", runtime={"image": "evil/image:1"})
        try:
            installation.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(bad))
        except CommandFailed:
            return True
        return False

    eventually(refused, "a refusal by the policy of images")
    return installation


def test_expressions_of_the_policies_pass_the_type_check(policed: HelmRelease) -> None:
    names = [one["metadata"]["name"] for one in policed.objects() if one["kind"] == "ValidatingAdmissionPolicy"]
    assert len(names) == 3
    for name in names:

        def checked(name: str = name) -> Manifest | None:
            live = policed.cluster.get("validatingadmissionpolicy", name)
            current = live.get("status", {}).get("observedGeneration") == live["metadata"]["generation"]
            return live if current else None

        live = eventually(checked, f"the type check of {name}")
        assert live is not None
        assert live["status"].get("typeChecking", {}).get("expressionWarnings", []) == []


@pytest.fixture(scope="module")
def user(plane: ControlPlane, policed: HelmRelease) -> Callable[[str, list[str]], Path]:
    """A kubeconfig of a user who may edit TTSServices in `speech`, and create the given kinds there."""

    def make(name: str, kinds: list[str]) -> Path:
        rules = [
            {"apiGroups": ["ttsfleet.dev"], "resources": ["ttsservices", "ttsservices/scale"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["none", *kinds], "verbs": ["create"]},
        ]
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name, "namespace": "speech"}}
        policed.cluster.apply(
            {**role, "kind": "Role", "rules": rules},
            {
                **role,
                "kind": "RoleBinding",
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
            },
        )
        return plane.kubeconfig_for(name, USERS_GROUPS)

    return make


CACHE = {"source": {"builtin": {"name": "tiny-en"}}, "cache": {"claim": {"size": "1Gi"}}}
IMAGE = "spec.runtime.image"


@pytest.mark.parametrize(
    ("kinds", "spec", "says"),
    [
        pytest.param([], {}, "may not create pods in namespace speech", id="without-pods"),
        pytest.param(["pods"], {}, None, id="with-pods"),
        pytest.param(
            ["pods"], {"model": CACHE}, "may not create persistentvolumeclaims", id="a-claim-without-claims"
        ),
        pytest.param(["pods", "persistentvolumeclaims"], {"model": CACHE}, None, id="a-claim-with-claims"),
        pytest.param(
            ["pods"],
            {"network": {"service": {"type": "LoadBalancer"}}},
            "may not create services",
            id="exposed-without-services",
        ),
        pytest.param(["pods"], {"network": {"service": {"type": "ClusterIP"}}}, None, id="cluster-ip-needs-nothing"),
        pytest.param(
            ["pods", "services"], {"network": {"service": {"type": "NodePort"}}}, None, id="exposed-with-services"
        ),
    ],
)
def test_user_gets_by_a_service_only_what_they_could_create_themselves(
    policed: HelmRelease,
    user: Callable[[str, list[str]], Path],
    request: pytest.FixtureRequest,
    kinds: list[str],
    spec: Manifest,
    says: str | None,
) -> None:
    kubeconfig = user(f"user-{request.node.callspec.id}", kinds)
    assert_answer(policed, service("asked", **spec), says, kubeconfig)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        pytest.param({"runtime": {"image": ""}}, None, id="the-release"),
        pytest.param({"runtime": {"image": "ttsfleet/runtime:9"}}, None, id="another-tag"),
        pytest.param({"runtime": {"image": f"ttsfleet/runtime@sha256:{'0' * 64}"}}, None, id="a-digest"),
        pytest.param(
            {"runtime": {"image": "evil/image:1"}},
            f"{IMAGE} evil/image:1 is not allowed in this cluster: leave it empty for the image of the release, "
            "or use one of ttsfleet/runtime",
            id="another-image",
        ),
        pytest.param({"runtime": {"image": "ttsfleet/runtime-evil:1"}}, "is not allowed", id="a-longer-name"),
        pytest.param({"runtime": {"image": "ttsfleet/runtime:5000/evil"}}, "is not allowed", id="a-port-for-a-tag"),
        pytest.param({"runtime": {"image": "ttsfleet/runtime/evil"}}, "is not allowed", id="a-folder-below"),
        pytest.param({"pod": {"labels": {"team": "speech"}}}, None, id="own-label"),
        pytest.param(
            {"pod": {"labels": {"ttsfleet.dev/service": "other"}}}, "ttsfleet.dev/service", id="reserved-label"
        ),
        pytest.param(
            {"pod": {"annotations": {"app.kubernetes.io/name": "x"}}}, "app.kubernetes.io/name", id="reserved-note"
        ),
        pytest.param(
            {"network": {"service": {"annotations": {"ttsfleet.dev/x": "y"}}}}, "ttsfleet.dev/x", id="on-the-service"
        ),
    ],
)
def test_admission_answers(policed: HelmRelease, spec: Manifest, says: str | None) -> None:
    assert_answer(policed, service("asked", **spec), says)


def assert_answer(policed: HelmRelease, manifest: Manifest, says: str | None, kubeconfig: Path | None = None) -> None:
    """Creation (not kept) is admitted when `says` is None, else refused with these words."""

    def create() -> None:
        text = json.dumps(manifest)
        policed.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=text, kubeconfig=kubeconfig)

    if says is None:
        create()
        return
    with pytest.raises(CommandFailed) as refused:
        create()
    assert says in refused.value.stderr


def test_platforms_own_prefixes_are_refused_with_the_key(policed: HelmRelease) -> None:
    prefixes = ["ttsfleet.dev/", "app.kubernetes.io/", "platform.example.com/"]
    policed.upgrade(CHART, values={"policies": {"reservedKeys": {"prefixes": prefixes}}})
    bad = service("asked", pod={"labels": {"platform.example.com/tier": "gold", "team": "speech"}})
    says = (
        "labels and annotations of pods and services may not begin with ttsfleet.dev/ or app.kubernetes.io/ or "
        "platform.example.com/: remove platform.example.com/tier"
    )

    def refused() -> str:
        try:
            policed.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(bad))
        except CommandFailed as error:
            return error.stderr
        return ""

    try:
        assert says in eventually(refused, "the longer list of prefixes")
    finally:
        policed.upgrade(CHART)


def test_stricter_list_leaves_what_exists_editable(policed: HelmRelease) -> None:
    plane = policed.cluster
    policed.upgrade(CHART, values={"policies": {"images": {"allowed": ["registry.example.com/old/"]}}})
    running = service("running", runtime={"image": "registry.example.com/old/runtime:1"})
    eventually(lambda: admitted(plane, running), "the longer list of images")
    try:
        plane.apply(running)
        policed.upgrade(CHART)
        eventually(
            lambda: not admitted(plane, running | {"metadata": running["metadata"] | {"name": "new"}}), "refusal"
        )
        plane.kubectl(
            "patch", "ttsservice", "running", "-n", "speech", "--type=merge", "-p", '{"spec":{"replicas":2}}'
        )
    finally:
        plane.kubectl("delete", "ttsservice", "running", "-n", "speech", "--ignore-not-found")


def admitted(plane: Cluster, manifest: Manifest) -> bool:
    try:
        plane.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(manifest))
    except CommandFailed:
        return False
    return True


def test_scaling_is_its_own_permission_as_autoscalers_have_it(
    policed: HelmRelease, user: Callable[[str, list[str]], Path]
) -> None:
    plane = policed.cluster
    plane.apply(service("scaled"))
    try:
        scaler = user("scaler", [])
        plane.kubectl("scale", "ttsservice", "scaled", "-n", "speech", "--replicas=3", kubeconfig=scaler)
        assert plane.get("ttsservice", "scaled", "speech")["spec"]["replicas"] == 3
    finally:
        plane.kubectl("delete", "ttsservice", "scaled", "-n", "speech")


def test_metadata_may_be_written_by_whoever_keeps_it(
    policed: HelmRelease, user: Callable[[str, list[str]], Path]
) -> None:
    plane = policed.cluster
    plane.apply(service("labelled"))
    try:
        keeper = user("keeper", [])
        plane.kubectl("label", "ttsservice", "labelled", "-n", "speech", "team=speech", kubeconfig=keeper)
        patch = ["--type=merge", "-p", '{"spec":{"suspend":true}}']
        with pytest.raises(CommandFailed, match="may not create pods"):
            plane.kubectl("patch", "ttsservice", "labelled", "-n", "speech", *patch, kubeconfig=keeper)
    finally:
        plane.kubectl("delete", "ttsservice", "labelled", "-n", "speech")
