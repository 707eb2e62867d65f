"""The plan of a class: which layer decides a value, what the memory model lowers, and what it refuses with advice."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import yaml

from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.engine_config import Placement, engine_values
from ttsfleet_operator.machine import GPUDevice, Machine
from ttsfleet_operator.plan import ClassPlan, Origin, plan_class
from ttsfleet_operator.profiles import builtin_profiles
from ttsfleet_operator.sites import Site, cpu_site, gpu_site, site_of_machine, site_of_product, site_of_profile

TABLE = builtin_profiles()
RTX_3090 = GPUDevice(0, "NVIDIA-GeForce-RTX-3090", 24576, (8, 6))


def service(
    engine: str = "{}", class_engine: str = "{}", *, gpu: str = "{}", kind: str = "gpu", more: str = "",
    source: str = "{huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B}}",
) -> TTSService:  # fmt: skip
    return parse_services(f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator}}
spec:
  model: {{source: {source}}}
  engine: {engine}
  hardware: {{classes: [{{name: one, {kind}: {gpu}, engine: {class_engine}}}]}}
{more}""")[0]


def plan(asked: TTSService, site: Site) -> ClassPlan:
    return plan_class(asked, asked.spec.hardware.classes[0], TABLE, site)


def origin(result: ClassPlan, name: str) -> Origin:
    return next(value.origin for value in result.values if value.name == name)


@dataclass
class Row:
    """A device of the table and what the guide, or its extension, gives it."""

    product: str
    workers: int
    decoders: int
    quant_type: str


@dataclass
class Scenario:
    name: str
    asked: TTSService
    site: Site
    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)


@pytest.mark.parametrize(
    "row",
    [
        Row("NVIDIA-GeForce-RTX-4090", 3, 2, "triton-fp8w8a8-b128"),
        Row("NVIDIA-GeForce-RTX-3090", 3, 2, "triton_int8weight"),
        Row("NVIDIA-GeForce-RTX-3080", 1, 1, "triton_int8weight"),
        Row("NVIDIA-A100-SXM4-40GB", 4, 3, "triton_int8weight"),
        Row("NVIDIA-A100-SXM4-80GB", 6, 3, "triton_int8weight"),
        Row("Tesla-T4", 1, 1, "triton_int8weight"),
        Row("NVIDIA-L4", 2, 2, "triton-fp8w8a8-b128"),
        Row("NVIDIA-L40S", 4, 3, "triton-fp8w8a8-b128"),
        Row("NVIDIA-A10", 2, 2, "triton_int8weight"),
        Row("NVIDIA-H100-80GB-HBM3", 6, 3, "triton-fp8w8a8-b128"),
        Row("NVIDIA-H200", 8, 3, "triton-fp8w8a8-b128"),
        Row("NVIDIA-B200", 8, 4, "triton-fp8w8a8-b128"),
    ],
    ids=lambda row: row.product,
)
def test_card_gets_the_values_of_its_row_and_they_fit(row: Row) -> None:
    result = plan(service(), site_of_product(TABLE, row.product))
    engine = result.engine()
    assert (engine["workers"], engine["decode_process_num"]) == (row.workers, row.decoders)
    assert engine["quant_type"] == row.quant_type
    assert result.problem is None
    assert result.memory.fits


