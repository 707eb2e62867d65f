"""The API server judges a TTSService as our structs do, says what to do, and keeps what cannot change.

The manifests are those of tests/operator/test_crd_manifests.py, which feeds them to the structs. Validation is strict
(unknown fields are errors), as `kubectl` asks for by default.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from control_plane.cluster import Cluster
from control_plane.errors import CommandFailed
from ttsfleet_operator.api.documents import read_documents

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "operator" / "data"
GOOD = sorted((DATA / "good_manifests").glob("*.yaml"))
BAD = sorted((DATA / "bad_manifests").glob("*.yaml"))


def heading(path: Path) -> dict[str, str]:
    lines = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    return dict(line.split(": ", 1) for line in lines)


REFUSED = [path for path in BAD if heading(path)["refused by"] == "API server"]
ACCEPTED = [*GOOD, *(path for path in BAD if path not in REFUSED)]


@pytest.fixture(scope="module")
def cluster(control_plane: Cluster) -> Cluster:
    """The control plane with our CRDs."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "crds"))
    control_plane.wait_for_definitions()
    return control_plane


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "ttsfleet.dev/v1alpha1",
        "kind": "TTSService",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": {"builtin": {"name": "tiny-en"}}},
            "hardware": {"classes": [{"name": "cpu", "cpu": {}}]},
            **spec,
        },
    }


def profile(name: str, **spec: Any) -> dict[str, Any]:
    whole = {"memoryMiB": 24564, "computeCapability": "8.9", "engine": {"workers": 2}, **spec}
    return {"apiVersion": "ttsfleet.dev/v1alpha1", "kind": "TTSGPUProfile", "metadata": {"name": name}, "spec": whole}


def create(cluster: Cluster, document: dict[str, Any], *options: str) -> Any:
    return json.loads(cluster.kubectl("create", "-o", "json", *options, "-f", "-", input=json.dumps(document)))


def patch(cluster: Cluster, namespace: str, name: str, change: dict[str, Any], *options: str) -> Any:
    arguments = ["patch", "tts", name, "-n", namespace, "--type=merge", "-p", json.dumps(change), "-o", "json"]
    return json.loads(cluster.kubectl(*arguments, *options))


@pytest.mark.parametrize("path", ACCEPTED, ids=lambda path: path.stem)
def test_good_manifest_is_accepted(cluster: Cluster, path: Path) -> None:
    cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", str(path))


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_bad_manifest_is_refused_with_a_remedy(cluster: Cluster, path: Path) -> None:
    expected = heading(path)
    with pytest.raises(CommandFailed) as caught:
        cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", str(path))
    assert expected.get("API server says", expected["says"]) in caught.value.stderr


def test_only_replicas_are_filled_in(cluster: Cluster, namespace: str) -> None:
    asked = service("bare", engine={}, hardware={"classes": [{"name": "any", "gpu": {}}]})
    stored = create(cluster, asked, "-n", namespace)
    assert stored["spec"] == {**asked["spec"], "replicas": 1}


def test_our_reader_of_yaml_and_kubectl_agree_on_plain_scalars(cluster: Cluster) -> None:
    numbers = "1e3, 1E-2, 1.e+3, 22:30, 1:30:00, 0x1F, 010, 08, 00, 0o17, 0b11, 1_000, 2.0, .5, 5., -0, +1"
    scalars = f"scalars: [y, N, yes, Off, on, {numbers}, ~, 2026-11-23, ==]"
    text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x, namespace: x}}\n{scalars}\n"
    theirs = cluster.kubectl("create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-", input=text)
    (ours,) = read_documents(text)
    assert json.loads(theirs)["scalars"] == ours.data["scalars"]


