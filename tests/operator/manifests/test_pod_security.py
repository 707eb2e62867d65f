"""Every pod that can be rendered passes the restricted Pod Security standard, and carries no credential."""

from __future__ import annotations

import json
from typing import Any

import pytest

RESTRICTED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "image", "projected"}
POD_NEVER = ("hostNetwork", "hostPID", "hostIPC", "hostUsers")
SHAPES = {
    "gpu": "{name: ada, gpu: {products: [NVIDIA-GeForce-RTX-4090]}}",
    "mig": "{name: mig, gpu: {resourceName: nvidia.com/mig-3g.20gb, memoryMiB: {min: 19000}}}",
    "cpu": "{name: cpu, cpu: {}}",
}
EVERYTHING = """\
engine: {quant_type: custom}
quantConfigRef: {name: recipe, key: quant.yaml}
network: {apiKeySecretRef: {name: keys, key: k}, caBundleConfigMapRef: {name: ca, key: ca.crt}}
pod: {serviceAccountName: speech, priorityClassName: high, labels: {team: a}, annotations: {note: b}}
"""


def violations(pod: dict[str, Any]) -> list[str]:
    """What the standard `restricted` forbids in a pod spec."""
    context = pod.get("securityContext", {})
    found = [field for field in POD_NEVER if field in pod]
    if not context.get("runAsNonRoot") or context.get("runAsUser") == 0:
        found.append("the pod may run as root")
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("no seccomp profile")
    if "sysctls" in context:
        found.append("sysctls")
    for volume in pod["volumes"]:
        found += [f"volume {kind}" for kind in volume.keys() - {"name"} - RESTRICTED_VOLUMES]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        found += [f"{container['name']}: {fault}" for fault in _container_violations(container)]
    return found


def _container_violations(container: dict[str, Any]) -> list[str]:
    context = container.get("securityContext", {})
    found = []
    if context.get("allowPrivilegeEscalation") is not False:
        found.append("privilege escalation")
    if context.get("capabilities") != {"drop": ["ALL"]}:
        found.append("capabilities")
    if context.get("privileged") or context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False:
        found.append("privileged or root")
    found += ["host port" for port in container.get("ports", []) if "hostPort" in port]
    return found


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_pod_passes_the_restricted_standard(shape, any_source, render) -> None:  # type: ignore[no-untyped-def]
    assert violations(render(EVERYTHING, source=any_source, cls=shape).pod) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        pytest.param({"hostNetwork": True}, "hostNetwork", id="host network"),
        pytest.param({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "volume hostPath", id="host path"),
        pytest.param({"securityContext": {}}, "the pod may run as root", id="no security context"),
    ],
)
def test_the_check_itself_finds_faults(change, fault, render) -> None:  # type: ignore[no-untyped-def]
    assert fault in violations({**render().pod, **change})


def test_root_file_system_is_read_only_and_no_token_is_mounted(any_source, render) -> None:  # type: ignore[no-untyped-def]
    pod = render(EVERYTHING, source=any_source).pod
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    containers = [*pod["containers"], *pod.get("initContainers", [])]
    assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in containers)


def test_secrets_are_files_in_the_one_container_that_needs_them(any_source, render) -> None:  # type: ignore[no-untyped-def]
    rendered = render(EVERYTHING, source=any_source)
    names = {name for name, volume in rendered.volumes.items() if "secret" in volume}
    served = {one["name"] for one in rendered.runtime["volumeMounts"]} & names
    assert served == {"api-key"}
    if rendered.fetch is not None:
        assert "api-key" not in {one["name"] for one in rendered.fetch["volumeMounts"]}
    assert "secretKeyRef" not in json.dumps(rendered.objects)
    assert not any("subPath" in one for one in rendered.runtime["volumeMounts"] if one["name"] in names)


def test_every_mount_has_its_volume_and_every_volume_a_mount(any_source, render) -> None:  # type: ignore[no-untyped-def]
    rendered = render(EVERYTHING, source=any_source)
    containers = [rendered.runtime, *([rendered.fetch] if rendered.fetch else [])]
    for container in containers:
        paths = [one["mountPath"] for one in container["volumeMounts"]]
        assert len(set(paths)) == len(paths)
        assert not any(a != b and a.startswith(b + "/") for a in paths for b in paths)
    mounted = {one["name"] for container in containers for one in container["volumeMounts"]}
    assert mounted == set(rendered.volumes)
