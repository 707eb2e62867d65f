"""What is said about the values that a user asked for: contradictions are refused, doubtful values get a note.

Pure. A `ConfigError` from here names the fields, their values, what would be allowed and the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ttsfleet_runtime.checkpoint.bundle import LLMInfo
from ttsfleet_runtime.config.engine import EngineConfig, asked, settings
from ttsfleet_runtime.config.machine import Machine
from ttsfleet_runtime.errors import ConfigError


@dataclass(frozen=True)
class Note:
    """Why an effective value differs from what was asked, or (`warning`) why the asked one is doubtful.

    `asked` is None when the user gave no value and the default rule could not be followed.
    """

    field: str
    asked: object
    effective: object
    reason: str
    level: Literal["note", "warning"] = "note"


def refuse_contradictions(config: EngineConfig, machine: Machine, llm: LLMInfo) -> None:
    """Raise ConfigError for values that exclude each other, the model or the machine."""
    _check_kv_cache(config)
    _check_quantisation(config)
    _check_attention(config, llm)
    _check_lengths(config)
    _check_placement(config, machine)


def range_warnings(config: EngineConfig, machine: Machine) -> list[Note]:
    """A warning for each value outside its recommended range, and for more processes or threads than cores."""
    values = asked(config)
    notes = []
    for setting in settings():
        value, recommended = values.get(setting.path), setting.parameter.recommended
        if recommended is None or not isinstance(value, int | float):
            continue
        least, most = recommended
        if not least <= value <= most:
            reason = f"outside the recommended {least:g} to {most:g}: {setting.parameter.reason}"
            notes.append(Note(setting.path, value, value, reason, "warning"))
    for path in ("encode_process_num", "threads.encode", "threads.llm", "threads.decode"):
        value = values.get(path)
        if isinstance(value, int) and value > machine.cores:
            reason = f"this machine has {machine.cores} cores: more only take them from each other"
            notes.append(Note(path, value, value, reason, "warning"))
    return notes


def _check_kv_cache(config: EngineConfig) -> None:
    mode, switch = config.kv_cache_mode, config.enable_kv_cache_quant
    if mode is not None and switch is not None and switch != (mode == "int8"):
        raise ConfigError(
            f"kv_cache_mode {mode} contradicts enable_kv_cache_quant {_text(switch)}; "
            "give kv_cache_mode alone: none or int8",
            param="kv_cache_mode",
        )


def _check_quantisation(config: EngineConfig) -> None:
    if config.quant_type == "custom" and not config.custom_cfg_path:
        raise ConfigError(
            "quant_type custom needs custom_cfg_path, the file that says how each layer is quantised",
            param="custom_cfg_path",
        )
    if config.custom_cfg_path and config.quant_type != "custom":
        raise ConfigError(
            f"custom_cfg_path {config.custom_cfg_path} is read only with quant_type custom, which is "
            f"{config.quant_type or 'not set'}; set quant_type: custom or remove custom_cfg_path",
            param="custom_cfg_path",
        )


def _check_attention(config: EngineConfig, llm: LLMInfo) -> None:
    group = llm.num_heads // llm.num_kv_heads
    heads = f"{llm.num_heads} query and {llm.num_kv_heads} KV heads"
    if config.enable_gqa is not None and config.enable_gqa != (group > 1):
        raise ConfigError(
            f"enable_gqa {_text(config.enable_gqa)} contradicts the model, which has {heads}; "
            "remove enable_gqa, it is read from the model",
            param="enable_gqa",
        )
    if config.gqa_group_size is not None and config.gqa_group_size != group:
        raise ConfigError(
            f"gqa_group_size {config.gqa_group_size} contradicts the model, which has {heads}, groups of {group}; "
            "remove gqa_group_size, it is read from the model",
            param="gqa_group_size",
        )


def _check_lengths(config: EngineConfig) -> None:
    total, longest = config.max_total_token_num, config.max_req_total_len
    if total is not None and longest is not None and longest > total:
        raise ConfigError(
            f"max_req_total_len {longest} exceeds max_total_token_num {total}: such a request could never run; "
            f"allowed is at most {total}",
            param="max_req_total_len",
        )
    positions, sequences = config.batch_max_tokens, config.gpt_paral_num
    if positions is not None and sequences is not None and positions < sequences:
        raise ConfigError(
            f"batch_max_tokens {positions} is less than gpt_paral_num {sequences}, but each running sequence takes "
            f"one position of every step; raise batch_max_tokens to {sequences} or more, or lower gpt_paral_num",
            param="batch_max_tokens",
        )


def _check_placement(config: EngineConfig, machine: Machine) -> None:
    node = config.numa_node
    if node is not None and machine.numa_nodes and node not in machine.numa_nodes:
        raise ConfigError(
            f"numa_node {node} does not exist here; allowed: {', '.join(map(str, sorted(machine.numa_nodes)))}",
            param="numa_node",
        )
    for stage in ("encode", "llm", "decode"):
        wanted = getattr(config.cpu_affinity, stage) or ()
        usable = set(machine.cpus)
        where = "this process may use"
        if node is not None and node in machine.numa_nodes:
            usable &= set(machine.numa_nodes[node])
            where = f"belong to numa_node {node} and {where}"
        missing = sorted(set(wanted) - usable)
        if missing and machine.cpus:
            raise ConfigError(
                f"cpu_affinity.{stage} names CPU {', '.join(map(str, missing))}; "
                f"the CPUs that {where} are {', '.join(map(str, sorted(usable))) or 'none'}",
                param=f"cpu_affinity.{stage}",
            )


def _text(value: bool) -> str:
    return "true" if value else "false"
