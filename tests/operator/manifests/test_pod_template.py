"""The pod of a class: what the plan, the user and the installation decide of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CPU = "{name: cpu, cpu: {}}"
MIG = "{name: mig, gpu: {resourceName: nvidia.com/mig-3g.20gb, memoryMiB: {min: 19000}}}"
SMALL = "{name: small, gpu: {products: [Tesla-T4]}}"


def resources(rendered: Any) -> Any:
    return rendered.runtime["resources"]


def environment(rendered: Any) -> dict[str, str]:
    return rendered.environment(rendered.runtime)  # type: ignore[no-any-return]


def toleration(rendered: Any, key: str) -> list[Any]:
    return [one for one in rendered.pod["tolerations"] if one.get("key") == key]


Fact = Callable[[Any], object]


@pytest.mark.parametrize(
    ("more", "options", "fact", "expected"),
    [
        pytest.param("", {}, lambda r: resources(r)["limits"]["nvidia.com/gpu"], "1", id="one GPU"),
        pytest.param(
            "", {"cls": MIG}, lambda r: resources(r)["limits"]["nvidia.com/mig-3g.20gb"], "1", id="one slice"
        ),
        pytest.param(
            "", {"cls": CPU}, lambda r: "nvidia" in str(resources(r)) + str(r.pod["tolerations"]), False, id="no GPU"
        ),
        pytest.param(
            "", {"cls": CPU}, lambda r: environment(r)["NVIDIA_VISIBLE_DEVICES"], "void", id="and sees none"
        ),
        pytest.param(
            "",
            {},
            lambda r: (resources(r)["requests"]["memory"], resources(r)["limits"]["memory"]),
            ("16Gi", "32Gi"),
            id="the guide's memory",
        ),
        pytest.param(
            "", {"cls": SMALL}, lambda r: resources(r)["requests"]["cpu"], "2", id="few cores for one worker"
        ),
        pytest.param(
            "resources: {requests: {memory: 20Gi}}",
            {},
            lambda r: "memory" in resources(r)["limits"],
            False,
            id="a request alone gets no limit that might contradict it",
        ),
        pytest.param(
            "resources: {limits: {cpu: '4', memory: 4Gi}}",
            {},
            lambda r: resources(r)["requests"],
            {"cpu": "4", "memory": "4Gi", "nvidia.com/gpu": "1"},
            id="a limit alone is the request",
        ),
        pytest.param(
            "resources: {requests: {ephemeral-storage: 30Gi}}",
            {},
            lambda r: resources(r)["requests"]["ephemeral-storage"],
            "30Gi",
            id="disk",
        ),
        pytest.param(
            "",
            {},
            lambda r: r.volumes["shm"],
            {"emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}},
            id="the guide's shared memory",
        ),
        pytest.param(
            "resources: {sharedMemory: 2Gi}",
            {},
            lambda r: r.volumes["shm"]["emptyDir"]["sizeLimit"],
            "2Gi",
            id="shared memory as asked",
        ),
        pytest.param(
            "resources: {limits: {memory: 3Gi}}",
            {},
            lambda r: r.volumes["shm"]["emptyDir"]["sizeLimit"],
            "1536Mi",
            id="at most half of a small limit",
        ),
        pytest.param(
            "", {}, lambda r: r.mounts(r.runtime)["/dev/shm"]["name"], "shm", id="where the runtime uses it"
        ),
        pytest.param(
            "resources: {ompThreads: 6}", {}, lambda r: environment(r)["OMP_NUM_THREADS"], "6", id="threads"
        ),
        pytest.param("", {}, lambda r: environment(r)["OMP_NUM_THREADS"], "2", id="threads as planned"),
        pytest.param("", {}, lambda r: environment(r)["OMP_WAIT_POLICY"], "PASSIVE", id="threads that wait asleep"),
        pytest.param(
            "resources: {ncclIBDisable: true}",
            {},
            lambda r: environment(r)["NCCL_IB_DISABLE"],
            "1",
            id="no InfiniBand",
        ),
        pytest.param(
            "",
            {},
            lambda r: r.pod["terminationGracePeriodSeconds"] >= 300 + 5,
            True,
            id="grace covers the longest request",
        ),
        pytest.param(
            "server: {timeout: 600}",
            {},
            lambda r: r.pod["terminationGracePeriodSeconds"] >= 605,
            True,
            id="grace follows the deadline of requests",
        ),
        pytest.param(
            "rollout: {drain: {maxStreamSeconds: 20}}",
            {},
            lambda r: 25 <= r.pod["terminationGracePeriodSeconds"] <= 60,
            True,
            id="grace follows the drain",
        ),
        pytest.param("", {}, lambda r: list(r.runtime["lifecycle"]["preStop"]), ["exec"], id="preStop by exec"),
        pytest.param(
            "",
            {},
            lambda r: {c["whenUnsatisfiable"] for c in r.pod["topologySpreadConstraints"]},
            {"ScheduleAnyway"},
            id="spread, but never at the price of not running",
        ),
        pytest.param(
            "", {}, lambda r: r.runtime["image"], "registry.example/runtime:1.2.3", id="the release's image"
        ),
        pytest.param("runtime: {image: 'mine:2'}", {}, lambda r: r.runtime["image"], "mine:2", id="the user's image"),
        pytest.param(
            "runtime: {imagePullSecrets: [{name: reg}]}",
            {"image_pull_secrets": ("base", "reg")},
            lambda r: r.pod["imagePullSecrets"],
            [{"name": "base"}, {"name": "reg"}],
            id="pull secrets of both",
        ),
        pytest.param("pod: {serviceAccountName: sa}", {}, lambda r: r.pod["serviceAccountName"], "sa", id="account"),
        pytest.param("pod: {priorityClassName: p}", {}, lambda r: r.pod["priorityClassName"], "p", id="priority"),
        pytest.param(
            "pod: {runtimeClassName: nvidia}", {}, lambda r: r.pod["runtimeClassName"], "nvidia", id="runtime class"
        ),
        pytest.param(
            "pod: {nodeSelector: {disk: ssd}}",
            {},
            lambda r: r.pod["nodeSelector"],
            {"disk": "ssd"},
            id="node selector",
        ),
        pytest.param(
            "pod: {labels: {team: a}}", {}, lambda r: r.template["metadata"]["labels"]["team"], "a", id="labels"
        ),
        pytest.param(
            "pod: {annotations: {note: a}}",
            {},
            lambda r: r.template["metadata"]["annotations"]["note"],
            "a",
            id="annotations",
        ),
        pytest.param(
            "",
            {},
            lambda r: toleration(r, "nvidia.com/gpu"),
            [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            id="the GPU's taint",
        ),
        pytest.param(
            "", {"cls": MIG}, lambda r: len(toleration(r, "nvidia.com/mig-3g.20gb")), 1, id="the slice's taint"
        ),
        pytest.param(
            "",
            {},
            lambda r: toleration(r, "node.kubernetes.io/unreachable")[0]["tolerationSeconds"],
            30,
            id="a lost node is left after 30 s",
        ),
        pytest.param(
            "pod: {tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, "
            "tolerationSeconds: 300}]}",
            {},
            lambda r: [one["tolerationSeconds"] for one in toleration(r, "node.kubernetes.io/unreachable")],
            [300],
            id="unless the user says otherwise",
        ),
        pytest.param(
            "pod: {tolerations: [{operator: Exists}]}",
            {},
            lambda r: toleration(r, "node.kubernetes.io/not-ready"),
            [],
            id="or tolerates everything",
        ),
        pytest.param("", {"cls": CPU}, lambda r: "affinity" in r.pod, False, id="the CPU class goes anywhere"),
        pytest.param(
            "network: {apiKeySecretRef: {name: keys, key: k}}",
            {},
            lambda r: r.runtime["args"][-2:],
            ["--api-key-file", "/etc/ttsfleet-api-key/key"],
            id="API key",
        ),
        pytest.param("", {}, lambda r: "--api-key-file" in r.runtime["args"], False, id="no API key"),
    ],
)
def test_fact_about_the_pod(more: str, options: dict[str, Any], fact: Fact, expected: object, render) -> None:  # type: ignore[no-untyped-def]
    assert fact(render(more, **options)) == expected


def test_probes_wait_for_the_model_and_then_look_often(render) -> None:  # type: ignore[no-untyped-def]
    runtime = render().runtime
    startup = runtime["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1800
    assert startup["httpGet"]["path"] == runtime["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert runtime["livenessProbe"]["httpGet"]["path"] == "/livez"
    ports = {port["name"]: port["containerPort"] for port in runtime["ports"]}
    assert ports == {"http": 8080, "metrics": 8081}
    assert {runtime[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "readiness", "liveness")} == {
        "metrics"
    }


def test_grace_is_longer_than_the_runtimes_own_drain(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render("rollout: {drain: {maxStreamSeconds: 120}}")
    pause = int(rendered.runtime["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert "drain_seconds: 120.0\n" in rendered.one("ConfigMap")["data"]["engine.yaml"]
    assert rendered.pod["terminationGracePeriodSeconds"] > pause + 120 + 2


def test_class_decides_the_nodes_in_every_spelling(render) -> None:  # type: ignore[no-untyped-def]
    affinity = render(cls="{name: ada, gpu: {products: [rtx-4090], memoryMiB: {min: 22000}}}").pod["affinity"]
    terms = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    (discovery,) = (term for term in terms if term["matchExpressions"][0]["key"] == "nvidia.com/gpu.product")
    product, memory = discovery["matchExpressions"][:2]
    assert {"NVIDIA-GeForce-RTX-4090", "NVIDIA-GeForce-RTX-4090-SHARED"} <= set(product["values"])
    assert (memory["key"], memory["operator"]) == ("nvidia.com/gpu.memory", "Gt")
    keys = {term["matchExpressions"][0]["key"] for term in terms}
    assert {"cloud.google.com/gke-accelerator", "gpu.nvidia.com/model"} <= keys


def test_changed_content_of_a_referenced_config_map_changes_the_pods(render) -> None:  # type: ignore[no-untyped-def]
    more = "network: {caBundleConfigMapRef: {name: ca, key: ca.crt}}"
    before, again, after = (render(more, references={"ca": text}).template for text in ("1", "1", "2"))
    assert before == again
    assert before["metadata"]["annotations"] != after["metadata"]["annotations"]


def test_user_labels_never_displace_ours(render) -> None:  # type: ignore[no-untyped-def]
    labels = render("pod: {labels: {team: a}}").template["metadata"]["labels"]
    assert {"ttsfleet.dev/service": "narrator", "ttsfleet.dev/class": "ada"}.items() <= labels.items()