SCENARIOS = [
    Scenario(
        "nothing asked: profile and guide decide",
        service(),
        gpu_site(TABLE, RTX_3090, 8),
        {"workers": 3, "encode_process_num": 4, "router_max_wait_tokens": 1, "max_total_token_num": 65536},
        {"workers": Origin.PROFILE, "encode_process_num": Origin.GUIDE},
    ),
    Scenario(
        "the class wins over the spec, the spec over the profile",
        service("{workers: 2, gpt_paral_num: 32}", "{workers: 1}"),
        gpu_site(TABLE, RTX_3090, 8),
        {"workers": 1, "gpt_paral_num": 32},
        {"workers": Origin.CLASS, "gpt_paral_num": Origin.SPEC},
    ),
    Scenario(
        "the older switch means the int8 cache",
        service("{enable_kv_cache_quant: true}"),
        gpu_site(TABLE, RTX_3090, 8),
        {"kv_cache_mode": "int8"},
        {"kv_cache_mode": Origin.SPEC},
    ),
    Scenario(
        "a class's mode wins over the spec's older switch",
        service("{enable_kv_cache_quant: true}", "{kv_cache_mode: none}"),
        gpu_site(TABLE, RTX_3090, 8),
        {"kv_cache_mode": "none"},
        {"kv_cache_mode": Origin.CLASS},
    ),
    Scenario(
        "a small pool shortens the longest request",
        service("{max_total_token_num: 8192}"),
        gpu_site(TABLE, RTX_3090, 8),
        {"max_total_token_num": 8192, "max_req_total_len": 8192},
    ),
    Scenario(
        "a long request asked for on the CPU enlarges the pool",
        service("{max_req_total_len: 32768}", kind="cpu"),
        cpu_site(TABLE, 4, 16384),
        {"max_total_token_num": 32768, "max_req_total_len": 32768},
    ),
    Scenario(
        "many sequences asked for enlarge the step",
        service("{gpt_paral_num: 1000}", kind="cpu"),
        cpu_site(TABLE, 4, 65536),
        {"batch_max_tokens": 1000},
    ),
    Scenario(
        "two cores",
        service(kind="cpu"),
        cpu_site(TABLE, 2, 16384),
        {
            "encode_process_num": 1,
            "decode_process_num": 1,
            "threads.llm": 1,
            "threads.decode": 1,
            "data_type": "fp32",
        },
    ),
    Scenario(
        "sixteen cores",
        service(kind="cpu"),
        cpu_site(TABLE, 16, 16384),
        {
            "encode_process_num": 8,
            "decode_process_num": 2,
            "threads.llm": 8,
            "threads.decode": 4,
            "threads.encode": 2,
        },
    ),
    Scenario(
        "OMP threads of the container rule all stages",
        service(more="  resources: {ompThreads: 3}\n"),
        gpu_site(TABLE, RTX_3090, 8),
        {"threads.encode": 3, "threads.llm": 3, "threads.decode": 3},
        {"threads.llm": Origin.RESOURCES},
    ),
    Scenario(
        "an unknown card is sized by memory and capability",
        service(),
        gpu_site(TABLE, GPUDevice(0, "NVIDIA-Future-9000", 49152, (12, 0)), 8),
        {"workers": 4, "decode_process_num": 3, "quant_type": "triton-fp8w8a8-b128", "load_trt": True},
    ),
    Scenario(
        "too little memory for the profile lowers what nobody fixed",
        service(),
        gpu_site(TABLE, GPUDevice(0, "NVIDIA-GeForce-RTX-3090", 10000, (8, 6)), 8),
        {"workers": 2},
        {"workers": Origin.MEMORY},
    ),
    Scenario(
        "a fixed number of workers is kept and the rest lowered",
        service("{workers: 3}"),
        gpu_site(TABLE, GPUDevice(0, "NVIDIA-GeForce-RTX-3090", 14000, (8, 6)), 8),
        {"workers": 3, "decode_process_num": 1},
        {"workers": Origin.SPEC, "decode_process_num": Origin.MEMORY},
    ),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_planned_values(scenario: Scenario) -> None:
    result = plan(scenario.asked, scenario.site)
    engine = result.engine()
    assert {name: engine[name] for name in scenario.values} == scenario.values
    assert {name: origin(result, name) for name in scenario.origins} == scenario.origins
    assert result.problem is None


def test_fixed_values_that_cannot_fit_name_what_would() -> None:
    site = gpu_site(TABLE, RTX_3090, 8)
    problem = plan(service("{workers: 12}"), site).problem
    assert problem is not None
    assert problem.reason == "OutOfMemory"
    advice = problem.message.split("; ")[-1].split(" would fit")[0]
    assert advice.startswith("workers: ")
    assert plan(service(f"{{{advice}}}"), site).problem is None


def test_device_too_small_for_any_plan_says_so() -> None:
    problem = plan(service(), gpu_site(TABLE, GPUDevice(0, "NVIDIA-GeForce-RTX-3080", 2048, (8, 6)), 8)).problem
    assert problem is not None
    assert "no smaller plan fits; use a larger device" in problem.message


@pytest.mark.parametrize(
    ("engine", "class_engine", "reason", "message"),
    [
        (
            "{quant_type: triton-fp8w8a8-b128}",
            "{}",
            "UnsupportedQuantization",
            "needs compute capability 8.9; NVIDIA-GeForce-RTX-3090 has 8.6",
        ),
        (
            "{max_total_token_num: 1024}",
            "{max_req_total_len: 2048}",
            "InvalidPlan",
            "max_req_total_len 2048 (class override) exceeds max_total_token_num 1024",
        ),
        ("{batch_max_tokens: 64}", "{gpt_paral_num: 65}", "InvalidPlan", "gpt_paral_num 65"),
        ("{enable_gqa: false}", "{}", "InvalidPlan", "14 query and 2 KV heads; remove enable_gqa"),
        ("{gqa_group_size: 4}", "{}", "InvalidPlan", "remove gqa_group_size"),
    ],
)
def test_contradiction_is_a_problem(engine: str, class_engine: str, reason: str, message: str) -> None:
    problem = plan(service(engine, class_engine), gpu_site(TABLE, RTX_3090, 8)).problem
    assert problem is not None
    assert problem.reason == reason
    assert message in problem.message


def test_gpu_values_on_the_cpu_are_kept_and_said_to_be_idle() -> None:
    result = plan(service("{quant_type: triton_int8weight, data_type: bf16}", kind="cpu"), cpu_site(TABLE, 4, 16384))
    assert result.engine()["quant_type"] == "triton_int8weight"
    assert "quant_type triton_int8weight (spec.engine) needs a GPU: no effect here" in result.warnings
    assert any("the CPU computes in fp32" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        pytest.param(
            service(gpu="{products: [NVIDIA-L4]}"),
            "no device was seen: memory and capability are those of profile l4",
            id="GPU",
        ),
        pytest.param(service(kind="cpu"), "no memory limit is given (spec.resources.limits.memory)", id="CPU"),
    ],
)
def test_what_is_assumed_is_said(asked: TTSService, words: str) -> None:
    site = site_of_profile(asked, asked.spec.hardware.classes[0], TABLE)
    assert any(words in warning for warning in plan(asked, site).warnings)


