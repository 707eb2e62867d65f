"""`spec.engine` and `spec.server`: the guide's parameters under the guide's names.

All fields are optional and have no default: an absent value is the planner's to decide, and a default in the schema
would be stored in the object and survive every later, better plan.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from ttsfleet_operator.api.base import GuideStruct, refuse

DataType: TypeAlias = Literal["fp32", "fp16", "bf16"]
QuantType: TypeAlias = Literal["none", "triton_int8weight", "triton-fp8w8a8-b128", "custom"]
KVCacheMode: TypeAlias = Literal["none", "int8"]


class EngineOverrides(GuideStruct):
    """Engine values that a user fixes, for all classes (`spec.engine`) or for one (`classes[].engine`)."""

    workers: Annotated[int, Field(ge=1, le=16)] | None = None
    data_type: DataType | None = None
    quant_type: QuantType | None = None
    kv_cache_mode: KVCacheMode | None = None
    enable_kv_cache_quant: bool | None = None
    max_total_token_num: Annotated[int, Field(ge=256, le=16_777_216)] | None = None
    max_req_total_len: Annotated[int, Field(ge=128, le=32_768)] | None = None
    cache_capacity: Annotated[int, Field(ge=1, le=100_000)] | None = None
    encode_process_num: Annotated[int, Field(ge=1, le=64)] | None = None
    encode_paral_num: Annotated[int, Field(ge=1, le=256)] | None = None
    encode_max_batch_size: Annotated[int, Field(ge=1, le=256)] | None = None
    gpt_paral_num: Annotated[int, Field(ge=1, le=4096)] | None = None
    batch_max_tokens: Annotated[int, Field(ge=64, le=1_048_576)] | None = None
    router_max_wait_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    decode_process_num: Annotated[int, Field(ge=0, le=64)] | None = None
    decode_paral_num: Annotated[int, Field(ge=1, le=1024)] | None = None
    decode_max_batch_size: Annotated[int, Field(ge=1, le=256)] | None = None
    graph_max_batch_size: Annotated[int, Field(ge=1, le=512)] | None = None
    graph_max_len_in_batch: Annotated[int, Field(ge=64, le=32_768)] | None = None
    disable_cudagraph: bool | None = None
    load_trt: bool | None = None
    trt_max_batch_size: Annotated[int, Field(ge=1, le=256)] | None = None
    trt_precision: DataType | None = None
    trt_workspace_size: Annotated[int, Field(ge=1 << 20, le=1 << 40)] | None = None
    use_flash_attention: bool | None = None
    fa_kernel_type: Literal["triton", "sdpa"] | None = None
    enable_gqa: bool | None = None
    gqa_group_size: Annotated[int, Field(ge=1, le=128)] | None = None

    @model_validator(mode="after")
    def _one_word_on_the_kv_cache(self) -> EngineOverrides:
        mode, quant = self.kv_cache_mode, self.enable_kv_cache_quant
        if mode is not None and quant is not None and quant != (mode == "int8"):
            raise refuse(
                "kv_cache_contradiction",
                f"kv_cache_mode {mode} contradicts enable_kv_cache_quant {str(quant).lower()}; "
                "give kv_cache_mode alone",
            )
        return self

    @model_validator(mode="after")
    def _a_request_fits_the_pool(self) -> EngineOverrides:
        longest, pool = self.max_req_total_len, self.max_total_token_num
        if longest is not None and pool is not None and longest > pool:
            raise refuse(
                "request_exceeds_pool",
                f"max_req_total_len {longest} exceeds max_total_token_num {pool}; such a request could never run",
            )
        return self

    @model_validator(mode="after")
    def _a_step_holds_every_sequence(self) -> EngineOverrides:
        positions, sequences = self.batch_max_tokens, self.gpt_paral_num
        if positions is not None and sequences is not None and positions < sequences:
            raise refuse(
                "step_too_small",
                f"batch_max_tokens {positions} is less than gpt_paral_num {sequences}, but each running sequence "
                "takes one position of every step",
            )
        return self

    def given(self) -> dict[str, object]:
        """The values that the user wrote, by guide name."""
        return self.model_dump(exclude_none=True)


class ServerOptions(GuideStruct):
    """`spec.server`: settings of the HTTP and WebSocket server; an absent one is the runtime's default."""

    httpserver_workers: Annotated[int, Field(ge=1, le=64)] | None = None
    worker_connections: Annotated[int, Field(ge=1, le=100_000)] | None = None
    max_requests: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    max_requests_jitter: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    timeout: Annotated[float, Field(ge=1, le=86_400)] | None = None
    keepalive: Annotated[float, Field(ge=0, le=3600)] | None = None
    ws_max_size: Annotated[int, Field(ge=1024, le=1 << 30)] | None = None
    ws_ping_interval: Annotated[float, Field(ge=1, le=3600)] | None = None
    ws_ping_timeout: Annotated[float, Field(ge=1, le=3600)] | None = None
    ws_max_queue: Annotated[int, Field(ge=1, le=65_536)] | None = None

    def given(self) -> dict[str, object]:
        """The values that the user wrote, by guide name."""
        return self.model_dump(exclude_none=True)
