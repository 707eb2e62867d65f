"""From what was asked, the machine and the model to the plan: every value decided, every deviation explained.

`resolve` is pure. The rules: an asked value is followed or, if the machine or this version cannot honour it, replaced
and noted; an absent one follows the default rules of `config.sizing`; contradictions are refused before (see
`config.checks`). `choose_device` and `choose_data_type` stand alone because a model is converted for a data type
before its dimensions are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ttsfleet_runtime.checkpoint.bundle import LLMInfo, ModelInfo
from ttsfleet_runtime.config import sizing
from ttsfleet_runtime.config.checks import Note, range_warnings, refuse_contradictions
from ttsfleet_runtime.config.engine import EngineConfig, asked, settings
from ttsfleet_runtime.config.exclusive import exclusive_order, is_exclusive, split_cpus
from ttsfleet_runtime.config.machine import Machine
from ttsfleet_runtime.config.plan import (
    AffinityPlan,
    EnginePlan,
    LimitsPlan,
    ServerPlan,
    ThreadsPlan,
)
from ttsfleet_runtime.errors import ConfigError

DataType = Literal["fp32", "fp16", "bf16"]

# What really runs in this version instead of a setting that is accepted but does not act yet.
_INERT: dict[str, object] = {
    "quant_type": "none",
    "custom_cfg_path": "",
    "kv_cache_mode": "none",
    "load_trt": False,
    "use_flash_attention": False,
    "fa_kernel_type": "sdpa",
}

# What the CPU runs whatever is asked: it has no graphs to capture.
_CPU_ONLY: dict[str, object] = {"disable_cudagraph": True}


@dataclass(frozen=True)
class Effective:
    """The decided plan, and a note for each value that is not what was asked."""

    plan: EnginePlan
    notes: tuple[Note, ...]


def resolve(config: EngineConfig, machine: Machine, model: ModelInfo) -> Effective:
    """Decide every value of the plan. Raises ConfigError for what contradicts itself, the model or the machine."""
    refuse_contradictions(config, machine, model.llm)
    device = choose_device(config, machine)
    values = _stage_values(config, machine, device)
    notes = range_warnings(config, machine)
    values["data_type"], data_type_notes = choose_data_type(config, machine)
    notes += data_type_notes
    values |= _attention_values(model.llm)
    values |= _INERT
    if device == "cpu":
        values |= _CPU_ONLY
    notes += _unhonoured(config, device)
    lengths, length_notes = _lengths(config, machine, model, values, device)
    values |= lengths
    notes += length_notes
    threads = _threads(config, machine, device, _int(values["decode_process_num"]))
    processes = {
        "encode": _int(values["encode_process_num"]),
        "llm": _int(values["workers"]),
        "decode": _int(values["workers"]) * max(1, _int(values["decode_process_num"])),
    }
    plan = EnginePlan(
        model_dir=config.model_dir or model.model_dir,
        voices_dir=config.voices_dir or "",
        cache_dir=config.cache_dir or "",
        device=device,
        styles=tuple(model.styles),
        numa_node=config.numa_node,
        threads=threads,
        cpu_affinity=_affinity(
            config, machine, {stage: count * getattr(threads, stage) for stage, count in processes.items()}
        ),
        server=ServerPlan.model_validate(_given(config, ServerPlan.model_fields)),
        limits=LimitsPlan.model_validate(config.limits.model_dump(exclude_none=True)),
        **values,  # type: ignore[arg-type]  # values by field name; pydantic checks each
    )
    return Effective(plan, tuple(notes))


def choose_device(config: EngineConfig, machine: Machine) -> str:
    """`cpu` or `cuda:N`. Raises ConfigError when a GPU was asked for and none is there."""
    wanted = config.device or "auto"
    if wanted == "cpu" or (wanted == "auto" and machine.gpu is None):
        return "cpu"
    if machine.gpu is None:
        raise ConfigError(
            f"device {wanted}: no such GPU is visible here; check nvidia-smi and the container's GPU, "
            "or use device: cpu (or auto)",
            param="device",
        )
    return f"cuda:{machine.gpu.index}"


def choose_data_type(config: EngineConfig, machine: Machine) -> tuple[DataType, list[Note]]:
    """The type of weights and activations, and a note when it is not the asked one.

    Raises ConfigError when a GPU was asked for and none is there.
    """
    wanted = config.data_type
    if choose_device(config, machine) == "cpu":
        if wanted in (None, "fp32"):
            return "fp32", []
        reason = "the CPU computes in fp32: it has no fast half-precision arithmetic, and tokens stay reproducible"
        return "fp32", [Note("data_type", wanted, "fp32", reason)]
    capability = machine.gpu.compute_capability if machine.gpu else (0, 0)
    if wanted is None:
        return ("bf16" if capability >= (8, 0) else "fp32"), []
    if wanted == "bf16" and (0, 0) < capability < (8, 0):
        reason = f"bf16 needs compute capability 8.0; this GPU has {capability[0]}.{capability[1]}"
        return "fp32", [Note("data_type", wanted, "fp32", reason)]
    return wanted, []


def _stage_values(config: EngineConfig, machine: Machine, device: str) -> dict[str, object]:
    """Counts and batch sizes of the stages, as asked or by the default rules."""
    on_gpu = device != "cpu"
    gpu_bytes = sizing.memory_of(machine, device) if on_gpu else None
    batch_max_tokens = config.batch_max_tokens or max(8192 if on_gpu else 512, config.gpt_paral_num or 0)
    defaults: dict[str, object] = {
        "workers": sizing.plan_workers(gpu_bytes) if gpu_bytes is not None else 1,
        "encode_process_num": sizing.plan_encoders(machine.cores),
        "gpt_paral_num": min(100 if on_gpu else 16, batch_max_tokens),
        "batch_max_tokens": batch_max_tokens,
        "decode_process_num": sizing.plan_decoders(machine.cores, gpu_bytes),
        "decode_paral_num": 64 if on_gpu else 16,
        "decode_max_batch_size": 8 if on_gpu else 4,
    }
    special = {*_INERT, "data_type", "model_dir", "voices_dir", "cache_dir", "device", "styles", "numa_node"}
    special |= {"schema_version", "max_total_token_num", "max_req_total_len", "enable_gqa", "gqa_group_size"}
    return defaults | {k: v for k, v in _given(config, EnginePlan.model_fields).items() if k not in special}


def _attention_values(llm: LLMInfo) -> dict[str, object]:
    group = llm.num_heads // llm.num_kv_heads
    return {"enable_gqa": group > 1, "gqa_group_size": group}


def _unhonoured(config: EngineConfig, device: str) -> list[Note]:
    """A note for each asked value that needs a GPU which is not there, or code which this version does not have."""
    values = asked(config)
    forced = _INERT | {"enable_kv_cache_quant": False} | (_CPU_ONLY if device == "cpu" else {})
    notes = []
    for setting in settings():
        parameter, path = setting.parameter, setting.path
        if path not in values or path == "data_type" or not parameter.gpu:
            continue
        value = values[path]
        if path in forced and forced[path] == value:
            continue
        if device == "cpu":
            reason = f"needs a GPU ({parameter.gpu}); this plan runs on the CPU"
        elif parameter.pending:
            reason = f"accepted; acts with {parameter.pending}"
        else:
            continue
        notes.append(Note(path, value, forced.get(path, value), reason))
    return notes


def _lengths(
    config: EngineConfig, machine: Machine, model: ModelInfo, values: dict[str, object], device: str
) -> tuple[dict[str, object], list[Note]]:
    """KV cache size and the longest sequence, within the memory of the device and the model's context."""
    notes: list[Note] = []
    on_gpu = device != "cpu"
    longest = config.max_req_total_len
    engines = _int(values["workers"]) * len(model.styles)
    token_bytes = sizing.kv_bytes_per_token(model.llm, str(values["data_type"]))
    memory = sizing.memory_of(machine, device)
    total = config.max_total_token_num
    if total is None:
        block = _int(values.get("kv_block_size", EnginePlan.model_fields["kv_block_size"].default))
        rule = 65_536 if on_gpu else sizing.CPU_TOKENS_PER_SEQUENCE * _int(values["gpt_paral_num"])
        wanted = max(rule, longest or 0)
        total = sizing.plan_total_tokens(wanted, token_bytes, memory, engines, block)
        if total < wanted // block * block:
            reason = f"a quarter of the memory holds no more ({token_bytes} bytes per token, {engines} engines)"
            notes.append(Note("max_total_token_num", None, total, reason))
        if longest is not None and longest > total:
            notes.append(Note("max_req_total_len", longest, total, "the KV cache that fits holds no more"))
            longest = total
    _refuse_too_large(total, token_bytes, engines, memory)
    rule = 32_768 if on_gpu else 4096
    return {"max_total_token_num": total, "max_req_total_len": min(longest or rule, total)}, notes


