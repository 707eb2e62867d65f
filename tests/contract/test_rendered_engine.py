"""What the operator renders is what the runtime accepts: engine.yaml and command line, for a table of services.

The only tests that import both packages. A rendered value that the runtime refuses, renames or silently replaces
fails here and not in a pod.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from ttsfleet_operator.api.manifest import load_services, parse_services
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.engine_config import PROGRAM, Placement, render_engine_yaml, serve_command
from ttsfleet_operator.engine_config import SCHEMA_VERSION as RENDERED_VERSION
from ttsfleet_operator.plan import ClassPlan, plan_class
from ttsfleet_operator.profiles import CPU_PROFILE, builtin_profiles
from ttsfleet_operator.sites import cpu_site, site_of_product, site_of_profile
from ttsfleet_runtime.checkpoint import resolve_model_dir
from ttsfleet_runtime.checkpoint.bundle import ModelInfo, read_model_info
from ttsfleet_runtime.cli import _parse
from ttsfleet_runtime.config import flags
from ttsfleet_runtime.config.engine import SCHEMA_VERSION, EngineConfig, asked
from ttsfleet_runtime.config.machine import GPU, Machine
from ttsfleet_runtime.config.resolve import resolve

ROOT = Path(__file__).resolve().parents[2]
TABLE = builtin_profiles()
GPU_ROWS = [row for row in TABLE.rows if row.name != CPU_PROFILE]


@dataclass
class Case:
    name: str
    spec: str = ""
    class_engine: str = "{}"
    gpu: str = "NVIDIA-GeForce-RTX-4090"


def service(case: Case) -> TTSService:
    return parse_services(f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator}}
spec:
  model: {{source: {{huggingFace: {{repo: FunAudioLLM/CosyVoice2-0.5B}}}}}}
  hardware: {{classes: [{{name: one, gpu: {{}}, engine: {case.class_engine}}}]}}
{case.spec}""")[0]


CASES = [
    Case("nothing asked"),
    Case("every engine value", class_engine=(
        "{workers: 2, data_type: bf16, quant_type: triton_int8weight, kv_cache_mode: int8, "
        "max_total_token_num: 65536, "
        "max_req_total_len: 32768, cache_capacity: 100, encode_process_num: 2, encode_paral_num: 4, "
        "encode_max_batch_size: 8, gpt_paral_num: 100, batch_max_tokens: 8192, router_max_wait_tokens: 1, "
        "decode_process_num: 2, decode_paral_num: 2, decode_max_batch_size: 4, graph_max_batch_size: 8, "
        "graph_max_len_in_batch: 512, disable_cudagraph: false, load_trt: true, trt_max_batch_size: 8, "
        "trt_precision: fp16, trt_workspace_size: 1073741824, use_flash_attention: true, fa_kernel_type: triton, "
        "enable_gqa: true, gqa_group_size: 7}"
    )),
    Case("the older switch of the KV cache", "  engine: {enable_kv_cache_quant: true}\n"),
    Case("a small pool", "  engine: {max_total_token_num: 1024}\n"),
    Case("more sequences than a step has positions", "  engine: {gpt_paral_num: 4096, max_total_token_num: 65536}\n",
         gpu="NVIDIA-H100-80GB-HBM3"),
    Case("every server value", """\
  server: {httpserver_workers: 2, worker_connections: 500, max_requests: 0, max_requests_jitter: 0, timeout: 300,
           keepalive: 2, ws_max_size: 16777216, ws_ping_interval: 20, ws_ping_timeout: 20, ws_max_queue: 1024}
"""),
    Case("threads and drain from the pod's shape", """\
  resources: {ompThreads: 8, ncclIBDisable: true, requests: {cpu: "8"}}
  rollout: {drain: {maxStreamSeconds: 300}}
"""),
    Case("styles", "  styles: [{name: news, path: styles/news}, {name: s-2, path: 'grüße/ llm.pt'}]\n"),
    Case("a recipe of its own", "  quantConfigRef: {name: q, key: q.yaml}\n", "{quant_type: custom}"),
]  # fmt: skip


def accepted(asked_service: TTSService, plan: ClassPlan, folder: Path, **placement: str) -> EngineConfig:
    """Render into `folder` and read it back through the runtime's own command line."""
    where = Placement(model_dir="builtin:tiny-en", **placement)  # type: ignore[arg-type]
    path = folder / "engine.yaml"
    path.write_text(render_engine_yaml(asked_service, plan, where))
    command = serve_command(asked_service, path)
    assert command.arguments[0] == PROGRAM
    return flags.read_config(_parse(list(command.arguments[1:])))


