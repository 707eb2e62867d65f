"""A TTSService as a few lines of YAML, rendered to its children, and look-ups in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pytest

from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.plan import FleetPlan, plan_fleet
from ttsfleet_operator.fleet.settings import FleetSettings, References, referenced_keys
from ttsfleet_operator.manifests.fleet_objects import render_fleet
from ttsfleet_operator.manifests.pod_template import pod_template
from ttsfleet_operator.profiles import builtin_profiles

Manifest: TypeAlias = dict[str, Any]
SETTINGS = FleetSettings(release="1.2.3", runtime_image="registry.example/runtime:1.2.3")
HUB = "{huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B}}"
GPU_CLASS = "{name: ada, gpu: {products: [NVIDIA-GeForce-RTX-4090]}}"


@dataclass(frozen=True)
class Rendered:
    """The children of one service."""

    service: TTSService
    plan: FleetPlan
    settings: FleetSettings
    objects: list[Manifest]

    def of(self, kind: str) -> list[Manifest]:
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str) -> Manifest:
        (found,) = self.of(kind)
        return found

    @property
    def pod(self) -> Manifest:
        """The pod spec of the only class."""
        spec: Manifest = self.one("Deployment")["spec"]["template"]["spec"]
        return spec

    @property
    def template(self) -> Manifest:
        found: Manifest = self.one("Deployment")["spec"]["template"]
        return found

    @property
    def runtime(self) -> Manifest:
        container: Manifest = self.pod["containers"][0]
        return container

    @property
    def fetch(self) -> Manifest | None:
        containers = self.pod.get("initContainers", [])
        return containers[0] if containers else None

    @property
    def volumes(self) -> dict[str, Manifest]:
        """Volume sources by name."""
        return {one["name"]: {k: v for k, v in one.items() if k != "name"} for one in self.pod["volumes"]}

    @staticmethod
    def mounts(container: Manifest) -> dict[str, Manifest]:
        return {one["mountPath"]: one for one in container["volumeMounts"]}

    @staticmethod
    def environment(container: Manifest) -> dict[str, str]:
        return {one["name"]: one["value"] for one in container["env"]}


Render: TypeAlias = Callable[..., Rendered]


@pytest.fixture(scope="session")
def render() -> Render:
    """render(spec lines, source=, cls=, settings changes): the children of a service called narrator."""

    def build(
        more: str = "",
        *,
        source: str = HUB,
        model: str = "",
        cls: str = GPU_CLASS,
        uid: str = "7f0c",
        references: Mapping[str, str] | None = None,
        without_surge: frozenset[str] = frozenset(),
        **settings: Any,
    ) -> Rendered:
        text = f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator, namespace: speech, uid: "{uid}"}}
spec:
  model: {{source: {source}{", " + model if model else ""}}}
  hardware: {{classes: [{cls}]}}
"""
        (service,) = parse_services(text + "".join(f"  {line}\n" for line in more.splitlines()))
        chosen = replace(SETTINGS, **settings)
        contents = References({key: (references or {}).get(key.name, "content") for key in referenced_keys(service)})
        plan = plan_fleet(service, builtin_profiles(), None, {}, chosen, contents, pod_template)
        return Rendered(service, plan, chosen, render_fleet(plan, chosen, without_surge=without_surge))

    return build


SOURCES = {
    "huggingFace": HUB,
    "huggingFace with a token": (
        "{huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B, revision: abc123, endpoint: https://hub.example:8443, "
        "tokenSecretRef: {name: hf, key: tok}}}"
    ),
    "modelScope": "{modelScope: {repo: iic/CosyVoice2-0.5B}}",
    "s3": "{s3: {bucket: voices, prefix: cosyvoice2, endpoint: https://s3.example, secretRef: {name: s3}}}",
    "https": "{https: {url: https://example.com/cosyvoice2.tar, sha256: " + "a" * 64 + "}}",
    "oci": "{oci: {reference: registry.example/models/cosyvoice2:1}}",
    "pvc": "{pvc: {claimName: models, subPath: CosyVoice2-0.5B}}",
    "builtin": "{builtin: {name: tiny-en}}",
}


@pytest.fixture(params=SOURCES.values(), ids=SOURCES.keys())
def any_source(request: pytest.FixtureRequest) -> str:
    """Each kind of model source in turn, as YAML."""
    source: str = request.param
    return source
