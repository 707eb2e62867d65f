"""`spec.engine` and `spec.server`: the guide's parameters under the guide's names.

All fields are optional and have no default: an absent value is the planner's to decide, and a default in the schema
would be stored in the object and survive every later, better plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from ttsfleet_operator.api.base import GuideStruct
from ttsfleet_operator.api.rules import Rule

DataType: TypeAlias = Literal["fp32", "fp16", "bf16"]
QuantType: TypeAlias = Literal["none", "triton_int8weight", "triton-fp8w8a8-b128", "custom"]
KVCacheMode: TypeAlias = Literal["none", "int8"]


def _kv_cache_contradiction(engine: EngineOverrides) -> Mapping[str, object] | None:
    mode, switch = engine.kv_cache_mode, engine.enable_kv_cache_quant
    if mode is None or switch is None or switch == (mode == "int8"):
        return None
    return {"kv_cache_mode": mode, "enable_kv_cache_quant": switch}


def _request_exceeds_pool(engine: EngineOverrides) -> Mapping[str, object] | None:
    longest, pool = engine.max_req_total_len, engine.max_total_token_num
    if longest is None or pool is None or longest <= pool:
        return None
    return {"max_req_total_len": longest, "max_total_token_num": pool}


def _step_too_small(engine: EngineOverrides) -> Mapping[str, object] | None:
    positions, sequences = engine.batch_max_tokens, engine.gpt_paral_num
    if positions is None or sequences is None or positions >= sequences:
        return None
    return {"batch_max_tokens": positions, "gpt_paral_num": sequences}


class EngineOverrides(GuideStruct):
    """Engine parameters fixed by the user, under the tuning guide's names. An absent one is planned per class from
    the GPU profile and the memory model; the class's ConfigMap `engine.yaml` holds every planned value."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            name="kv_cache_contradiction",
            cel="!has(self.kv_cache_mode) || !has(self.enable_kv_cache_quant) || "
            "self.enable_kv_cache_quant == (self.kv_cache_mode == 'int8')",
            message="kv_cache_mode {kv_cache_mode} contradicts enable_kv_cache_quant {enable_kv_cache_quant}; "
            "give kv_cache_mode alone",
            check=_kv_cache_contradiction,
        ),
        Rule(
            name="request_exceeds_pool",
            cel="!has(self.max_req_total_len) || !has(self.max_total_token_num) || "
            "self.max_req_total_len <= self.max_total_token_num",
            message="max_req_total_len {max_req_total_len} exceeds max_total_token_num {max_total_token_num}; "
            "such a request could never run",
            check=_request_exceeds_pool,
        ),
        Rule(
            name="step_too_small",
            cel="!has(self.batch_max_tokens) || !has(self.gpt_paral_num) || "
            "self.batch_max_tokens >= self.gpt_paral_num",
            message="batch_max_tokens {batch_max_tokens} is less than gpt_paral_num {gpt_paral_num}, but each "
            "running sequence takes one position of every step",
            check=_step_too_small,
        ),
    )

    workers: Annotated[int, Field(ge=1, le=16)] | None = None
    """Sets of LLM and decoder processes on one GPU. Each holds the weights and a KV cache of its own. Absent =
    planned from the GPU profile (3 on a 24 GB card, 4 on 40 GB, 1 on 10 GB)."""
    data_type: DataType | None = None
    """Type of the LLM's weights and activations. Absent = bf16 from compute capability 8.0, else what the profile
    says; fp32 on the CPU."""
    quant_type: QuantType | None = None
    """Weight quantisation of the LLM. triton-fp8w8a8-b128 needs compute capability 8.9 or newer; custom needs
    quantConfigRef. Absent = planned from the GPU profile."""
    kv_cache_mode: KVCacheMode | None = None
    """Form of the KV cache; int8 doubles the positions that fit. Absent = none (16 bit)."""
    enable_kv_cache_quant: bool | None = None
    """Older switch for kv_cache_mode: true means int8. A contradiction is refused. Absent = what kv_cache_mode
    says."""
    max_total_token_num: Annotated[int, Field(ge=256, le=16_777_216)] | None = None
    """Positions in the KV cache of one LLM engine, all its sequences together. Absent = planned, lowered until the
    plan fits the GPU's memory."""
    max_req_total_len: Annotated[int, Field(ge=128, le=32_768)] | None = None
    """Positions of one request: prompt, text and speech tokens together. Absent = planned, at most
    max_total_token_num."""
    cache_capacity: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Voices whose prompt features are kept, found by content hash; the least recently used leaves first.
    Absent = 100."""
    encode_process_num: Annotated[int, Field(ge=1, le=64)] | None = None
    """Encoder processes (text and prompt audio; they run on CPU cores). Absent = half of the pod's cores, 1 to 8."""
    encode_paral_num: Annotated[int, Field(ge=1, le=256)] | None = None
    """Tasks that each encoder keeps in flight. Absent = 4."""
    encode_max_batch_size: Annotated[int, Field(ge=1, le=256)] | None = None
    """Texts that one encoder tokenises together, at most. Absent = 8."""
    gpt_paral_num: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Sequences that one LLM engine runs at the same time, at most. Absent = planned from the GPU profile."""
    batch_max_tokens: Annotated[int, Field(ge=64, le=1_048_576)] | None = None
    """Positions that one LLM step computes, prefill and running sequences together, at most. Absent = planned."""
    router_max_wait_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    """LLM steps between two looks at the waiting requests, at most. Absent = 1; a large value makes new requests
    wait seconds."""
    decode_process_num: Annotated[int, Field(ge=0, le=64)] | None = None
    """Decoder processes (speech tokens to audio) per worker; 0 decodes inside the LLM process. Absent = planned from
    the GPU profile."""
    decode_paral_num: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Segments that one decoder advances in turn; more wait in its queue. Absent = planned."""
    decode_max_batch_size: Annotated[int, Field(ge=1, le=256)] | None = None
    """Segments in one batch of flow or vocoder, at most. Absent = planned from the GPU profile."""
    graph_max_batch_size: Annotated[int, Field(ge=1, le=512)] | None = None
    """Largest batch with a captured CUDA graph; larger ones run kernel by kernel. Absent = planned."""
    graph_max_len_in_batch: Annotated[int, Field(ge=64, le=32_768)] | None = None
    """Longest context, in positions, with a captured CUDA graph. Absent = 512."""
    disable_cudagraph: bool | None = None
    """Run every LLM step kernel by kernel instead of replaying a CUDA graph. Absent = false."""
    load_trt: bool | None = None
    """Run the flow estimator as a TensorRT engine. Absent = where the GPU profile says that it runs."""
    trt_max_batch_size: Annotated[int, Field(ge=1, le=256)] | None = None
    """Largest batch of the TensorRT engine. Absent = 8."""
    trt_precision: DataType | None = None
    """Arithmetic of the TensorRT engine. Absent = fp16."""
    trt_workspace_size: Annotated[int, Field(ge=1 << 20, le=1 << 40)] | None = None
    """Scratch memory, in bytes, that TensorRT may use. Absent = 1073741824 (1 GiB)."""
    use_flash_attention: bool | None = None
    """Fused attention instead of separate matrix products. Absent = true on a GPU."""
    fa_kernel_type: Literal["triton", "sdpa"] | None = None
    """Who provides the fused attention: own Triton kernels, or PyTorch (sdpa). Absent = triton."""
    enable_gqa: bool | None = None
    """Grouped-query attention. A property of the model: leave it absent; a value that contradicts the model is
    refused."""
    gqa_group_size: Annotated[int, Field(ge=1, le=128)] | None = None
    """Query heads per KV head. A property of the model: leave it absent; a value that contradicts the model is
    refused."""

    def given(self) -> dict[str, object]:
        """The values that the user wrote, by guide name."""
        return self.model_dump(exclude_none=True)


