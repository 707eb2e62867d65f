"""Default sizes: how many processes, threads and tokens suit a machine. Pure arithmetic, one function per decision.

The counts per GPU are the tuning guide's table read by memory (24 GB: 3 workers and 2 decoders, 40 GB: 4 and 3,
10 GB: 1 and 1). What the guide says nothing about is sized so that a full house of requests fits.
"""

from __future__ import annotations

from ttsfleet_runtime.checkpoint.bundle import LLMInfo
from ttsfleet_runtime.config.machine import Machine
from ttsfleet_runtime.config.plan import ThreadsPlan

GIB = 1 << 30
BYTES_PER_VALUE = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
CPU_TOKENS_PER_SEQUENCE = 1024  # a 200-character segment with a 10 s prompt takes about 600 positions
KV_SHARE_OF_MEMORY = 4  # all KV caches together take at most this fraction (1/4) by default


def plan_threads(cores: int, *, on_gpu: bool = False, decoders: int = 1) -> ThreadsPlan:
    """Compute threads per process of each stage.

    LLM and decoders get cores of their own: on two cores a decoder with both was slower than with one (RTF .236 and
    .199 at one client), since a passive OpenMP thread is woken for each of many short operations, and spinning ones
    were 30 times slower (docs/measurements.md).
    """
    encode = 1 if cores < 8 else 2
    if on_gpu:
        return ThreadsPlan(encode=encode, llm=1, decode=1)
    llm = max(1, min(8, cores // 2))
    return ThreadsPlan(encode=encode, llm=llm, decode=max(1, min(16, (cores - llm) // max(1, decoders))))


def plan_encoders(cores: int) -> int:
    """The guide's rule, cores / 2, kept within 1 to 8: each encoder maps the ONNX models once more."""
    return max(1, min(8, cores // 2))


def plan_workers(gpu_memory_bytes: int) -> int:
    """Engine sets on one GPU by its memory; 0 = unknown memory counts as small."""
    if gpu_memory_bytes < 20 * GIB:
        return 1
    return 3 if gpu_memory_bytes < 36 * GIB else 4


def plan_decoders(cores: int, gpu_memory_bytes: int | None) -> int:
    """Decoder processes per worker, by GPU memory or, on the CPU (None), by cores."""
    if gpu_memory_bytes is None:
        return 1 if cores < 8 else 2
    if gpu_memory_bytes < 20 * GIB:
        return 1
    return 2 if gpu_memory_bytes < 36 * GIB else 3


def kv_bytes_per_token(llm: LLMInfo, value_type: str) -> int:
    """Bytes that one position takes in the KV cache: keys and values of every layer."""
    return llm.num_layers * 2 * llm.num_kv_heads * llm.head_dim * BYTES_PER_VALUE[value_type]


def memory_of(machine: Machine, device: str) -> int:
    """Bytes of the memory that the KV cache lies in; 0 = unknown."""
    if device == "cpu":
        return machine.memory_bytes
    return machine.gpu.memory_bytes if machine.gpu else 0


def plan_total_tokens(wanted: int, token_bytes: int, memory_bytes: int, engines: int, block: int) -> int:
    """Positions of one engine's KV cache: `wanted`, or what a quarter of the memory holds, in whole blocks."""
    fits = memory_bytes // KV_SHARE_OF_MEMORY // (token_bytes * engines) if memory_bytes else wanted
    return max(256, min(wanted, fits)) // block * block
