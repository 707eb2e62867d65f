"""The pod of `helm test`: what it asks, as whom it runs, and that nothing takes it for an operator."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.cli import check_command
from ttsfleet_operator.fleet.settings import FleetSettings
from ttsfleet_operator.manifests.network_policy import network_policy
from ttsfleet_operator.manifests.service_children import SERVICE_PORT, api_service

Objects = dict[tuple[str, str], dict[str, Any]]
Template = Callable[..., Objects]
SPEAKS = {"test": {"service": "narrator", "namespace": "speech"}}
GUARDED = {"test": {**SPEAKS["test"], "apiKeySecretRef": {"name": "keys", "key": "narrator"}}}
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def tested(template: Template) -> Callable[..., Objects]:
    return lambda values=None: template(values, "--skip-tests=false")


def pod_of(objects: Objects) -> dict[str, Any]:
    return objects["Pod", "ttsfleet-test"]


def asked(objects: Objects) -> argparse.Namespace:
    """The command line as the command itself reads it."""
    (container,) = pod_of(objects)["spec"]["containers"]
    assert container["command"] == ["ttsfleet"]
    assert container["args"][0] == "check"
    parser = argparse.ArgumentParser(exit_on_error=False)
    check_command.add_arguments(parser)
    return parser.parse_args(container["args"][1:])


def narrator(policy: str = "") -> Any:
    text = f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator, namespace: speech}}
spec:
  model: {{source: {{builtin: {{name: tiny-en}}}}}}
  hardware: {{classes: [{{name: cpu, cpu: {{}}}}]}}
  network: {{{policy}}}
"""
    return parse_services(text)[0]


def test_without_a_service_only_the_operator_is_asked(tested: Template) -> None:
    command = asked(tested())
    assert command.operator == "http://ttsfleet-metrics.ttsfleet-system.svc.cluster.local:8080"
    assert command.url == ""


def test_operator_is_asked_where_its_service_listens(tested: Template) -> None:
    objects = tested({"fullnameOverride": "speech"})
    service = objects["Service", "speech-metrics"]
    (port,) = service["spec"]["ports"]
    assert objects["Pod", "speech-test"]["spec"]["containers"][0]["args"][1] == (
        f"--operator=http://{service['metadata']['name']}.{service['metadata']['namespace']}"
        f".svc.cluster.local:{port['port']}"
    )


def test_named_service_is_asked_at_the_address_that_the_operator_gives_it(tested: Template) -> None:
    command = asked(tested(SPEAKS))
    child = api_service(narrator())["metadata"]
    assert command.url == f"http://{child['name']}.{child['namespace']}.svc.cluster.local"
    assert SERVICE_PORT == 80
    assert (command.voice, command.api_key_file) == ("", None)


def test_service_without_a_namespace_is_in_that_of_the_release(tested: Template) -> None:
    assert asked(tested({"test": {"service": "narrator"}})).url == (
        "http://narrator.ttsfleet-system.svc.cluster.local"
    )


def test_texts_and_voices_reach_the_command_as_they_are(tested: Template) -> None:
    text = "Say: \"it's 5 o'clock\", twice - {{ .Values }} #1"
    values = {"test": {"service": "narrator", "text": text, "voice": "中文女", "timeoutSeconds": 20}}
    objects = tested(values | {"clusterDomain": "corp.example"})
    command = asked(objects)
    assert (command.text, command.voice, command.timeout) == (text, "中文女", 20.0)
    assert command.url.endswith(".svc.corp.example")
    assert pod_of(objects)["spec"]["activeDeadlineSeconds"] > command.timeout + command.wait


def test_key_is_a_file_that_the_pods_user_may_read(tested: Template) -> None:
    objects = tested(GUARDED)
    spec = pod_of(objects)["spec"]
    (mount,) = spec["containers"][0]["volumeMounts"]
    (volume,) = spec["volumes"]
    assert str(asked(objects).api_key_file) == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
    assert volume["secret"]["secretName"] == "keys"
    assert volume["secret"]["items"][0]["key"] == "narrator"
    assert volume["secret"]["defaultMode"] == 0o440
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]


def test_pod_goes_when_it_succeeded_and_when_it_is_run_again(tested: Template) -> None:
    assert pod_of(tested())["metadata"]["annotations"] == {
        "helm.sh/hook": "test",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
        "helm.sh/hook-output-log-policy": "hook-succeeded,hook-failed",
    }
    assert pod_of(tested())["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("values", [pytest.param({}, id="defaults"), pytest.param(GUARDED, id="with-a-key")])
def test_pod_is_restricted_and_holds_no_token(tested: Template, values: dict[str, Any]) -> None:
    spec = pod_of(tested(values))["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]) == {"requests", "limits"}
    assert {next(iter(set(volume) - {"name"})) for volume in spec.get("volumes", [])} <= {"secret"}


def test_nothing_takes_the_pod_for_an_operator(tested: Template) -> None:
    objects = tested({"monitoring": {"serviceMonitor": {"enabled": True}}})
    labels = pod_of(objects)["metadata"]["labels"].items()
    selectors = [
        objects["Deployment", "ttsfleet"]["spec"]["selector"]["matchLabels"],
        objects["PodDisruptionBudget", "ttsfleet"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy", "ttsfleet"]["spec"]["podSelector"]["matchLabels"],
        objects["Service", "ttsfleet-metrics"]["spec"]["selector"],
    ]
    assert [selector for selector in selectors if selector.items() <= labels] == []


def test_image_and_place_are_the_operators(tested: Template) -> None:
    values = {
        "image": {"repository": "reg.example.com/op", "digest": DIGEST, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "reg"}],
        "nodeSelector": {"pool": "infra"},
        "tolerations": [{"key": "infra", "operator": "Exists"}],
        "priorityClassName": "high",
    }
    objects = tested(values)
    operator = objects["Deployment", "ttsfleet"]["spec"]["template"]["spec"]
    pod = pod_of(objects)["spec"]
    for key in ("imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName"):
        assert pod[key] == operator[key]
    for key in ("image", "imagePullPolicy"):
        assert pod["containers"][0][key] == operator["containers"][0][key]


def test_values_of_the_test_restart_no_operator(tested: Template) -> None:
    first, second = tested(), tested(GUARDED)
    assert first["Deployment", "ttsfleet"] == second["Deployment", "ttsfleet"]


def test_policy_of_a_service_admits_the_pod_unless_its_callers_are_listed() -> None:
    settings = FleetSettings(release="1.2.3", runtime_image="r:1")
    api, _ = network_policy(narrator(), settings)["spec"]["ingress"]
    assert api.get("from", [{"namespaceSelector": {}}]) == [{"namespaceSelector": {}}]
    peer = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ttsfleet-system}}, podSelector: " + (
        "{matchLabels: {app.kubernetes.io/name: ttsfleet-test}}"
    )
    listed, _ = network_policy(narrator(f"policy: {{ingressFrom: [{{{peer}}}]}}"), settings)["spec"]["ingress"]
    assert listed["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "ttsfleet-test"}


def test_listed_readers_of_metrics_leave_the_pod_admitted(tested: Template) -> None:
    peer = {"podSelector": {"matchLabels": {"app": "prometheus"}}}
    objects = tested({"networkPolicy": {"metricsFrom": [peer]}})
    (rule,) = objects["NetworkPolicy", "ttsfleet"]["spec"]["ingress"]
    assert peer in rule["from"]
    labels = pod_of(objects)["metadata"]["labels"].items()
    admitted = [
        one["podSelector"]["matchLabels"].items() <= labels for one in rule["from"] if set(one) == {"podSelector"}
    ]
    assert True in admitted
