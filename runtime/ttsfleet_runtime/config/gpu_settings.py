"""Settings of numbers and acceleration: data type, quantisation, KV cache form, CUDA graphs, TensorRT, attention.

Those with `pending` are accepted and checked, but what they switch on is not in this version: the plan shows the
value that really runs and a note says why (see `config.resolve`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ttsfleet_runtime.config.parameter import Parameter, Settings

_KERNELS = "the CUDA backend's quantised kernels, which this version does not have"
_TENSORRT = "the TensorRT engine of the flow estimator, which this version does not have"
_ATTENTION = "the Triton attention kernels, which this version does not have; PyTorch's own attention runs"


class NumericSettings(Settings):
    """Numbers: data type and quantisation"""

    data_type: Annotated[
        Literal["fp32", "fp16", "bf16"] | None,
        Parameter(
            meaning="type of the LLM's weights and activations; flow and vocoder compute in fp32",
            default="GPU: bf16 from compute capability 8.0, else fp32; CPU: fp32",
            acts_on="llm",
            guide="FP16",
            gpu="fp16 and bf16 halve the LLM's memory and its time per step",
        ),
    ] = None
    quant_type: Annotated[
        Literal["none", "triton_int8weight", "triton-fp8w8a8-b128", "custom"] | None,
        Parameter(
            meaning="weight quantisation of the LLM",
            default="none",
            acts_on="llm",
            guide="triton_int8weight for many requests",
            gpu="smaller weights, faster steps; fp8 needs compute capability 8.9",
            pending=_KERNELS,
        ),
    ] = None
    custom_cfg_path: Annotated[
        str | None,
        Parameter(
            meaning="file that says how each layer is quantised; needed by quant_type custom, refused otherwise",
            default="none",
            acts_on="llm",
            unit="path",
            gpu="layers quantised one by one",
            pending=_KERNELS,
        ),
    ] = None
    kv_cache_mode: Annotated[
        Literal["none", "int8"] | None,
        Parameter(
            meaning="form of the KV cache",
            default="none",
            acts_on="llm",
            guide="int8",
            gpu="int8 doubles the positions that fit",
            pending=_KERNELS,
        ),
    ] = None
    enable_kv_cache_quant: Annotated[
        bool | None,
        Parameter(
            meaning="older switch for kv_cache_mode: true means int8; a contradiction between the two is refused",
            default="what kv_cache_mode says",
            acts_on="llm",
            guide="true",
            gpu="as kv_cache_mode",
            pending=_KERNELS,
        ),
    ] = None


class AccelerationSettings(Settings):
    """Acceleration: CUDA graphs, TensorRT, attention"""

    disable_cudagraph: Annotated[
        bool | None,
        Parameter(
            meaning="run every LLM step kernel by kernel instead of replaying a captured graph",
            default="false on a GPU; the CPU has no graphs",
            acts_on="llm",
            guide="false",
            gpu="graphs take the launch overhead out of a step",
        ),
    ] = None
    graph_max_batch_size: Annotated[
        int | None,
        Field(ge=1, le=512),
        Parameter(
            meaning="largest batch with a captured graph",
            default="8",
            acts_on="llm",
            unit="sequences",
            guide="8; range 4–16",
            recommended=(4, 128),
            reason="a larger batch runs without a graph; each captured size costs start-up time and memory",
            gpu="batches up to this size replay a graph",
        ),
    ] = None
    graph_max_len_in_batch: Annotated[
        int | None,
        Field(ge=64, le=32_768),
        Parameter(
            meaning="longest context with a captured graph",
            default="512",
            acts_on="llm",
            unit="tokens",
            guide="512",
            gpu="contexts up to this length replay a graph",
        ),
    ] = None
    load_trt: Annotated[
        bool | None,
        Parameter(
            meaning="run the flow estimator as a TensorRT engine",
            default="false",
            acts_on="decode",
            guide="true",
            gpu="builds an engine at the first start and caches it",
            pending=_TENSORRT,
        ),
    ] = None
    trt_max_batch_size: Annotated[
        int | None,
        Field(ge=1, le=256),
        Parameter(
            meaning="largest batch of the TensorRT engine",
            default="8",
            acts_on="decode",
            unit="segments",
            guide="8",
            gpu="sizes the engine's profile",
            pending=_TENSORRT,
        ),
    ] = None
    trt_precision: Annotated[
        Literal["fp32", "fp16", "bf16"] | None,
        Parameter(
            meaning="arithmetic of the TensorRT engine",
            default="fp16",
            acts_on="decode",
            guide="fp16",
            gpu="sets the engine's precision",
            pending=_TENSORRT,
        ),
    ] = None
    trt_workspace_size: Annotated[
        int | None,
        Field(ge=1 << 20, le=1 << 40),
        Parameter(
            meaning="scratch memory that TensorRT may use",
            default="1073741824 (1 GiB)",
            acts_on="decode",
            unit="bytes",
            guide="1073741824",
            recommended=(1 << 28, 1 << 34),
            reason="less excludes fast tactics, more is taken from the KV cache",
            gpu="bounds the engine's scratch memory",
            pending=_TENSORRT,
        ),
    ] = None
    use_flash_attention: Annotated[
        bool | None,
        Parameter(
            meaning="fused attention instead of separate matrix products",
            default="false: PyTorch chooses its kernel",
            acts_on="llm",
            guide="true",
            gpu="no score matrix in memory",
            pending=_ATTENTION,
        ),
    ] = None
    fa_kernel_type: Annotated[
        Literal["triton", "sdpa"] | None,
        Parameter(
            meaning="who provides the fused attention: own Triton kernels, or PyTorch (sdpa)",
            default="sdpa",
            acts_on="llm",
            guide="triton",
            gpu="chooses the kernel",
            pending=_ATTENTION,
        ),
    ] = None
    enable_gqa: Annotated[
        bool | None,
        Parameter(
            meaning="grouped-query attention; a property of the model, so a value that contradicts it is refused",
            default="read from the model",
            acts_on="llm",
            guide="true",
        ),
    ] = None
    gqa_group_size: Annotated[
        int | None,
        Field(ge=1, le=128),
        Parameter(
            meaning="query heads per KV head; a property of the model, so a value that contradicts it is refused",
            default="read from the model",
            acts_on="llm",
            unit="heads",
            guide="4",
        ),
    ] = None