CLAIM = {"storageClassName": "fast", "accessModes": ["ReadWriteMany"], "size": "20Gi"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"storageClassName": "slow"}, "storageClassName of a claim cannot change", id="storage class"),
        pytest.param({"storageClassName": None}, "storageClassName of a claim cannot change", id="class removed"),
        pytest.param({"accessModes": ["ReadWriteOnce"]}, "accessModes of a claim cannot change", id="access modes"),
        pytest.param({"size": "10Gi"}, "size of a claim cannot shrink: it was 20Gi, now 10Gi", id="smaller"),
    ],
)
def test_change_that_no_claim_can_follow_is_refused(
    cluster: Cluster, namespace: str, change: dict[str, Any], message: str
) -> None:
    asked = service("cached")
    asked["spec"]["model"]["cache"] = {"claim": CLAIM}
    create(cluster, asked, "-n", namespace)
    with pytest.raises(CommandFailed) as caught:
        patch(cluster, namespace, "cached", {"spec": {"model": {"cache": {"claim": change}}}})
    assert message in caught.value.stderr


@pytest.mark.parametrize(
    "cache",
    [
        pytest.param({"claim": {"size": "21474836480"}}, id="the same size in other words"),
        pytest.param({"claim": {"size": "40Gi", "retain": False}}, id="larger"),
        pytest.param(None, id="no cache any more"),
        pytest.param({"claim": None, "existingClaim": "models"}, id="another claim"),
    ],
)
def test_change_that_a_claim_can_follow_is_accepted(cluster: Cluster, namespace: str, cache: Any) -> None:
    asked = service("cached")
    asked["spec"]["model"]["cache"] = {"claim": CLAIM}
    create(cluster, asked, "-n", namespace)
    patch(cluster, namespace, "cached", {"spec": {"model": {"cache": cache}}})


def full_status() -> dict[str, Any]:
    """A status with every field, and every text as long as it may be."""
    one = {
        "profile": "p" * 63, "planHash": "h" * 63, "pendingPlanHash": "h" * 63, "desired": 1, "ready": 1,
        "deployment": "d" * 63, "engineConfigMap": "e" * 100,
        "plan": {"workers": 1, "decode_process_num": 1, "quant_type": "q" * 63, "data_type": "d" * 63},
        "memory": {"deviceMiB": 24564, "estimatedMiB": 19800, "assumed": True},
        "problem": {"reason": "R" * 64, "message": "m" * 512, "pods": 1, "since": "2026-11-23T10:00:00Z"},
    }  # fmt: skip
    condition = {
        "status": "True", "reason": "R" * 64, "message": "m" * 1024, "observedGeneration": 1,
        "lastTransitionTime": "2026-11-23T10:00:00Z",
    }  # fmt: skip
    return {
        "observedGeneration": 1, "replicas": 3, "desiredReplicas": 3, "readyReplicas": 2, "selector": "s" * 253,
        "url": "u" * 253, "gpuSummary": "g" * 253, "workersSummary": "w" * 253,
        "model": {"type": "t" * 63, "digest": "d" * 80, "fetched": 3},
        "classes": [{"name": f"c{number}", **one} for number in range(8)],
        "conditions": [{"type": f"T{letter}", **condition} for letter in "ABCDEFGH"],
    }  # fmt: skip


def test_whole_status_is_kept_and_its_conditions_are_told_apart_by_type(cluster: Cluster, namespace: str) -> None:
    create(cluster, service("full"), "-n", namespace)
    status = full_status()
    stored = patch(cluster, namespace, "full", {"status": status}, "--subresource=status")
    assert stored["status"] == status
    doubled = {"conditions": [status["conditions"][0], status["conditions"][0]]}
    with pytest.raises(CommandFailed, match="Duplicate value"):
        patch(cluster, namespace, "full", {"status": doubled}, "--subresource=status")


def test_status_is_written_by_its_subresource_alone(cluster: Cluster, namespace: str) -> None:
    created = create(cluster, {**service("said"), "status": {"replicas": 7}}, "-n", namespace)
    assert "status" not in created


def test_scale_subresource_reads_and_writes_replicas_and_tells_the_selector(cluster: Cluster, namespace: str) -> None:
    create(cluster, service("scaled"), "-n", namespace)
    patch(cluster, namespace, "scaled", {"status": {"replicas": 1, "selector": "a=b"}}, "--subresource=status")
    cluster.kubectl("scale", "tts/scaled", "-n", namespace, "--replicas=4")
    raw = cluster.kubectl(
        "get", "--raw", f"/apis/ttsfleet.dev/v1alpha1/namespaces/{namespace}/ttsservices/scaled/scale"
    )
    scale = json.loads(raw)
    assert scale["spec"]["replicas"] == 4
    assert scale["status"] == {"replicas": 1, "selector": "a=b"}