def test_cpu_plan_holds_no_gpu_value_that_nobody_asked_for() -> None:
    names = set(plan(service(kind="cpu"), cpu_site(TABLE, 4, 16384)).engine())
    assert not names & {"quant_type", "load_trt", "graph_max_batch_size", "kv_cache_mode"}


def test_unknown_model_is_estimated_as_the_largest_and_said_so() -> None:
    result = plan(service(source="{oci: {reference: example.com/voice}}"), gpu_site(TABLE, RTX_3090, 8))
    assert "memory is estimated as for cosyvoice3-0.5b" in result.warnings[0]


def test_styles_multiply_the_language_models() -> None:
    one = plan(service(), gpu_site(TABLE, RTX_3090, 8)).memory
    more = "  styles: [{name: a, path: a}, {name: b, path: b}]\n"
    two = plan(service("{workers: 3, decode_process_num: 2}", more=more), gpu_site(TABLE, RTX_3090, 8)).memory
    assert dict(two.parts)["LLM weights"] == 2 * dict(one.parts)["LLM weights"]


@pytest.mark.parametrize(
    ("gpu", "devices", "expected"),
    [
        ("{}", [RTX_3090], 0),
        ("{products: [NVIDIA-GeForce-RTX-3090]}", [RTX_3090], 0),
        ("{products: [rtx-3090]}", [RTX_3090], 0),
        ("{products: [NVIDIA-L4]}", [RTX_3090], None),
        ("{products: [NVIDIA-L4]}", [RTX_3090, GPUDevice(1, "NVIDIA-L4", 23034, (8, 9))], 1),
        ("{memoryMiB: {min: 30000}}", [RTX_3090], None),
        ("{}", [], None),
    ],
)
def test_class_finds_its_device_on_a_machine(gpu: str, devices: list[GPUDevice], expected: int | None) -> None:
    asked = service(gpu=gpu)
    site = site_of_machine(asked, asked.spec.hardware.classes[0], TABLE, Machine(8, 32768, tuple(devices)))
    assert (None if site is None else site.device_index) == expected


def test_class_without_a_node_gets_the_smallest_variant_and_says_so() -> None:
    asked = service(gpu="{products: [NVIDIA-GeForce-RTX-3080]}")
    site = site_of_profile(asked, asked.spec.hardware.classes[0], TABLE)
    assert (site.memory_mib, site.assumed) == (10240, True)
    asked = service(gpu="{products: [NVIDIA-GeForce-RTX-3080], memoryMiB: {min: 12000}}")
    assert site_of_profile(asked, asked.spec.hardware.classes[0], TABLE).memory_mib == 12288


@pytest.mark.parametrize(("cpu", "cores"), [('"6"', 6), ("500m", 1), ("2500m", 2), ("64", 8)])
def test_cpu_request_bounds_the_cores(cpu: str, cores: int) -> None:
    asked = service(kind="cpu", more=f"  resources: {{requests: {{cpu: {cpu}}}}}\n")
    site = site_of_machine(asked, asked.spec.hardware.classes[0], TABLE, Machine(8, 16384))
    assert site is not None
    assert site.cores == cores


def test_engine_yaml_has_the_same_bytes_with_either_writer_of_yaml() -> None:
    options = {"sort_keys": False, "default_flow_style": False, "allow_unicode": True}
    for row in TABLE.rows:
        site = cpu_site(TABLE, 4, 16384) if row.name == "cpu" else site_of_product(TABLE, row.name)
        asked = service(kind="cpu" if row.name == "cpu" else "gpu")
        values = engine_values(asked, plan(asked, site), Placement("/models/ünï: cödé #1"))
        assert yaml.dump(values, Dumper=yaml.CSafeDumper, **options) == yaml.safe_dump(values, **options)
