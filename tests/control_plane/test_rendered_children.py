"""Rendered children on a real API server: accepted strictly, equal to what is stored, and restricted pods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.cluster import Cluster
from control_plane.plane import ControlPlane
from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.cli import main
from ttsfleet_operator.cluster.diff import differences, shown
from ttsfleet_operator.fleet.plan import plan_fleet
from ttsfleet_operator.fleet.settings import FleetSettings, References, referenced_keys
from ttsfleet_operator.manifests.fleet_objects import render_fleet
from ttsfleet_operator.manifests.pod_template import pod_template
from ttsfleet_operator.profiles import builtin_profiles

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SETTINGS = FleetSettings(
    release="1.2.3",
    runtime_image="registry.example/runtime:1.2.3",
    https_proxy="http://proxy.example:3128",
    image_pull_secrets=("base",),
    denied_networks=("10.0.0.1/32",),
)
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
EVERYTHING = """\
replicas: 4
engine: {quant_type: custom}
quantConfigRef: {name: recipe, key: quant.yaml}
resources: {requests: {cpu: 1500m, ephemeral-storage: 30Gi}, limits: {cpu: '4', memory: 24Gi}, sharedMemory: 2Gi}
rollout: {surge: Never, drain: {maxStreamSeconds: 60}}
runtime: {imagePullSecrets: [{name: reg}]}
pod:
  nodeSelector: {disk: ssd}
  labels: {team: a}
  annotations: {note: b}
  tolerations: [{key: spot, operator: Equal, value: 'yes', effect: NoExecute, tolerationSeconds: 60}]
network:
  service: {type: NodePort, annotations: {note: c}}
  apiKeySecretRef: {name: keys, key: k}
  caBundleConfigMapRef: {name: ca, key: ca.crt}
  policy:
    ingressFrom: [{namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [a, b]}]}}]
    egressTo: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.9.0.0/16]}}, {podSelector: {matchLabels: {app: mirror}}}]
"""
CLASSES = (
    "{name: ada, gpu: {products: [rtx-4090], memoryMiB: {min: 22000, max: 25000}}}, "
    "{name: mig, gpu: {resourceName: nvidia.com/mig-3g.20gb, memoryMiB: {min: 19000}}}, "
    "{name: cpu, cpu: {}}"
)
OURS_ALONE = {"ConfigMap", "Service", "NetworkPolicy"}  # no controller writes to them
CLAIM = ", cache: {claim: {size: 20Gi, accessModes: [ReadWriteMany]}}"
MODELS = {
    "huggingFace": "source: {huggingFace: {repo: a/b, tokenSecretRef: {name: hf, key: tok}}}" + CLAIM,
    "s3": "source: {s3: {bucket: voices, endpoint: 'https://minio.example:9000', secretRef: {name: s3}}}",
    "oci": "source: {oci: {reference: 'registry.example/models/cosyvoice2:1'}}, manifestSHA256: " + "b" * 64,
    "pvc": "source: {pvc: {claimName: models, subPath: a/b}}, cache: {existingClaim: shared}",
    "builtin": "source: {builtin: {name: tiny-en}}",
}


@pytest.fixture
def restricted(control_plane: Cluster) -> Iterator[str]:
    """A namespace whose pods must meet the restricted Pod Security standard."""
    with control_plane.namespace("restricted", RESTRICTED) as name:
        yield name


def children(namespace: str, model: str, more: str) -> list[dict[str, Any]]:
    (service,) = parse_services(f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator, namespace: {namespace}}}
spec:
  model: {{{model}}}
  hardware: {{classes: [{CLASSES}]}}
""" + "".join(f"  {line}\n" for line in more.splitlines()))  # fmt: skip
    contents = References(dict.fromkeys(referenced_keys(service), "content"))
    plan = plan_fleet(service, builtin_profiles(), None, {}, SETTINGS, contents, pod_template)
    assert all(decision.bundle is not None for decision in plan.classes)
    return render_fleet(plan, SETTINGS)


def applied(cluster: Cluster, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stored objects after a strict server-side apply."""
    answer = cluster.kubectl(
        "apply", "--server-side", "--validate=strict", "--field-manager=ttsfleet-operator", "-f", "-", "-o", "json",
        input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
    )  # fmt: skip
    items: list[dict[str, Any]] = json.loads(answer)["items"]
    return items


@pytest.mark.parametrize("more", ["", EVERYTHING], ids=["nothing asked", "everything asked"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_children_are_accepted_strictly_and_stored_as_rendered(
    model: str, more: str, restricted: str, control_plane: Cluster
) -> None:
    wanted = children(restricted, model, more)
    stored = applied(control_plane, wanted)
    assert [one["kind"] for one in stored] == [one["kind"] for one in wanted]
    for desired, live in zip(wanted, stored, strict=True):
        assert [shown(path) for path in differences(desired, live)] == []
    again = applied(control_plane, wanted)
    before, after = (
        {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in objects if one["kind"] in OURS_ALONE}
        for objects in (stored, again)
    )
    assert before == after
    assert {one["metadata"]["generation"] for one in again if one["kind"] == "Deployment"} == {1}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_pods_meet_the_restricted_standard_of_the_server(model: str, restricted: str, control_plane: Cluster) -> None:
    for child in children(restricted, model, EVERYTHING):
        if child["kind"] != "Deployment":
            continue
        template = child["spec"]["template"]
        metadata = {**template["metadata"], "name": child["metadata"]["name"], "namespace": restricted}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        control_plane.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=json.dumps(pod))


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        pytest.param("{limits: {cpu: '8', memory: 16Gi}}", "Guaranteed", id="whole CPUs and memory"),
        pytest.param("{limits: {cpu: 7500m, memory: 16Gi}}", "Burstable", id="a part of a CPU"),
        pytest.param("{limits: {memory: 16Gi}}", "Burstable", id="no CPU limit"),
    ],
)
def test_pods_that_are_to_get_cpus_of_their_own_are_guaranteed(
    resources: str, quality: str, restricted: str, control_plane: Cluster
) -> None:
    """The kubelet's static CPU manager gives CPUs of their own to Guaranteed pods only."""
    for child in children(restricted, MODELS["huggingFace"], f"resources: {resources}"):
        if child["kind"] == "ConfigMap" and "engine.yaml" in child["data"]:
            assert ("exclusive_cpus: 8" in child["data"]["engine.yaml"]) == (quality == "Guaranteed")
        if child["kind"] != "Deployment":
            continue
        template = child["spec"]["template"]
        metadata = {**template["metadata"], "name": child["metadata"]["name"], "namespace": restricted}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        answer = control_plane.kubectl("create", "-f", "-", "-o", "json", input=json.dumps(pod))
        assert json.loads(answer)["status"]["qosClass"] == quality


def test_command_reads_the_nodes_of_a_cluster(own_control_plane: ControlPlane, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    example = EXAMPLES / "ttsservice-rtx4090.yaml"
    names = own_control_plane.nodes("4090", 2, prefix="render")
    try:
        listed = tmp_path / "nodes.yaml"
        listed.write_text(own_control_plane.kubectl("get", "nodes", "-o", "yaml"))
        outputs = []
        for words in (["--kubeconfig", str(own_control_plane.kubeconfig)], ["--nodes", str(listed)]):
            assert main(["render", "-f", str(example), *words]) == 0
            outputs.append(capsys.readouterr().out)
    finally:
        own_control_plane.delete_nodes(names)
    assert outputs[0] == outputs[1]
    assert "no nodes were given" not in outputs[0]
    assert main(["plan", "-f", str(example), "--nodes", str(listed), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nodes"]["ada"] >= 2