def test_listing_shows_the_state_in_columns(cluster: Cluster, namespace: str) -> None:
    create(cluster, service("shown"), "-n", namespace)
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "message": "", "lastTransitionTime": ""}
    status = {"readyReplicas": 2, "desiredReplicas": 3, "gpuSummary": "ada 3", "workersSummary": "3"}
    patch(cluster, namespace, "shown", {"status": {**status, "conditions": [ready]}}, "--subresource=status")
    header, row = cluster.kubectl("get", "ttsfleet", "-n", namespace).strip().splitlines()[:2]
    columns = re.split(r"\s{2,}", header.strip())
    assert columns == ["NAME", "READY", "REPLICAS", "DESIRED", "GPU", "WORKERS", "REASON", "AGE"]
    assert re.split(r"\s{2,}", row.strip())[1:7] == ["True", "2", "3", "ada 3", "3", "Serving"]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("tts.spec.engine.workers", "Sets of LLM and decoder processes on one GPU"),
        ("tts.spec.hardware.classes.gpu.memoryMiB.min", "Least memory in MiB"),
        ("tts.status.classes.problem", "What is wrong"),
        ("ttsgpu.spec.computeCapability", "Compute capability"),
    ],
)
def test_kubectl_explains_fields(cluster: Cluster, field: str, text: str) -> None:
    assert text in cluster.kubectl("explain", field)


def test_server_side_appliers_of_two_classes_do_not_conflict(cluster: Cluster, namespace: str) -> None:
    def apply(manager: str, document: dict[str, Any]) -> None:
        options = ["--server-side", f"--field-manager={manager}", "-n", namespace, "-f", "-"]
        cluster.kubectl("apply", *options, input=json.dumps(document))

    apply("one", service("shared"))
    part = service("shared", hardware={"classes": [{"name": "ada", "gpu": {}}]})
    apply("two", part)
    names = [one["name"] for one in cluster.get("tts", "shared", namespace)["spec"]["hardware"]["classes"]]
    assert sorted(names) == ["ada", "cpu"]


PROFILES = [
    pytest.param(
        profile("rtx-5090", priority=5, products=["NVIDIA-GeForce-RTX-5090"], aliases=["5090"]), "", id="new"
    ),
    pytest.param(profile("cpu", memoryMiB=0, computeCapability=""), "", id="the row of the CPU"),
    pytest.param(
        profile("b300", computeCapability="10.3", engine={"quant_type": "triton-fp8w8a8-b128"}), "", id="10.3"
    ),
    pytest.param(profile("a.b"), "metadata.name must be at most 63 lower-case letters", id="name with a dot"),
    pytest.param(
        profile("x", computeCapability="ampere"), "must be a compute capability in quotes", id="family name"
    ),
    pytest.param(profile("x", computeCapability=8.9), "must be of type string", id="without quotes"),
    pytest.param(profile("x", memoryMiB=0), "memoryMiB and computeCapability belong together", id="half a device"),
    pytest.param(profile("x", memoryMiB=0, computeCapability=""), "is for the row cpu alone", id="no device"),
    pytest.param(
        profile("x", computeCapability="8.6", engine={"quant_type": "triton-fp8w8a8-b128"}),
        "needs compute capability 8.9, this profile has 8.6",
        id="fp8 too early",
    ),
    pytest.param(profile("x", engine={"quant_type": "custom"}), "ask for it in the TTSService", id="custom"),
    pytest.param(profile("x", engine={"worker": 1}), 'unknown field "spec.engine.worker"', id="unknown parameter"),
]


@pytest.mark.parametrize(("document", "refusal"), PROFILES)
def test_profile_is_judged_by_the_api_server(cluster: Cluster, document: dict[str, Any], refusal: str) -> None:
    options = ["--dry-run=server", "--validate=strict"]
    if not refusal:
        create(cluster, document, *options)
        return
    with pytest.raises(CommandFailed) as caught:
        create(cluster, document, *options)
    assert refusal in caught.value.stderr