class ServerOptions(GuideStruct):
    """Settings of the pod's HTTP and WebSocket server. An absent one is the runtime's default."""

    httpserver_workers: Annotated[int, Field(ge=1, le=64)] | None = None
    """HTTP processes per pod; one serves hundreds of streams. Absent = 1."""
    worker_connections: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Open requests per HTTP process; beyond them clients get 429. Absent = 1000."""
    max_requests: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    """Requests after which an HTTP process is replaced, without cutting a stream; 0 = never. Absent = 10000."""
    max_requests_jitter: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Random addition to max_requests, so that processes are not replaced together. Absent = 1000."""
    timeout: Annotated[float, Field(ge=1, le=86_400)] | None = None
    """Seconds from a request's arrival to its last byte, at most. Absent = 300."""
    keepalive: Annotated[float, Field(ge=0, le=3600)] | None = None
    """Seconds that an idle connection stays open. Absent = 2."""
    ws_max_size: Annotated[int, Field(ge=1024, le=1 << 30)] | None = None
    """Largest WebSocket message in bytes. Absent = 16777216 (16 MiB)."""
    ws_ping_interval: Annotated[float, Field(ge=1, le=3600)] | None = None
    """Seconds between WebSocket pings. Absent = 20."""
    ws_ping_timeout: Annotated[float, Field(ge=1, le=3600)] | None = None
    """Seconds to wait for a WebSocket pong before the connection is given up. Absent = 20."""
    ws_max_queue: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Incoming WebSocket messages that wait, at most. Absent = 1024."""

    def given(self) -> dict[str, object]:
        """The values that the user wrote, by guide name."""
        return self.model_dump(exclude_none=True)
