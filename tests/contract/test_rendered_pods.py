"""What the operator puts into a pod is what the runtime accepts: every profile, source, server option and recipe.

The container's command line and the ConfigMap's engine.yaml go through the runtime's own parser, with each mounted
file at a path of this machine. A name, range or flag that only one side knows fails here and not in a pod.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from fastapi.testclient import TestClient

from ttsfleet_operator.api.engine import EngineOverrides, ServerOptions
from ttsfleet_operator.api.manifest import load_services, parse_services
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.plan import ClassDecision, plan_fleet
from ttsfleet_operator.fleet.settings import FleetSettings, References, referenced_keys
from ttsfleet_operator.manifests.compose import render_compose
from ttsfleet_operator.manifests.fleet_objects import render_fleet
from ttsfleet_operator.manifests.pod_template import pod_template
from ttsfleet_operator.profiles import CPU_PROFILE, builtin_profiles
from ttsfleet_runtime.cli import _parse, api_key
from ttsfleet_runtime.config import flags
from ttsfleet_runtime.config.engine import EngineConfig, asked
from ttsfleet_runtime.router.management import ManagementHooks, create_management_app

ROOT = Path(__file__).resolve().parents[2]
TABLE = builtin_profiles()
SETTINGS = FleetSettings(release="1.2.3", runtime_image="registry.example/runtime:1.2.3")
SOURCES = {
    "huggingFace": "{huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B, tokenSecretRef: {name: hf, key: token}}}",
    "modelScope": "{modelScope: {repo: iic/CosyVoice2-0.5B}}",
    "s3": "{s3: {bucket: voices, prefix: cosyvoice2, secretRef: {name: s3}}}",
    "https": "{https: {url: https://example.com/cosyvoice2.tar, sha256: " + "a" * 64 + "}}",
    "oci": "{oci: {reference: registry.example/models/cosyvoice2:1}}",
    "pvc": "{pvc: {claimName: models, subPath: CosyVoice2-0.5B}}",
    "builtin": "{builtin: {name: tiny-en}}",
}
SERVERS = {
    "defaults": "",
    "every option": "server: {httpserver_workers: 2, worker_connections: 500, max_requests: 0, "
    "max_requests_jitter: 0, timeout: 600, keepalive: 2, ws_max_size: 16777216, ws_ping_interval: 20, "
    "ws_ping_timeout: 20, ws_max_queue: 1024}",
}
QUANTS = ("none", "triton_int8weight", "custom")
KEY = "network: {apiKeySecretRef: {name: keys, key: k}}"


@dataclass(frozen=True)
class Pod:
    """One class's container and files, as rendered."""

    decision: ClassDecision
    container: dict[str, Any]
    files: dict[str, str]


def service(
    more: str = "", source: str = SOURCES["huggingFace"], cls: str = "{name: one, gpu: {}, profile: rtx-4090}"
) -> TTSService:
    return parse_services(f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator}}
spec:
  model: {{source: {source}}}
  hardware: {{classes: [{cls}]}}