def _refuse_too_large(total: int, token_bytes: int, engines: int, memory: int) -> None:
    needed = total * token_bytes * engines
    if memory and needed > memory:
        raise ConfigError(
            f"max_total_token_num {total} takes {needed / sizing.GIB:.1f} GiB of KV cache ({token_bytes} bytes per "
            f"token, {engines} engines), more than all memory ({memory / sizing.GIB:.1f} GiB); allowed is at most "
            f"{memory // (token_bytes * engines)}, and weights and audio need their share",
            param="max_total_token_num",
        )


def _threads(config: EngineConfig, machine: Machine, device: str, decoders: int) -> ThreadsPlan:
    planned = sizing.plan_threads(machine.cores, on_gpu=device != "cpu", decoders=decoders)
    return planned.model_copy(update=config.threads.model_dump(exclude_none=True))


def _affinity(config: EngineConfig, machine: Machine, shares: Mapping[str, int]) -> AffinityPlan:
    """CPU sets as asked; with a NUMA node, stages without one of their own get the node's usable CPUs; where nothing
    was asked and the CPUs are this pod's alone, each stage gets its share of them."""
    given = config.cpu_affinity.model_dump(exclude_none=True)
    if config.numa_node is not None:
        node = tuple(cpu for cpu in machine.numa_nodes.get(config.numa_node, ()) if cpu in machine.cpus)
        return AffinityPlan.model_validate({"encode": node, "llm": node, "decode": node} | given)
    if not given and is_exclusive(config, machine):
        return AffinityPlan.model_validate(
            split_cpus(exclusive_order(machine, by_node=config.exclusive_by_node or False), shares)
        )
    return AffinityPlan.model_validate(given)


def _given(config: EngineConfig, names: object) -> dict[str, object]:
    """The asked top-level values whose names are among `names`."""
    return {path: value for path, value in asked(config).items() if path in names}  # type: ignore[operator]


def _int(value: object) -> int:
    assert isinstance(value, int), value
    return value
