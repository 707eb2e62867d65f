"""The children of a service as a whole: which there are, how they are labelled and owned, in which order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ttsfleet_operator.fleet.bundle import bundle_data, read_bundle
from ttsfleet_operator.manifests.fleet_objects import render_fleet

TWO_CLASSES = "{name: ada, gpu: {products: [NVIDIA-GeForce-RTX-4090]}, maxReplicas: 1}, {name: cpu, cpu: {}}"
CLAIM = "cache: {claim: {size: 20Gi, storageClassName: fast, accessModes: [ReadWriteMany]}}"
SELECTED = {"app.kubernetes.io/name": "ttsfleet-runtime", "ttsfleet.dev/service": "narrator"}


def kinds(rendered: Any) -> list[str]:
    return [one["kind"] for one in rendered.objects]


def strategy(rendered: Any) -> tuple[int, int]:
    rolling = rendered.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    return rolling["maxSurge"], rolling["maxUnavailable"]


def test_what_a_pod_needs_is_applied_before_its_deployment(render) -> None:  # type: ignore[no-untyped-def]
    order = kinds(render("replicas: 3", cls=TWO_CLASSES, model=CLAIM, service_monitors=True))
    assert order.count("Deployment") == order.count("ConfigMap") == 2
    first = order.index("Deployment")
    assert {"ConfigMap", "PersistentVolumeClaim", "NetworkPolicy"} <= set(order[:first])
    assert not {"ConfigMap", "PersistentVolumeClaim", "NetworkPolicy"} & set(order[first:])


def test_equal_inputs_give_equal_bytes(any_source, render) -> None:  # type: ignore[no-untyped-def]
    first, again = (json.dumps(render(source=any_source).objects) for _ in range(2))
    assert first == again


def test_every_child_is_labelled_and_owned(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render("replicas: 3", cls=TWO_CLASSES, model="cache: {claim: {size: 1Gi, retain: false}}")
    for child in rendered.objects:
        metadata = child["metadata"]
        assert metadata["namespace"] == "speech"
        assert {**SELECTED, "app.kubernetes.io/managed-by": "ttsfleet"}.items() <= metadata["labels"].items()
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("TTSService", "7f0c", True)
        assert "blockOwnerDeletion" not in owner


def test_without_a_uid_nobody_is_referred_to(render) -> None:  # type: ignore[no-untyped-def]
    assert not any("ownerReferences" in child["metadata"] for child in render(uid="").objects)


def test_deployment_selector_holds_service_and_class_only(render) -> None:  # type: ignore[no-untyped-def]
    deployment = render().one("Deployment")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector == {"ttsfleet.dev/service": "narrator", "ttsfleet.dev/class": "ada"}
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_deployment_uses_the_config_map_of_its_plan(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render()
    config_map = rendered.one("ConfigMap")
    assert config_map["immutable"] is True
    assert config_map["metadata"]["name"] == f"narrator-ada-{rendered.plan.classes[0].bundle.hash}"
    assert rendered.volumes["engine"]["configMap"]["name"] == config_map["metadata"]["name"]


def test_plan_in_force_renders_the_same_pods_after_a_round_trip(any_source, render) -> None:  # type: ignore[no-untyped-def]
    rendered = render(source=any_source)
    bundle = rendered.plan.classes[0].bundle
    stored = read_bundle(bundle.digest, rendered.one("ConfigMap")["data"])
    assert stored == bundle
    assert bundle_data(stored).items() <= rendered.one("ConfigMap")["data"].items()


def test_rendering_changes_nothing_of_the_plan(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render()
    before = json.dumps(rendered.plan.classes[0].bundle.pod_template)
    again = render_fleet(rendered.plan, rendered.settings)
    assert json.dumps(rendered.plan.classes[0].bundle.pod_template) == before
    assert again == rendered.objects


@pytest.mark.parametrize(
    ("surge", "without", "expected"),
    [
        pytest.param("Auto", frozenset(), (1, 0), id="Auto begins with a surge pod"),
        pytest.param("Auto", frozenset({"ada"}), (0, 1), id="and goes without where it found no room"),
        pytest.param("Always", frozenset({"ada"}), (1, 0), id="Always"),
        pytest.param("Never", frozenset(), (0, 1), id="Never"),
    ],
)
def test_strategy_of_a_rollout(surge: str, without: frozenset[str], expected: tuple[int, int], render) -> None:  # type: ignore[no-untyped-def]
    assert strategy(render(f"rollout: {{surge: {surge}}}", without_surge=without)) == expected


def test_strategy_changes_no_template(render) -> None:  # type: ignore[no-untyped-def]
    assert render().template == render(without_surge=frozenset({"ada"})).template


def test_replicas_are_those_of_the_split(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render("replicas: 3", cls=TWO_CLASSES)
    replicas = {one["metadata"]["name"]: one["spec"]["replicas"] for one in rendered.of("Deployment")}
    assert replicas == {"narrator-ada": 1, "narrator-cpu": 2}


def test_class_that_cannot_run_has_no_deployment_and_stops_no_other(render) -> None:  # type: ignore[no-untyped-def]
    unknown = "{name: odd, gpu: {products: [NVIDIA-Unheard-Of]}}, {name: cpu, cpu: {}}"
    rendered = render(cls=unknown)
    assert [one["metadata"]["name"] for one in rendered.of("Deployment")] == ["narrator-cpu"]


def test_service_leads_to_the_api_and_not_to_the_management_port(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render("network: {service: {type: LoadBalancer, annotations: {lb: internal}}}")
    service = rendered.one("Service")
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    assert (service["spec"]["type"], service["metadata"]["annotations"]) == ("LoadBalancer", {"lb": "internal"})
    assert service["spec"]["selector"].items() <= rendered.template["metadata"]["labels"].items()


@pytest.mark.parametrize("replicas", [0, 1, 5])
def test_disruption_budget_lets_one_pod_go_at_any_size(replicas: int, render) -> None:  # type: ignore[no-untyped-def]
    spec = render(f"replicas: {replicas}").one("PodDisruptionBudget")["spec"]
    assert spec["maxUnavailable"] == 1
    assert "minAvailable" not in spec
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_retained_claim_has_no_owner_and_says_so(render) -> None:  # type: ignore[no-untyped-def]
    claim = render(model=CLAIM).one("PersistentVolumeClaim")
    assert "ownerReferences" not in claim["metadata"]
    assert claim["metadata"]["annotations"] == {"ttsfleet.dev/retain": "true"}
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "20Gi"}},
        "storageClassName": "fast",
    }


def test_claim_that_is_not_retained_goes_with_the_service(render) -> None:  # type: ignore[no-untyped-def]
    claim = render(model="cache: {claim: {size: 1Gi, retain: false}}").one("PersistentVolumeClaim")
    assert claim["metadata"]["ownerReferences"]
    assert "storageClassName" not in claim["spec"]


@pytest.mark.parametrize(
    ("wanted", "known", "count"),
    [
        pytest.param("Auto", True, 1, id="where the cluster has the kind"),
        pytest.param("Auto", False, 0, id="where it has not"),
        pytest.param("Enabled", False, 0, id="nor when it is wanted"),
        pytest.param("Disabled", True, 0, id="unless it is unwanted"),
    ],
)
def test_service_monitor(wanted: str, known: bool, count: int, render) -> None:  # type: ignore[no-untyped-def]
    rendered = render(f"monitoring: {{serviceMonitor: {wanted}}}", service_monitors=known)
    assert len(rendered.of("ServiceMonitor")) == count
    for monitor in rendered.of("ServiceMonitor"):
        labels = rendered.one("Service")["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert monitor["spec"]["endpoints"][0]["targetPort"] in {p["name"] for p in rendered.runtime["ports"]}
