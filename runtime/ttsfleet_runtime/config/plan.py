"""The effective configuration: every value decided, frozen, and handed to each process as one JSON file.

`config.engine.EngineConfig` is what a user wrote (all optional); `config.resolve` turns it into this, with a note
for each value that differs from what was asked. Nothing below `config/` reads the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerPlan(_Frozen):
    host: str = "0.0.0.0"
    port: int = 8080
    management_host: str = "0.0.0.0"
    management_port: int = 8081
    httpserver_workers: int = 1
    worker_connections: int = 1000
    max_requests: int = 10000
    max_requests_jitter: int = 1000
    timeout: float = 300.0
    keepalive: float = 2.0
    ws_max_size: int = 16777216
    ws_ping_interval: float = 20.0
    ws_ping_timeout: float = 20.0
    ws_max_queue: int = 1024
    cors_origins: tuple[str, ...] = ()
    drain_seconds: float = 30.0


class LimitsPlan(_Frozen):
    input_chars: int = 4096
    prompt_seconds: float = 30.0
    prompt_bytes: int = 10 * 2**20
    prompt_text_chars: int = 1024
    registered_voices: int = 1000
    queued_requests: int = 256
    allow_private_ref_audio: bool = False


class ThreadsPlan(_Frozen):
    encode: int = 1
    llm: int = 1
    decode: int = 1


class AffinityPlan(_Frozen):
    """CPU sets per stage, e.g. (0, 1); empty = not pinned."""

    encode: tuple[int, ...] = ()
    llm: tuple[int, ...] = ()
    decode: tuple[int, ...] = ()


class EnginePlan(_Frozen):
    """All of engine.yaml with every value present, under the guide's names."""

    schema_version: int = 1
    model_dir: str
    voices_dir: str = ""
    cache_dir: str = ""
    device: str = "cpu"
    styles: tuple[str, ...] = ()
    workers: int = 1
    data_type: Literal["fp32", "fp16", "bf16"] = "fp32"
    quant_type: Literal["none", "triton_int8weight", "triton-fp8w8a8-b128", "custom"] = "none"
    custom_cfg_path: str = ""
    kv_cache_mode: Literal["none", "int8"] = "none"
    max_total_token_num: int = 16384
    max_req_total_len: int = 4096
    cache_capacity: int = 100
    encode_process_num: int = 1
    encode_paral_num: int = 4
    encode_max_batch_size: int = 8
    gpt_paral_num: int = 16
    batch_max_tokens: int = 2048
    router_max_wait_tokens: int = 1
    decode_process_num: int = 1
    decode_paral_num: int = 16
    decode_max_batch_size: int = 8
    graph_max_batch_size: int = 8
    graph_max_len_in_batch: int = 512
    disable_cudagraph: bool = False
    load_trt: bool = False
    trt_max_batch_size: int = 8
    trt_precision: Literal["fp32", "fp16", "bf16"] = "fp16"
    trt_workspace_size: int = 1 << 30
    use_flash_attention: bool = True
    fa_kernel_type: Literal["triton", "sdpa"] = "triton"
    enable_gqa: bool = True
    gqa_group_size: int = 1
    kv_block_size: int = 16
    final_chunk: Literal["reference", "streaming"] = "reference"
    threads: ThreadsPlan = ThreadsPlan()
    cpu_affinity: AffinityPlan = AffinityPlan()
    numa_node: int | None = None
    exclusive_cpus: int | None = None
    exclusive_by_node: bool = False
    server: ServerPlan = ServerPlan()
    limits: LimitsPlan = LimitsPlan()
    stage_timeout_seconds: float = 60.0


def write_plan(plan: EnginePlan, path: Path) -> None:
    path.write_text(plan.model_dump_json(indent=1))


def read_plan(path: Path) -> EnginePlan:
    return EnginePlan.model_validate_json(path.read_text())