def plan_on(asked_service: TTSService, product: str) -> ClassPlan:
    plan = plan_class(asked_service, asked_service.spec.hardware.classes[0], TABLE, site_of_product(TABLE, product))
    assert plan.problem is None
    return plan


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rendered_engine_is_read_back_value_for_value(case: Case, tmp_path: Path) -> None:
    recipe = tmp_path / "quant.yaml"
    recipe.write_text("{}\n")
    asked_service = service(case)
    plan = plan_on(asked_service, case.gpu)
    custom = plan.engine()["quant_type"] == "custom"
    config = accepted(asked_service, plan, tmp_path, **({"quant_config": str(recipe)} if custom else {}))
    read = asked(config)
    assert {name: read.get(name) for name in plan.engine()} == plan.engine()
    assert read["device"] == "cuda:0"
    assert (read["port"], read["management_port"]) == (8080, 8081)
    if asked_service.spec.server is not None:
        given = asked_service.spec.server.given()
        assert {name: read[name] for name in given} == given
    if asked_service.spec.rollout is not None:
        assert read["drain_seconds"] == 300.0


@pytest.mark.parametrize("row", GPU_ROWS, ids=lambda row: row.name)
def test_every_row_of_the_table_renders_an_engine_that_resolves(row, tmp_path: Path, model: ModelInfo) -> None:  # type: ignore[no-untyped-def]
    asked_service = service(Case("any"))
    plan = plan_on(asked_service, row.name)
    config = accepted(asked_service, plan, tmp_path)
    gpu = GPU(row.products[0], row.memory_mib << 20, row.capability)
    effective = resolve(config, Machine(cores=8, memory_bytes=64 << 30, gpu=gpu), model)
    assert effective.plan.workers == plan.engine()["workers"]
    assert not [note for note in effective.notes if note.level == "warning"]


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8, 16, 64])
def test_the_plan_of_the_cpu_class_is_what_the_runtime_would_decide_alone(
    cores: int, tmp_path: Path, model: ModelInfo
) -> None:
    (tiny,) = load_services(ROOT / "examples" / "ttsservice-tiny.yaml")
    plan = plan_class(tiny, tiny.spec.hardware.classes[0], TABLE, cpu_site(TABLE, cores, 32768))
    machine = Machine(cores=cores, memory_bytes=32 << 30)
    effective = resolve(accepted(tiny, plan, tmp_path), machine, model)
    alone = resolve(EngineConfig(model_dir="builtin:tiny-en"), machine, model)
    assert effective.plan.model_copy(update={"model_dir": ""}) == alone.plan.model_copy(update={"model_dir": ""})
    assert effective.notes == ()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_class_of_every_example_renders(path: Path, tmp_path: Path) -> None:
    for asked_service in load_services(path):
        for one in asked_service.spec.hardware.classes:
            plan = plan_class(asked_service, one, TABLE, site_of_profile(asked_service, one, TABLE))
            assert plan.problem is None
            accepted(asked_service, plan, tmp_path)


def test_equal_inputs_render_equal_bytes_and_other_inputs_others() -> None:
    asked_service = service(Case("any"))
    plan = plan_on(asked_service, "rtx-4090")
    first, again = (render_engine_yaml(asked_service, plan, Placement("/models")) for _ in range(2))
    other = render_engine_yaml(asked_service, plan_on(asked_service, "l4"), Placement("/models"))
    assert first == again
    assert first != other


def test_schema_version_and_program_are_the_runtimes() -> None:
    assert RENDERED_VERSION == SCHEMA_VERSION
    scripts = tomllib.loads((ROOT / "runtime" / "pyproject.toml").read_text())["project"]["scripts"]
    assert PROGRAM in scripts


@pytest.fixture(scope="module")
def model(tiny_en_bundle: Path) -> ModelInfo:
    return read_model_info(tiny_en_bundle)


def test_builtin_of_the_tiny_example_exists() -> None:
    (tiny,) = load_services(ROOT / "examples" / "ttsservice-tiny.yaml")
    assert tiny.spec.model.source.builtin is not None
    assert resolve_model_dir(f"builtin:{tiny.spec.model.source.builtin.name}").is_dir()
