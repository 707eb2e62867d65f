"""The installation without Helm, and the GitOps examples, against what the chart renders."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane import binaries
from ttsfleet_operator.api.manifest import load_services
from ttsfleet_operator.cli import main
from ttsfleet_operator.cli.install_rendering import install_manifests

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "gitops"
Objects = dict[tuple[str, str], dict[str, Any]]
NAMESPACE = ("Namespace", "ttsfleet-system")


def by_name(text: str) -> Objects:
    return {(one["kind"], _qualified(one["metadata"])): one for one in yaml.safe_load_all(text) if one}


def _qualified(metadata: dict[str, Any]) -> str:
    """The name; in the namespace `default` with it, as the fixture `template` has it."""
    name: str = metadata["name"]
    return f"default/{name}" if metadata.get("namespace") == "default" else name


@pytest.fixture(scope="module")
def kubectl() -> Path:
    if binaries.missing(("kubectl",)):
        pytest.skip(f"kubectl is not built; `{binaries.BUILD_COMMAND}` builds it")
    return binaries.path_of("kubectl")


@pytest.fixture(scope="module")
def chart(template: Callable[..., Objects]) -> Objects:
    return template({"crds": {"keep": False}})


def build(kubectl: Path, folder: Path) -> Objects:
    return by_name(subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True).stdout)


def test_rendered_installation_is_the_chart_and_its_namespace(chart: Objects) -> None:
    rendered = by_name(install_manifests())
    assert rendered.pop(NAMESPACE)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert rendered == chart


def test_kustomization_is_the_rendered_installation(kubectl: Path) -> None:
    assert build(kubectl, ROOT / "charts" / "kustomize") == by_name(install_manifests())


def test_command_prints_the_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--install"]) == 0
    assert capsys.readouterr().out == install_manifests()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param([], "give a TTSService with -f, or --install", id="neither"),
        pytest.param(["--install", "-f", "x.yaml"], "give one of them", id="both"),
    ],
)
def test_command_wants_a_service_or_the_installation(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["render", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_definitions_in_the_chart_differ_by_the_keep_annotation_only(template: Callable[..., Objects]) -> None:
    kept, plain = template(), template({"crds": {"keep": False}})
    definitions = [key for key in kept if key[0] == "CustomResourceDefinition"]
    assert len(definitions) == 2
    for key in definitions:
        assert kept[key]["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert kept[key] == plain[key]


@pytest.mark.parametrize("folder", [pytest.param(path, id=path.parent.name) for path in EXAMPLES.glob("*/fleet")])
def test_gitops_example_folder_holds_valid_services(kubectl: Path, folder: Path) -> None:
    built = build(kubectl, folder)
    assert [kind for kind, _ in built].count("TTSService") == 1
    manifests = [path for path in folder.glob("*.yaml") if "kind: TTSService" in path.read_text()]
    assert [service.name for path in manifests for service in load_services(path)] == [
        name for kind, name in built if kind == "TTSService"
    ]


def test_argo_cd_applies_on_the_servers_side_and_leaves_replicas_to_the_autoscaler() -> None:
    application = by_name((EXAMPLES / "argocd" / "applications.yaml").read_text())
    options = {key: one["spec"]["syncPolicy"]["syncOptions"] for key, one in application.items()}
    assert all("ServerSideApply=true" in one for one in options.values())
    fleet = application["Application", "speech-fleet"]["spec"]
    assert {"group": "ttsfleet.dev", "kind": "TTSService", "jsonPointers": ["/spec/replicas"]} in fleet[
        "ignoreDifferences"
    ]
    assert "RespectIgnoreDifferences=true" in fleet["syncPolicy"]["syncOptions"]


@pytest.mark.parametrize("key", ["valuesObject", "values"])
def test_values_of_the_gitops_examples_are_accepted_by_the_chart(template: Callable[..., Objects], key: str) -> None:
    if key == "valuesObject":
        application = by_name((EXAMPLES / "argocd" / "applications.yaml").read_text())["Application", "ttsfleet"]
        values = application["spec"]["source"]["helm"]["valuesObject"]
    else:
        release = by_name((EXAMPLES / "flux" / "operator.yaml").read_text())["HelmRelease", "ttsfleet"]
        values = release["spec"]["values"]
    assert ("Deployment", "ttsfleet") in template(values)
