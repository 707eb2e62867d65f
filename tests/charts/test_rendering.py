"""What the chart renders: a table of values and the facts that follow from them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ttsfleet_operator.fleet.settings import ConfigMapKey
from ttsfleet_operator.operator_settings import LEASE_NAME, PREFIX, read_settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "ttsfleet"
NAMESPACE = "ttsfleet-system"
Objects = dict[tuple[str, str], dict[str, Any]]
Template = Callable[..., Objects]

DIGEST = "sha256:" + "0" * 64
NAMESPACED = {"watchNamespaces": ["speech", "news"]}
EVERYTHING = {
    "watchNamespaces": ["speech"],
    "imagePullSecrets": [{"name": "reg"}],
    "runtime": {"image": {"digest": DIGEST, "pullPolicy": "Always"}, "imagePullSecrets": ["reg", "other"]},
    "replicas": 1,
    "leaderElection": {"enabled": False},
    "reconcile": {"workers": 200, "resyncSeconds": 86400, "probeSeconds": 7},
    "mirrors": {"huggingFace": "https://hub.example.com", "modelScope": "https://scope.example.com"},
    "proxy": {"http": "http://p:1", "https": "http://p:2", "noProxy": "a,.b"},
    "caBundle": {"configMapName": "corporate-ca", "key": "bundle.pem"},
    "monitoring": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "networkPolicy": {"metricsFrom": [{"podSelector": {}}], "apiServer": {"cidrs": ["10.0.0.0/8"]}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "policies": {"images": {"allowed": ["registry.example.com/speech/"]}},
    "priorityClassName": "high",
    "podLabels": {"team": "speech"},
    "podAnnotations": {"note": "1"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "infra", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
}


def deployment(objects: Objects) -> dict[str, Any]:
    return objects["Deployment", "ttsfleet"]


def container(objects: Objects) -> dict[str, Any]:
    (only,) = deployment(objects)["spec"]["template"]["spec"]["containers"]
    result: dict[str, Any] = only
    return result


def environment(objects: Objects) -> dict[str, str]:
    fixed = {"metadata.namespace": NAMESPACE, "metadata.name": "ttsfleet-0"}
    return {
        one["name"]: one["value"] if "value" in one else fixed[one["valueFrom"]["fieldRef"]["fieldPath"]]
        for one in container(objects)["env"]
    }


def rules(objects: Objects, *kinds: str) -> Iterator[tuple[str, str, str]]:
    """(object, resource, verb) of what the operator is granted."""
    for (kind, name), one in objects.items():
        if kind in kinds and not name.endswith(("-edit", "-view")):
            for rule in one["rules"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        yield name, resource, verb


def verbs(objects: Objects, resource: str, *kinds: str) -> set[str]:
    return {verb for _, one, verb in rules(objects, *(kinds or ("ClusterRole", "Role"))) if one == resource}


def image(objects: Objects) -> str:
    text: str = container(objects)["image"]
    return text


def policies(objects: Objects) -> set[str]:
    return {name for kind, name in objects if kind == "ValidatingAdmissionPolicy"}


def allowed_images(objects: Objects) -> str:
    variables = objects["ValidatingAdmissionPolicy", "ttsfleet-images"]["spec"]["variables"]
    return next(one["expression"] for one in variables if one["name"] == "allowed")


Fact = Callable[[Objects], object]
FACTS = [
    pytest.param({}, image, "ttsfleet/operator:0.1.0", id="the tag is the release"),
    pytest.param({"image": {"tag": "1.2"}}, image, "ttsfleet/operator:1.2", id="a tag"),
    pytest.param(
        {"image": {"tag": "1.2", "digest": DIGEST}}, image, f"ttsfleet/operator@{DIGEST}", id="a digest beats a tag"
    ),
    pytest.param(
        {"runtime": {"image": {"repository": "reg:5000/x", "digest": DIGEST}}},
        lambda objects: environment(objects)["TTSFLEET_RUNTIME_IMAGE"],
        f"reg:5000/x@{DIGEST}",
        id="the runtime by digest",
    ),
    pytest.param({}, lambda objects: deployment(objects)["spec"]["replicas"], 2, id="two replicas"),
    pytest.param(
        {"caBundle": {"key": "bundle.pem"}},
        lambda objects: [name for name in environment(objects) if "CA_BUNDLE" in name],
        [],
        id="no private CA without a ConfigMap",
    ),
    pytest.param({}, lambda objects: ("PodDisruptionBudget", "ttsfleet") in objects, True, id="a budget"),
    pytest.param(
        {"replicas": 1},
        lambda objects: ("PodDisruptionBudget", "ttsfleet") in objects,
        False,
        id="no budget that would block a drain at one replica",
    ),
    pytest.param(
        {"priorityClassName": "high"},
        lambda objects: deployment(objects)["spec"]["template"]["spec"]["priorityClassName"],
        "high",
        id="a priority class",
    ),
    pytest.param(
        {},
        lambda objects: verbs(objects, "servicemonitors"),
        {"get", "list", "create", "patch", "delete"},
        id="service monitors",
    ),
    pytest.param(
        {"serviceMonitors": {"enabled": False}},
        lambda objects: (verbs(objects, "servicemonitors"), read_settings(environment(objects)).service_monitors),
        (set(), False),
        id="no service monitors, and the operator knows",
    ),
    pytest.param(
        {"rbac": {"nodes": False}},
        lambda objects: (verbs(objects, "nodes"), read_settings(environment(objects)).read_nodes),
        (set(), False),
        id="no nodes, and the operator knows",
    ),
    pytest.param(
        {},
        lambda objects: objects["Role", "default/ttsfleet-api-server"]["rules"],
        [
            {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "resourceNames": ["kubernetes"],
                "verbs": ["get"],
            }
        ],
        id="where the API server listens, and nothing else there",
    ),
    pytest.param(
        {"rbac": {"apiServerAddresses": False}},
        lambda objects: verbs(objects, "endpointslices"),
        set(),
        id="no look at where the API server listens",
    ),
    pytest.param(
        {"rbac": {"create": False}},
        lambda objects: {kind for kind, _ in objects if "Role" in kind},
        set(),
        id="no roles",
    ),
    pytest.param(
        {"rbac": {"aggregateToDefaultRoles": False}},
        lambda objects: [name for kind, name in objects if name.endswith(("-edit", "-view"))],
        [],
        id="no roles for users",
    ),
    pytest.param(
        {"serviceAccount": {"create": False, "name": "given"}},
        lambda objects: (
            [name for kind, name in objects if kind == "ServiceAccount"],
            deployment(objects)["spec"]["template"]["spec"]["serviceAccountName"],
            objects["ClusterRoleBinding", "ttsfleet"]["subjects"][0]["name"],
        ),
        ([], "given", "given"),
        id="a given service account",
    ),
    pytest.param(
        {}, policies, {"ttsfleet-permissions", "ttsfleet-images", "ttsfleet-reserved-keys"}, id="all policies"
    ),
    pytest.param(
        {"policies": {"permissions": {"enabled": False}, "images": {"enabled": False}}},
        policies,
        {"ttsfleet-reserved-keys"},
        id="policies are gated one by one",
    ),
    pytest.param({}, allowed_images, "['ttsfleet/runtime']", id="the release's image is allowed"),
    pytest.param(
        {"policies": {"images": {"allowed": ["reg.example.com/speech/", "ttsfleet/runtime"]}}},
        allowed_images,
        "['ttsfleet/runtime', 'reg.example.com/speech/']",
        id="more images, each once",
    ),
    pytest.param(
        {"crds": {"enabled": False}},
        lambda objects: [name for kind, name in objects if kind == "CustomResourceDefinition"],
        [],
        id="no definitions",
    ),
    pytest.param(
        {},
        lambda objects: objects["NetworkPolicy", "ttsfleet"]["spec"]["ingress"][0]["from"],
        [{"namespaceSelector": {}}],
        id="metrics for every pod and for nobody outside",
    ),
    pytest.param(
        {"networkPolicy": {"metricsFrom": [{"podSelector": {}}]}},
        lambda objects: {"podSelector": {}} in objects["NetworkPolicy", "ttsfleet"]["spec"]["ingress"][0]["from"],
        True,
        id="metrics for who is named",
    ),
    pytest.param(
        {"networkPolicy": {"enabled": False}},
        lambda objects: ("NetworkPolicy", "ttsfleet") in objects,
        False,
        id="no network policy",
    ),
    pytest.param(
        {"fullnameOverride": "speech"},
        lambda objects: {
            name.removeprefix("default/").split("-")[0]
            for kind, name in objects
            if kind != "CustomResourceDefinition"
        },
        {"speech"},
        id="every name changes together",
    ),
]


@pytest.mark.parametrize(("values", "fact", "expected"), FACTS)
def test_values_become(template: Template, values: Mapping[str, Any], fact: Fact, expected: object) -> None:
    assert fact(template(values)) == expected


def test_unknown_value_is_refused_with_its_name(helm: Path) -> None:
    command = [helm, "template", "x", CHART, "--kube-version", "1.36", "--set", "image.tga=1"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "'tga' not allowed" in refused.stderr


def test_lint_passes_strictly(helm: Path) -> None:
    linted = subprocess.run([helm, "lint", "--strict", CHART], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("values", [pytest.param({}, id="defaults"), pytest.param(EVERYTHING, id="everything")])
def test_the_operator_accepts_the_environment_and_reads_all_of_it(template: Template, values: dict[str, Any]) -> None:
    asked: set[str] = set()

    class Recorded(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return super().get(key, default)

    settings = read_settings(Recorded(environment(template(values))))
    unread = {name for name in environment(template(values)) if name not in asked}
    assert unread == set()
    assert settings.namespace == NAMESPACE
    assert settings.identity == "ttsfleet-0"


def test_every_setting_of_the_environment_reaches_the_operator(template: Template) -> None:
    settings = read_settings(environment(template(EVERYTHING)))
    fleet = settings.fleet
    assert settings.watch_namespaces == ("speech",)
    assert settings.leader_election is False
    assert (settings.workers, settings.resync_seconds, settings.probe_seconds) == (200, 86400, 7)
    assert fleet.runtime_image == f"ttsfleet/runtime@{DIGEST}"
    assert fleet.image_pull_policy == "Always"
    assert fleet.image_pull_secrets == ("reg", "other")
    assert (fleet.hugging_face_endpoint, fleet.model_scope_endpoint) == (
        "https://hub.example.com",
        "https://scope.example.com",
    )
    assert (fleet.http_proxy, fleet.https_proxy, fleet.no_proxy) == ("http://p:1", "http://p:2", "a,.b")
    assert fleet.ca_bundle == ConfigMapKey("corporate-ca", "bundle.pem")


def test_settings_that_values_do_not_reach_are_known(template: Template) -> None:
    source = (ROOT / "operator" / "ttsfleet_operator" / "operator_settings.py").read_text()
    read = {PREFIX + name for name in re.findall(r'reader\.\w+\("([A-Z_]+)"', source)}
    unreached = read - set(environment(template(EVERYTHING)))
    assert {name.removeprefix(PREFIX) for name in unreached} <= {
        "HEALTH_ADDRESS",  # the chart's probes and Service know the default ports
        "METRICS_ADDRESS",
        "KUBE_CONTEXT",  # for an operator outside of a cluster
    }


def test_ports_are_those_that_the_operator_listens_on(template: Template) -> None:
    objects = template()
    settings = read_settings(environment(objects))
    ports = {port["name"]: port["containerPort"] for port in container(objects)["ports"]}
    assert ports == {"metrics": settings.metrics.port, "health": settings.health.port}


@pytest.mark.parametrize("values", [pytest.param({}, id="defaults"), pytest.param(EVERYTHING, id="everything")])
def test_pod_is_restricted(template: Template, values: dict[str, Any]) -> None:
    pod = deployment(template(values))["spec"]["template"]["spec"]
    security = pod["containers"][0]["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} == {"emptyDir"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


@pytest.mark.parametrize("values", [pytest.param({}, id="cluster-wide"), pytest.param(NAMESPACED, id="namespaced")])
def test_operator_holds_no_verb_on_what_it_must_not_touch(template: Template, values: dict[str, Any]) -> None:
    granted = list(rules(template(values), "ClusterRole", "Role"))
    resources = {resource for _, resource, _ in granted}
    forbidden = {"secrets", "roles", "clusterroles", "rolebindings", "clusterrolebindings", "pods/exec", "*"}
    assert resources & (forbidden | {"serviceaccounts", "serviceaccounts/token", "namespaces"}) == set()
    assert {verb for _, _, verb in granted} & {"*", "bind", "escalate", "impersonate", "deletecollection"} == set()
    assert {resource for _, resource, verb in granted if verb == "update"} == {"leases"}


@pytest.mark.parametrize("values", [pytest.param({}, id="cluster-wide"), pytest.param(NAMESPACED, id="namespaced")])
def test_operator_never_writes_to_what_users_own(template: Template, values: dict[str, Any]) -> None:
    objects = template(values)
    assert verbs(objects, "ttsservices") == {"list", "watch"}
    assert verbs(objects, "ttsservices/status") == {"patch"}
    assert verbs(objects, "pods") == {"list"}
    assert verbs(objects, "horizontalpodautoscalers") == {"list"}


def test_namespaced_mode_keeps_only_nodes_and_profiles_cluster_wide(template: Template) -> None:
    objects = template(NAMESPACED)
    cluster_wide = {(resource, verb) for _, resource, verb in rules(objects, "ClusterRole")}
    reading = {"list", "watch"}
    assert cluster_wide == {(kind, verb) for kind in ("nodes", "ttsgpuprofiles") for verb in reading}


def test_namespaced_mode_grants_in_each_namespace_what_the_cluster_role_held(template: Template) -> None:
    cluster_wide = {(resource, verb) for _, resource, verb in rules(template(), "ClusterRole")}
    namespaced = list(rules(template(NAMESPACED), "Role"))
    for namespace in NAMESPACED["watchNamespaces"]:
        here = {(resource, verb) for name, resource, verb in namespaced if name.startswith(f"{namespace}/")}
        assert here == {one for one in cluster_wide if one[0] not in ("nodes", "ttsgpuprofiles")}


def test_namespaced_policies_bind_to_the_watched_namespaces_only(template: Template) -> None:
    objects = template(NAMESPACED)
    bindings = [one["spec"] for (kind, _), one in objects.items() if kind == "ValidatingAdmissionPolicyBinding"]
    selectors = [one["matchResources"]["namespaceSelector"]["matchExpressions"] for one in bindings]
    watched = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": NAMESPACED["watchNamespaces"]}
    assert selectors == [[watched]] * 3


def test_two_namespaced_installations_share_no_cluster_scoped_name(helm: Path) -> None:
    def names(namespace: str) -> set[tuple[str, str]]:
        command = [helm, "template", "ttsfleet", CHART, "-n", namespace, "--kube-version", "1.36"]
        command += ["--set", "watchNamespaces={speech}", "--set", "crds.enabled=false"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        objects = [one for one in yaml.safe_load_all(text) if one]
        return {(one["kind"], one["metadata"]["name"]) for one in objects if "namespace" not in one["metadata"]}

    assert names("first") & names("second") == set()


def test_lease_is_the_one_that_the_operator_asks_for(template: Template) -> None:
    create, hold = template()["Role", "ttsfleet-lease"]["rules"]
    assert create["verbs"] == ["create"]
    assert hold["resourceNames"] == [LEASE_NAME]
    assert hold["verbs"] == ["get", "update"]


def test_without_leader_election_two_operators_never_run_at_once(template: Template) -> None:
    objects = template({"leaderElection": {"enabled": False}, "replicas": 1})
    assert deployment(objects)["spec"]["strategy"] == {"type": "Recreate"}
    assert verbs(objects, "leases") == set()


def test_more_operators_than_one_need_leader_election(helm: Path) -> None:
    command = [helm, "template", "x", CHART, "--kube-version", "1.36", "--set", "leaderElection.enabled=false"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "replicas is 2 and leaderElection.enabled is false" in refused.stderr


def test_service_monitor_appears_only_on_demand(template: Template) -> None:
    assert not [kind for kind, _ in template() if kind == "ServiceMonitor"]
    monitor = template(EVERYTHING)["ServiceMonitor", "ttsfleet"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_pod_template_depends_on_values_only(helm: Path, generator: ModuleType, template: Template) -> None:
    labels = deployment(template())["spec"]["template"]["metadata"]["labels"]
    assert set(labels) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    assert generator.render(helm) == generator.render(helm)
