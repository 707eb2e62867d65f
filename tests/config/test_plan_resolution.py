"""What is asked, the machine and the model become a plan, and every deviation is explained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.engine import EngineConfig, asked, settings
from ttsfleet_runtime.config.machine import GPU, Machine
from ttsfleet_runtime.config.report import effective_value, note_as_line, report
from ttsfleet_runtime.config.resolve import Effective, choose_data_type, choose_device, resolve
from ttsfleet_runtime.config.sizing import GIB, kv_bytes_per_token, plan_threads
from ttsfleet_runtime.errors import ConfigError

LAPTOP = Machine(cores=2, memory_bytes=24 * GIB, cpus=(0, 1))
SERVER = Machine(
    cores=32,
    memory_bytes=256 * GIB,
    cpus=tuple(range(32)),
    numa_nodes={0: tuple(range(16)), 1: tuple(range(16, 32))},
)


def with_gpu(gibibytes: int, capability: tuple[int, int] = (9, 0)) -> Machine:
    gpu = GPU("a card", gibibytes * GIB, capability)
    return Machine(cores=16, memory_bytes=128 * GIB, gpu=gpu, cpus=tuple(range(16)))


def config(**values: Any) -> EngineConfig:
    return EngineConfig.model_validate(values)


def notes_of(effective: Effective) -> dict[str, str]:
    return {note.field: note.reason for note in effective.notes}


def test_nothing_asked_on_the_cpu_gives_a_plan_without_notes(model: ModelInfo) -> None:
    effective = resolve(config(), LAPTOP, model)
    plan = effective.plan
    assert effective.notes == ()
    assert (plan.device, plan.data_type, plan.workers) == ("cpu", "fp32", 1)
    assert (plan.encode_process_num, plan.decode_process_num) == (1, 1)
    assert (plan.gpt_paral_num, plan.max_total_token_num, plan.max_req_total_len) == (16, 16384, 4096)
    assert (plan.load_trt, plan.disable_cudagraph, plan.use_flash_attention) == (False, True, False)


@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (16, 8), (64, 8)])
def test_encoders_follow_the_guides_half_of_the_cores(model: ModelInfo, cores: int, processes: int) -> None:
    machine = Machine(cores=cores, memory_bytes=64 * GIB)
    assert resolve(config(), machine, model).plan.encode_process_num == processes


@pytest.mark.parametrize(
    ("gibibytes", "workers", "decoders"), [(10, 1, 1), (16, 1, 1), (24, 3, 2), (40, 4, 3), (80, 4, 3)]
)
def test_workers_and_decoders_follow_the_guides_table(
    model: ModelInfo, gibibytes: int, workers: int, decoders: int
) -> None:
    plan = resolve(config(), with_gpu(gibibytes), model).plan
    assert (plan.workers, plan.decode_process_num) == (workers, decoders)


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 8, 16, 64])
def test_threads_of_one_stage_never_exceed_the_cores(cores: int) -> None:
    threads = plan_threads(cores)
    assert 1 <= threads.llm <= cores
    assert 1 <= threads.decode <= cores
    assert 1 <= threads.encode <= cores


def test_llm_and_decoder_get_cores_of_their_own() -> None:
    threads = plan_threads(2)
    assert (threads.encode, threads.llm, threads.decode) == (1, 1, 1)
    threads = plan_threads(8)
    assert threads.llm + threads.decode == 8


def test_asked_values_are_followed(model: ModelInfo) -> None:
    wanted = {
        "encode_process_num": 2,
        "encode_paral_num": 5,
        "encode_max_batch_size": 6,
        "cache_capacity": 7,
        "gpt_paral_num": 9,
        "batch_max_tokens": 333,
        "router_max_wait_tokens": 3,
        "max_total_token_num": 4000,
        "max_req_total_len": 2000,
        "kv_block_size": 32,
        "decode_process_num": 0,
        "decode_paral_num": 11,
        "decode_max_batch_size": 3,
        "final_chunk": "streaming",
        "httpserver_workers": 2,
        "timeout": 12.5,
        "ws_max_queue": 8,
        "cors_origins": ["*"],
        "stage_timeout_seconds": 9.0,
        "threads": {"llm": 2},
        "cpu_affinity": {"decode": "0-1"},
        "limits": {"prompt_seconds": 12.0},
    }
    requested = config(**wanted)
    effective = resolve(requested, LAPTOP, model)
    assert effective.notes == ()
    for path, value in asked(requested).items():
        assert effective_value(effective.plan, path) == value, path


def test_every_setting_has_an_effective_value(model: ModelInfo) -> None:
    plan = resolve(config(), LAPTOP, model).plan
    for setting in settings():
        effective_value(plan, setting.path)


CONTRADICTIONS = {
    "cache mode against its older switch": (
        {"kv_cache_mode": "int8", "enable_kv_cache_quant": False},
        "kv_cache_mode int8 contradicts enable_kv_cache_quant false",
    ),
    "custom quantisation without its file": ({"quant_type": "custom"}, "needs custom_cfg_path"),
    "a quantisation file that nothing reads": ({"custom_cfg_path": "q.yaml"}, "only with quant_type custom"),
    "grouped attention denied": ({"enable_gqa": False}, "14 query and 2 KV heads"),
    "groups of another size": ({"gqa_group_size": 4}, "groups of 7"),
    "a request longer than the cache": (
        {"max_total_token_num": 1000, "max_req_total_len": 2000},
        "at most 1000",
    ),
    "a step too small for its sequences": ({"batch_max_tokens": 64, "gpt_paral_num": 80}, "one position of every"),
    "a CPU that is not there": ({"cpu_affinity": {"llm": "0-2"}}, "names CPU 2"),
    "a GPU that is not there": ({"device": "cuda"}, "no such GPU"),
    "a cache larger than the memory": ({"max_total_token_num": 16_000_000}, "more than all memory"),
}


@pytest.mark.parametrize("scenario", CONTRADICTIONS)
def test_contradiction_is_refused_with_its_reason(model: ModelInfo, scenario: str) -> None:
    values, message = CONTRADICTIONS[scenario]
    with pytest.raises(ConfigError, match=message) as caught:
        resolve(config(**values), LAPTOP, model)
    assert caught.value.param in message or caught.value.param is not None


@pytest.mark.parametrize(("mode", "switch"), [("int8", True), ("none", False)])
def test_cache_mode_and_its_older_switch_may_agree(model: ModelInfo, mode: str, switch: bool) -> None:
    resolve(config(kv_cache_mode=mode, enable_kv_cache_quant=switch), LAPTOP, model)


def test_attention_values_that_agree_with_the_model_are_accepted(model: ModelInfo) -> None:
    plan = resolve(config(enable_gqa=True, gqa_group_size=7), LAPTOP, model).plan
    assert (plan.enable_gqa, plan.gqa_group_size) == (True, 7)


def test_gpu_settings_on_the_cpu_are_accepted_and_explained(model: ModelInfo) -> None:
    effective = resolve(
        config(
            data_type="bf16",
            quant_type="triton_int8weight",
            kv_cache_mode="int8",
            load_trt=True,
            trt_max_batch_size=4,
            disable_cudagraph=False,
            graph_max_batch_size=8,
            use_flash_attention=True,
            fa_kernel_type="triton",
        ),
        LAPTOP,
        model,
    )
    plan = effective.plan
    assert (plan.data_type, plan.quant_type, plan.kv_cache_mode, plan.load_trt) == ("fp32", "none", "none", False)
    reasons = notes_of(effective)
    assert "fp32" in reasons.pop("data_type")
    assert len(reasons) == 8
    assert all("needs a GPU" in reason and "runs on the CPU" in reason for reason in reasons.values())


def test_settings_that_do_not_act_yet_say_so_on_a_gpu(model: ModelInfo) -> None:
    effective = resolve(
        config(quant_type="triton_int8weight", kv_cache_mode="int8", load_trt=True, workers=1), with_gpu(80), model
    )
    reasons = notes_of(effective)
    assert set(reasons) == {"quant_type", "kv_cache_mode", "load_trt"}
    assert all("which this version does not have" in reason for reason in reasons.values())


def test_captured_graphs_act_on_a_gpu_as_asked(model: ModelInfo) -> None:
    effective = resolve(config(graph_max_batch_size=16, graph_max_len_in_batch=1024), with_gpu(24), model)
    plan = effective.plan
    assert effective.notes == ()
    assert (plan.disable_cudagraph, plan.graph_max_batch_size, plan.graph_max_len_in_batch) == (False, 16, 1024)
    assert resolve(config(disable_cudagraph=True), with_gpu(24), model).plan.disable_cudagraph


def test_switching_off_what_is_off_needs_no_note(model: ModelInfo) -> None:
    values = config(load_trt=False, disable_cudagraph=True, quant_type="none", use_flash_attention=False)
    assert resolve(values, LAPTOP, model).notes == ()
    assert resolve(values, with_gpu(24), model).notes == ()


@pytest.mark.parametrize(
    ("asked_type", "capability", "expected"),
    [
        (None, (9, 0), "bf16"),
        (None, (7, 5), "fp32"),
        ("bf16", (7, 5), "fp32"),
        ("fp16", (7, 5), "fp16"),
        ("fp32", (9, 0), "fp32"),
        ("bf16", (0, 0), "bf16"),
    ],
)
def test_data_type_follows_the_compute_capability(
    asked_type: str | None, capability: tuple[int, int], expected: str
) -> None:
    data_type, notes = choose_data_type(config(data_type=asked_type), with_gpu(24, capability))
    assert data_type == expected
    assert bool(notes) == (asked_type not in (None, expected))


@pytest.mark.parametrize(
    ("wanted", "machine", "device"),
    [
        (None, LAPTOP, "cpu"),
        (None, with_gpu(24), "cuda:0"),
        ("cpu", with_gpu(24), "cpu"),
        ("cuda", with_gpu(24), "cuda:0"),
        ("cuda:3", Machine(cores=4, memory_bytes=GIB, gpu=GPU("third", index=3)), "cuda:3"),
    ],
)
def test_device_is_the_gpu_that_is_there_unless_the_cpu_is_asked_for(
    wanted: str | None, machine: Machine, device: str
) -> None:
    assert choose_device(config(device=wanted), machine) == device


def test_key_value_bytes_come_from_the_models_dimensions(model: ModelInfo) -> None:
    assert kv_bytes_per_token(model.llm, "bf16") == 12 * 1024
    assert kv_bytes_per_token(model.llm, "fp32") == 24 * 1024


def test_cache_shrinks_to_a_quarter_of_the_memory_with_a_note(model: ModelInfo) -> None:
    effective = resolve(config(), Machine(cores=2, memory_bytes=GIB), model)
    plan = effective.plan
    assert plan.max_total_token_num * 24 * 1024 <= GIB // 4
    assert plan.max_total_token_num % plan.kv_block_size == 0
    assert plan.max_req_total_len <= plan.max_total_token_num
    assert "quarter of the memory" in notes_of(effective)["max_total_token_num"]


def test_every_style_and_worker_takes_its_share_of_the_cache_memory(model: ModelInfo) -> None:
    styled = msgspec.structs.replace(model, styles=["a", "b", "c"])
    machine = with_gpu(24)
    plan = resolve(config(workers=2), machine, styled).plan
    assert plan.max_total_token_num * 12 * 1024 * 6 <= 24 * GIB // 4


def test_long_request_asked_for_grows_the_planned_cache(model: ModelInfo) -> None:
    plan = resolve(config(max_req_total_len=20_000), LAPTOP, model).plan
    assert plan.max_total_token_num >= 20_000 // plan.kv_block_size * plan.kv_block_size
    assert plan.max_req_total_len <= plan.max_total_token_num


def test_values_outside_the_recommended_range_are_followed_with_a_warning(model: ModelInfo) -> None:
    effective = resolve(config(router_max_wait_tokens=512), LAPTOP, model)
    assert effective.plan.router_max_wait_tokens == 512
    (note,) = effective.notes
    assert note.level == "warning"
    assert note_as_line(note).startswith("warning: router_max_wait_tokens = 512: outside the recommended 1 to 16")


def test_more_threads_than_cores_are_warned_about(model: ModelInfo) -> None:
    effective = resolve(config(threads={"llm": 8}), LAPTOP, model)
    assert "2 cores" in notes_of(effective)["threads.llm"]


def test_numa_node_pins_the_stages_that_have_no_set_of_their_own(model: ModelInfo) -> None:
    plan = resolve(config(numa_node=1, cpu_affinity={"llm": "16-17"}), SERVER, model).plan
    assert plan.cpu_affinity.encode == tuple(range(16, 32))
    assert plan.cpu_affinity.llm == (16, 17)


def test_stages_share_the_cpus_that_are_this_pods_alone(model: ModelInfo) -> None:
    alone = replace(SERVER, cores=8, cpus=tuple(range(12, 20)), online=32, gpu_node=0)
    plan = resolve(config(exclusive_cpus=8, exclusive_by_node=True, encode_process_num=1), alone, model).plan
    sets = (plan.cpu_affinity.encode, plan.cpu_affinity.llm, plan.cpu_affinity.decode)
    assert [cpu for cpus in sets for cpu in cpus] == [16, 17, 18, 19, 12, 13, 14, 15]
    assert all(sets)


def test_explicit_cpus_win_over_shares(model: ModelInfo) -> None:
    alone = replace(SERVER, cores=8, cpus=tuple(range(8)), online=32)
    plan = resolve(config(exclusive_cpus=8, cpu_affinity={"llm": "3"}), alone, model).plan
    assert (plan.cpu_affinity.encode, plan.cpu_affinity.llm) == ((), (3,))


def test_cpu_of_another_numa_node_is_refused(model: ModelInfo) -> None:
    with pytest.raises(ConfigError, match="belong to numa_node 1"):
        resolve(config(numa_node=1, cpu_affinity={"llm": "0"}), SERVER, model)


def test_absent_numa_node_is_refused(model: ModelInfo) -> None:
    with pytest.raises(ConfigError, match="allowed: 0, 1"):
        resolve(config(numa_node=5), SERVER, model)


def test_report_holds_plan_question_and_reasons(model: ModelInfo) -> None:
    requested = config(load_trt=True, cpu_affinity={"llm": "0"})
    document = report(resolve(requested, LAPTOP, model), requested, LAPTOP)
    assert document["plan"]["load_trt"] is False
    assert document["asked"] == {"load_trt": True, "cpu_affinity.llm": [0]}
    assert document["notes"][0]["field"] == "load_trt"
    assert document["machine"] == {"cores": 2, "memory_bytes": 24 * GIB, "gpu": None}
