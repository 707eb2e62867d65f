"""Every fetch.yaml that the operator can render is read by the fetch program, value for value; exit codes agree."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import pytest
import yaml

from ttsfleet_operator.api.manifest import load_services, parse_services
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.settings import ConfigMapKey, FleetSettings
from ttsfleet_operator.manifests.containers import fetch_container
from ttsfleet_operator.manifests.fetch_config import render_fetch_yaml
from ttsfleet_operator.manifests.volumes import Storage
from ttsfleet_operator.pod_layout import FETCHED_SOURCES, pod_model_dir
from ttsfleet_operator.status.fetch_codes import FETCH_REASONS, digest_of, fetch_reason
from ttsfleet_operator.status.reasons import Reason
from ttsfleet_runtime.cli import _parse
from ttsfleet_runtime.fetch.config import FetchConfig, read_config
from ttsfleet_runtime.fetch.failures import Failure
from ttsfleet_runtime.fetch.manifest import ModelFile, digest_files

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = FleetSettings(release="1.2.3", runtime_image="registry.example/runtime:1.2.3")
MIRRORED = dataclasses.replace(
    SETTINGS,
    hugging_face_endpoint="https://hf.example",
    model_scope_endpoint="https://ms.example:8443/hub",
    ca_bundle=ConfigMapKey("corporate-ca", "bundle.pem"),
)
PIN = "b" * 64
OPTIONAL = {
    "huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B": (
        "revision: refs/pr/1",
        "endpoint: 'https://hub.example/a?b=1'",
        "tokenSecretRef: {name: hf, key: t}",
    ),
    "modelScope: {repo: iic/CosyVoice2-0.5B": (
        "revision: v1.0_a",
        "endpoint: 'https://[fd00::1]:8443'",
        "tokenSecretRef: {name: ms, key: t}",
    ),
    "s3: {bucket: voices.example-1": (
        "prefix: cosy voice/v2",
        "endpoint: https://minio.speech.svc:9000",
        "region: eu-central-1",
        "secretRef: {name: s3}",
    ),
    "https: {url: 'https://example.com/m.tar.gz?x=%20', sha256: " + "a" * 64: (),
    "pvc: {claimName: models": ("subPath: voices/a",),
    "oci: {reference: 'registry.example/m@sha256:" + "c" * 64 + "'": ("pullPolicy: Always",),
}
AROUND = {
    "alone": ("", ""),
    "with a pin": (f"manifestSHA256: {PIN}", ""),
    "with a CA": ("", "network: {caBundleConfigMapRef: {name: ca, key: ca-bundle.crt}}"),
    "with styles": (
        f"manifestSHA256: {PIN}",
        "styles: [{name: news, path: styles/news}, {name: s-2, path: 'grüße/ llm.pt'}]",
    ),
}
SOURCES = [
    ", ".join((base, *chosen)) + "}"
    for base, optional in OPTIONAL.items()
    for count in range(len(optional) + 1)
    for chosen in itertools.combinations(optional, count)
]


def service(source: str, model: str, spec: str) -> TTSService:
    return parse_services(f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator}}
spec:
  model: {{source: {{{source}}}{", " if model else ""}{model}}}
  hardware: {{classes: [{{name: one, cpu: {{}}}}]}}
  {spec}
""")[0]


def read_back(asked: TTSService, settings: FleetSettings, folder: Path) -> FetchConfig | None:
    """Through the command line of the pod's container and the program's parser; None = no fetch step."""
    text = render_fetch_yaml(asked, settings)
    if not text:
        return None
    container = fetch_container(asked, settings, Storage())
    assert container["command"] == ["ttsfleet-runtime"]
    arguments = _parse(container["args"])
    assert str(arguments.config) == "/etc/ttsfleet/fetch.yaml"
    path = folder / arguments.config.name
    path.write_text(text)
    config = read_config(path)
    given = yaml.safe_load(text)
    assert {name: getattr(config.source, name) for name in given["source"] if name != "kind"} == {
        name: value for name, value in given["source"].items() if name != "kind"
    }
    return config


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND.keys())
@pytest.mark.parametrize("settings", [SETTINGS, MIRRORED], ids=["plain", "mirrors and CA of the installation"])
def test_rendered_fetch_is_read_back(around: tuple[str, str], settings: FleetSettings, tmp_path: Path) -> None:
    rendered = 0
    for source in SOURCES:
        asked = service(source, *around)
        config = read_back(asked, settings, tmp_path)
        if config is None:
            continue
        rendered += 1
        assert config.model_dir == pod_model_dir(asked.spec.model.source)
        assert config.manifest_sha256 == asked.spec.model.manifest_sha256
        assert [(style.name, style.path) for style in config.styles] == [
            (style.name, style.path) for style in asked.spec.styles
        ]
        own, fetched = asked.spec.network is not None, asked.spec.model.source.kind in FETCHED_SOURCES
        assert bool(config.ca_file) == (own or (fetched and settings.ca_bundle is not None))
    assert rendered >= 8 + 8 + 16 + 1


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_read_back(path: Path, tmp_path: Path) -> None:
    for asked in load_services(path):
        read_back(asked, MIRRORED, tmp_path)


def test_exit_codes_are_the_operators_reasons() -> None:
    assert {int(failure): f"FETCH_{failure.name}" for failure in Failure} == {
        code: reason.name for code, reason in FETCH_REASONS.items()
    }
    assert fetch_reason(143) is Reason.FETCH_FAILED  # ended by a signal


def test_digest_is_what_the_status_takes_over() -> None:
    digest = digest_files([ModelFile("llm.pt", 1, "a" * 64)])
    assert digest_of(f"sha256:{digest}") == f"sha256:{digest}"
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
