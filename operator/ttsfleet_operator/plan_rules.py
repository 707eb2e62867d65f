"""The lowest layer of a plan: the tuning guide's rules and values, for a GPU and for the CPU class. Pure.

Where the guide is not followed the reason says so. Each rule yields (value, reason).
"""

from __future__ import annotations

from typing import TypeAlias

Rule: TypeAlias = tuple[object, str]

MAX_ENCODERS = 8
ASSUMED_CORES = 8  # a pod without a CPU request: the guide's container

_GPU_VALUES: dict[str, Rule] = {
    "workers": (1, "one set until a profile says more"),
    "data_type": ("bf16", "the flow overflows in plain fp16"),
    "quant_type": ("none", "no quantisation unless the profile names one"),
    "kv_cache_mode": ("none", "16-bit KV costs 12 KiB a token; int8 is opt-in"),
    "max_total_token_num": (65536, "the guide's pool"),
    "max_req_total_len": (32768, "the guide's longest request"),
    "encode_paral_num": (4, "the guide's 4 tasks in flight per encoder"),
    "encode_max_batch_size": (8, "the guide's encoder batch"),
    "gpt_paral_num": (100, "the guide's 100 sequences"),
    "batch_max_tokens": (8192, "the guide's prefill budget"),
    "decode_process_num": (1, "one decoder until a profile says more"),
    "decode_paral_num": (64, "segments advance by Euler steps here, so more than the guide's 2 may be open"),
    "decode_max_batch_size": (8, "the guide's upper value: batches are bounded by frames"),
    "graph_max_batch_size": (8, "the guide's largest captured batch"),
    "graph_max_len_in_batch": (512, "the guide's longest captured context"),
    "disable_cudagraph": (False, "a launch-bound step needs graphs"),
    "load_trt": (False, "TensorRT only where the profile has it"),
    "use_flash_attention": (True, "the guide's setting"),
    "fa_kernel_type": ("triton", "the guide's setting"),
    "trt_max_batch_size": (8, "the guide's TensorRT batch"),
    "trt_precision": ("fp16", "the guide's setting"),
    "trt_workspace_size": (1 << 30, "the guide's 1 GiB"),
}
_CPU_VALUES: dict[str, Rule] = {
    "workers": (1, "more sets only take the cores from each other"),
    "data_type": ("fp32", "the CPU computes in fp32"),
    "max_total_token_num": (16384, "16 sequences of 1024 positions"),
    "max_req_total_len": (4096, "a quarter of the pool"),
    "encode_paral_num": (4, "the guide's 4 tasks in flight per encoder"),
    "encode_max_batch_size": (8, "the guide's encoder batch"),
    "gpt_paral_num": (16, "more streams than a CPU can keep up with"),
    "batch_max_tokens": (512, "running streams stand still while more is prefilled"),
    "decode_paral_num": (16, "as many segments as sequences"),
    "decode_max_batch_size": (4, "the guide's decoder batch"),
}
_SHARED_VALUES: dict[str, Rule] = {
    "cache_capacity": (100, "the guide's voice cache"),
    "router_max_wait_tokens": (1, "not the guide's 512: a new request would wait seconds for its first step"),
}
GPU_ONLY = frozenset(
    {
        "quant_type",
        "kv_cache_mode",
        "graph_max_batch_size",
        "graph_max_len_in_batch",
        "disable_cudagraph",
        "load_trt",
        "trt_max_batch_size",
        "trt_precision",
        "trt_workspace_size",
        "use_flash_attention",
        "fa_kernel_type",
    }
)


def guide_values(on_gpu: bool, cores: int) -> dict[str, Rule]:
    """Every engine value that a plan has, by guide name, for a device kind and a number of cores.

    The CPU's has no value of `GPU_ONLY`: one that a user gives is passed on, and the runtime says that it is idle.
    """
    values = (_GPU_VALUES if on_gpu else _CPU_VALUES) | _SHARED_VALUES
    encoders = max(1, min(MAX_ENCODERS, cores // 2))
    values |= {"encode_process_num": (encoders, f"cores / 2 of {cores} cores, 1 to {MAX_ENCODERS}")}
    if not on_gpu:
        decoders = 1 if cores < 8 else 2
        values |= {"decode_process_num": (decoders, f"one decoder, two from 8 cores ({cores} here)")}
    decoders_now = values["decode_process_num"][0]
    assert isinstance(decoders_now, int)
    return values | thread_values(on_gpu, cores, decoders_now)


def thread_values(on_gpu: bool, cores: int, decoders: int) -> dict[str, Rule]:
    """Compute threads per process of each stage.

    LLM and decoders get cores of their own: on two cores a decoder with both was slower than with one (RTF .236 and
    .199 at one client), since a passive OpenMP thread is woken for each of many short operations, and spinning ones
    were 30 times slower (docs/measurements.md).
    """
    encode = 1 if cores < 8 else 2
    if on_gpu:
        reason = "the GPU computes; the process only launches"
        return {
            "threads.encode": (encode, f"{cores} cores"),
            "threads.llm": (1, reason),
            "threads.decode": (1, reason),
        }
    llm = max(1, min(8, cores // 2))
    decode = max(1, min(16, (cores - llm) // max(1, decoders)))
    return {
        "threads.encode": (encode, f"{cores} cores"),
        "threads.llm": (llm, f"half of {cores} cores, at most 8"),
        "threads.decode": (decode, f"what the LLM leaves of {cores} cores, shared by {max(1, decoders)}"),
    }
