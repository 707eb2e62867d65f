"""The commands in docs/operator.md, "Looking at a service", name what the operator and the chart really make."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.engine_config import MANAGEMENT_PORT
from ttsfleet_operator.fleet.plan import plan_fleet
from ttsfleet_operator.fleet.settings import FleetSettings, References
from ttsfleet_operator.manifests.fleet_objects import render_fleet
from ttsfleet_operator.manifests.pod_template import pod_template
from ttsfleet_operator.profiles import builtin_profiles

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "docs" / "operator.md").read_text().partition("## Looking at a service\n")[2].partition("\n## ")[0]
SERVICE = """\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {name: narrator, namespace: speech}
spec:
  model: {source: {huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B}}}
  hardware: {classes: [{name: ada, gpu: {products: [NVIDIA-GeForce-RTX-4090]}}]}
"""
SHORT = {"svc": "Service", "deploy": "Deployment"}


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    settings = FleetSettings(release="1.2.3", runtime_image="registry.example/runtime:1.2.3")
    service = parse_services(SERVICE)[0]
    plan = plan_fleet(service, builtin_profiles(), None, {}, settings, References(), pod_template)
    return render_fleet(plan, settings)


def commands() -> list[str]:
    return re.findall(r"^(?:kubectl|curl|ttsfleet) .*", SECTION, re.MULTILINE)


def pod_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (deployment,) = [one for one in objects if one["kind"] == "Deployment"]
    found: dict[str, Any] = deployment["spec"]["template"]
    return found


def test_the_section_has_commands() -> None:
    assert len(commands()) >= 12


def test_objects_that_are_named_are_made(objects: list[dict[str, Any]]) -> None:
    made = {(one["kind"], one["metadata"]["name"]) for one in objects}
    named = {(SHORT[kind], name) for kind, name in re.findall(r"\b(svc|deploy)/([a-z-]+)", "\n".join(commands()))}
    assert named == {("Service", "narrator"), ("Deployment", "narrator-ada")}
    assert named <= made
    assert {one["metadata"]["namespace"] for one in objects} == {"speech"}


def test_forwarded_ports_are_open(objects: list[dict[str, Any]]) -> None:
    (service,) = [one for one in objects if one["kind"] == "Service"]
    assert re.findall(r"svc/narrator \d+:(\d+)", SECTION) == [str(service["spec"]["ports"][0]["port"])]
    assert re.findall(r"deploy/narrator-ada (\d+)", SECTION) == [str(MANAGEMENT_PORT)]


def test_selectors_of_pods_select_them(objects: list[dict[str, Any]]) -> None:
    labels = pod_of(objects)["metadata"]["labels"]
    selectors = re.findall(r"-l (ttsfleet\.dev\S+)", "\n".join(commands()))
    assert len(selectors) >= 3
    for selector in selectors:
        assert dict(pair.split("=") for pair in selector.split(",")).items() <= labels.items()


def test_every_child_has_the_label_of_its_service(objects: list[dict[str, Any]]) -> None:
    assert {one["metadata"]["labels"]["ttsfleet.dev/service"] for one in objects} == {"narrator"}


def test_containers_whose_logs_are_asked_for_are_there(objects: list[dict[str, Any]]) -> None:
    spec = pod_of(objects)["spec"]
    names = {one["name"] for one in (*spec["containers"], *spec.get("initContainers", ()))}
    assert set(re.findall(r" -c ([a-z]+)", "\n".join(commands()))) == names == {"runtime", "fetch"}


def test_operators_pods_have_the_label() -> None:
    install = (ROOT / "operator" / "ttsfleet_operator" / "install" / "operator.yaml").read_text()
    (deployment,) = [one for one in yaml.safe_load_all(install) if one and one["kind"] == "Deployment"]
    selectors = re.findall(r"-n ttsfleet-system -l (\S+)=(\S+)", SECTION)
    assert selectors
    assert dict(selectors).items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["metadata"]["namespace"] == "ttsfleet-system"


def test_short_name_is_defined() -> None:
    (definition,) = [
        one
        for one in yaml.safe_load_all((ROOT / "crds" / "ttsfleet.dev_ttsservices.yaml").read_text())
        if one and one["kind"] == "CustomResourceDefinition"
    ]
    assert "tts" in definition["spec"]["names"]["shortNames"]