""" + "".join(f"  {line}\n" for line in more.splitlines()))[0]  # fmt: skip


def pods(asked_service: TTSService) -> list[Pod]:
    references = References(dict.fromkeys(referenced_keys(asked_service), "content"))
    plan = plan_fleet(asked_service, TABLE, None, {}, SETTINGS, references, pod_template)
    children = render_fleet(plan, SETTINGS)
    files = {child["metadata"]["name"]: child["data"] for child in children if child["kind"] == "ConfigMap"}
    deployments = {child["metadata"]["name"]: child for child in children if child["kind"] == "Deployment"}
    found = []
    for decision in plan.classes:
        assert decision.bundle is not None, decision.problem
        name = f"{asked_service.name}-{decision.name}"
        container = deployments[name]["spec"]["template"]["spec"]["containers"][0]
        found.append(Pod(decision, container, files[f"{name}-{decision.bundle.hash}"]))
    return found


def accepted(pod: Pod, folder: Path) -> EngineConfig:
    """The runtime's reading of the pod's command line, with the mounted files below `folder`."""
    assert pod.container["command"] == ["ttsfleet-runtime"]
    (folder / "engine.yaml").write_text(_relocated(pod.files["engine.yaml"], folder))
    (folder / "quant.yaml").write_text("{}\n")
    (folder / "key").write_text("secret\n")
    places = {"/etc/ttsfleet/engine.yaml": "engine.yaml", "/etc/ttsfleet-api-key/key": "key"}
    words = [str(folder / places[word]) if word in places else word for word in pod.container["args"]]
    arguments = _parse(words)
    assert arguments.command == "serve"
    with_key = "/etc/ttsfleet-api-key/key" in pod.container["args"]
    assert api_key(arguments) == ("secret" if with_key else None)
    return flags.read_config(arguments)


def _relocated(engine_yaml: str, folder: Path) -> str:
    """The runtime looks whether the recipe is there: it is below `folder` here."""
    values = yaml.safe_load(engine_yaml)
    if "custom_cfg_path" not in values:
        return engine_yaml
    return engine_yaml.replace(values["custom_cfg_path"], str(folder / "quant.yaml"))


def check(pod: Pod, folder: Path) -> dict[str, object]:
    """Accepted, and every planned value read back as it was planned."""
    assert pod.decision.plan is not None
    read = asked(accepted(pod, folder))
    planned = pod.decision.plan.engine()
    assert {name: read.get(name) for name in planned} == planned
    return read


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("row", TABLE.rows, ids=lambda row: row.name)
def test_pod_of_every_profile_source_and_server_is_accepted(row, server, source, tmp_path) -> None:  # type: ignore[no-untyped-def]
    on_cpu = row.name == CPU_PROFILE
    for quant in ("",) if on_cpu else QUANTS:
        cls = "{name: one, cpu: {}}" if on_cpu else f"{{name: one, gpu: {{}}, profile: {row.name}}}"
        recipe = "quantConfigRef: {name: recipe, key: q.yaml}" if quant == "custom" else ""
        engine = f"engine: {{quant_type: {quant}}}" if quant else ""
        more = "\n".join(line for line in (SERVERS[server], engine, recipe, KEY) if line)
        (pod,) = pods(service(more, SOURCES[source], cls))
        read = check(pod, tmp_path)
        assert read["device"] == ("cpu" if on_cpu else "cuda:0")
        assert read["model_dir"]
        if quant:
            assert read["quant_type"] == quant
        if SERVERS[server]:
            given = service(SERVERS[server]).spec.server
            assert given is not None
            assert {name: read[name] for name in given.given()} == given.given()
            assert read["drain_seconds"] == 600.0


def _choices(model: type, name: str) -> list[object]:
    """The words or switch values of a field; empty for a number."""
    annotation = model.model_fields[name].annotation  # type: ignore[attr-defined]
    parts = [annotation, *get_args(annotation)]
    if bool in parts:
        return [True, False]
    return [value for part in parts for value in get_args(part) if isinstance(value, str)]


WORDS = [
    (name, value)
    for name, value in itertools.chain.from_iterable(
        ((name, value) for value in _choices(EngineOverrides, name)) for name in EngineOverrides.model_fields
    )
    if value not in ("custom", "triton-fp8w8a8-b128") and name not in ("enable_gqa", "enable_kv_cache_quant")
]


@pytest.mark.parametrize(("name", "value"), WORDS, ids=lambda word: str(word))
def test_every_word_of_spec_engine_is_accepted(name: str, value: object, tmp_path: Path) -> None:
    shown = str(value).lower() if isinstance(value, bool) else value
    (pod,) = pods(service(f"engine: {{{name}: {shown}}}", cls="{name: one, gpu: {}, profile: a100-80gb}"))
    assert check(pod, tmp_path)[name] == value


def test_words_of_spec_engine_are_all_tried() -> None:
    assert {name for name, _ in WORDS} >= {"data_type", "quant_type", "kv_cache_mode", "load_trt", "fa_kernel_type"}
    assert not [name for name in ServerOptions.model_fields if _choices(ServerOptions, name)]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("ttsservice-*.yaml")), ids=lambda path: path.name)
def test_pods_of_every_example_are_accepted(path: Path, tmp_path: Path) -> None:
    for asked_service in load_services(path):
        for pod in pods(asked_service):
            check(pod, tmp_path)


def test_threads_and_drain_of_the_spec_reach_the_runtime(tmp_path: Path) -> None:
    (pod,) = pods(service("resources: {ompThreads: 3}\nrollout: {drain: {maxStreamSeconds: 45}}"))
    read = check(pod, tmp_path)
    assert [read[f"threads.{stage}"] for stage in ("encode", "llm", "decode")] == [3, 3, 3]
    assert read["drain_seconds"] == 45.0


def test_compose_file_starts_what_the_runtime_accepts(tmp_path: Path) -> None:
    asked_service = service(KEY)
    (pod,) = pods(asked_service)
    assert pod.decision.plan is not None
    document = yaml.safe_load(render_compose(asked_service, pod.decision.plan, SETTINGS))
    container = document["services"]["narrator"]
    content = document["configs"]["engine"]["content"].replace("$$", "$")
    check(
        Pod(
            pod.decision, {"command": container["entrypoint"], "args": container["command"]}, {"engine.yaml": content}
        ),
        tmp_path,
    )


def test_probes_ask_for_what_the_management_api_has() -> None:
    (pod,) = pods(service())
    hooks = ManagementHooks(problems=list, metrics=str, status=dict, release_voices=int)
    client = TestClient(create_management_app(hooks))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert client.get(pod.container[probe]["httpGet"]["path"]).status_code == 200
    ports = {port["name"]: port["containerPort"] for port in pod.container["ports"]}
    read = yaml.safe_load(pod.files["engine.yaml"])
    assert (ports["http"], ports["metrics"]) == (read["port"], read["management_port"])
