"""Settings of the three stages: how many processes, how much work each keeps in flight, how large batches grow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ttsfleet_runtime.config.parameter import Parameter, Settings


class EncodeSettings(Settings):
    """Encode: text to tokens, prompt audio to voice entries"""

    encode_process_num: Annotated[
        int | None,
        Field(ge=1, le=64),
        Parameter(
            meaning="encoder processes; they run on the CPU",
            default="cores / 2, from 1 to 8",
            acts_on="encode",
            unit="processes",
            guide="cores / 2",
        ),
    ] = None
    encode_paral_num: Annotated[
        int | None,
        Field(ge=1, le=256),
        Parameter(
            meaning="tasks that each encoder keeps in flight",
            default="4",
            acts_on="encode",
            unit="tasks",
            guide="4; range 4–8",
            recommended=(4, 8),
            reason="fewer leaves batches unfilled, more only moves the queue into the process",
        ),
    ] = None
    encode_max_batch_size: Annotated[
        int | None,
        Field(ge=1, le=256),
        Parameter(
            meaning="texts that one encoder tokenises together, at most",
            default="8",
            acts_on="encode",
            unit="texts",
            guide="8; range 4–16",
            recommended=(4, 16),
            reason="memory grows with the batch, and a prompt waits for its slowest neighbour",
        ),
    ] = None
    cache_capacity: Annotated[
        int | None,
        Field(ge=1, le=100_000),
        Parameter(
            meaning="voice entries kept by content hash; the least recently used leaves first",
            default="100",
            acts_on="router",
            unit="voices",
            guide="100",
        ),
    ] = None


class LLMSettings(Settings):
    """LLM: text tokens to speech tokens"""

    gpt_paral_num: Annotated[
        int | None,
        Field(ge=1, le=4096),
        Parameter(
            meaning="sequences that one LLM engine runs at the same time, at most",
            default="100 on a GPU; 16 on the CPU",
            acts_on="llm",
            unit="sequences",
            guide="100; 200 and more for throughput",
            recommended=(1, 512),
            reason="a step grows with its batch: beyond this every stream falls behind playback together",
        ),
    ] = None
    batch_max_tokens: Annotated[
        int | None,
        Field(ge=64, le=1_048_576),
        Parameter(
            meaning="positions that one LLM step computes, prefill chunks and running sequences together, at most",
            default="8192 on a GPU; 512 on the CPU",
            acts_on="llm",
            unit="tokens",
            guide="8192; range 4096–16384 (for a GPU)",
            recommended=(256, 16384),
            reason="running streams stand still while a step of many prefill tokens is computed",
        ),
    ] = None
    router_max_wait_tokens: Annotated[
        int | None,
        Field(ge=1, le=4096),
        Parameter(
            meaning="LLM steps between two looks at the waiting requests, at most",
            default="1",
            acts_on="llm",
            unit="steps",
            guide="512 (not followed)",
            recommended=(1, 16),
            reason="a new request waits that many steps before its first one, seconds at the guide's 512",
        ),
    ] = None
    max_total_token_num: Annotated[
        int | None,
        Field(ge=256, le=16_777_216),
        Parameter(
            meaning="positions that the KV cache of one LLM engine holds, all its sequences together",
            default="65536 on a GPU, 1024 per sequence of gpt_paral_num on the CPU, both bounded by memory",
            acts_on="llm",
            unit="tokens",
            guide="65536",
        ),
    ] = None
    max_req_total_len: Annotated[
        int | None,
        Field(ge=128, le=32_768),
        Parameter(
            meaning="positions of one sequence: prompt, text and speech tokens; the language model knows 32768",
            default="32768 on a GPU, 4096 on the CPU, and no more than max_total_token_num",
            acts_on="llm",
            unit="tokens",
            guide="32768",
        ),
    ] = None
    kv_block_size: Annotated[
        int | None,
        Field(ge=8, le=256),
        Parameter(
            meaning="positions per block of the paged KV cache",
            default="16",
            acts_on="llm",
            unit="tokens",
            recommended=(16, 64),
            reason="small blocks make long block tables, large ones waste half a block per sequence",
        ),
    ] = None


class DecodeSettings(Settings):
    """Decode: speech tokens to audio"""

    decode_process_num: Annotated[
        int | None,
        Field(ge=0, le=64),
        Parameter(
            meaning="decoder processes per worker; 0 runs the stage inside the LLM process",
            default="GPU: 1 below 20 GiB, 2 below 36 GiB, else 3; CPU: 1 up to 7 cores, else 2",
            acts_on="decode",
            unit="processes",
            guide="24 GB: 2, 40 GB: 3, 10 GB: 1",
            recommended=(0, 4),
            reason="each process holds the weights and, on a GPU, a CUDA context of its own",
        ),
    ] = None
    decode_paral_num: Annotated[
        int | None,
        Field(ge=1, le=1024),
        Parameter(
            meaning="segments that one decoder advances in turn; others wait in its queue",
            default="64 on a GPU, 16 on the CPU",
            acts_on="decode",
            unit="segments",
            guide="2; range 2–4 (threads there, jobs at Euler-step granularity here)",
            recommended=(2, 256),
            reason="with one, a long segment blocks every first chunk behind it",
        ),
    ] = None
    decode_max_batch_size: Annotated[
        int | None,
        Field(ge=1, le=256),
        Parameter(
            meaning="segments in one batch of flow or vocoder, at most",
            default="8 on a GPU, 4 on the CPU",
            acts_on="decode",
            unit="segments",
            guide="4; range 2–8",
            recommended=(2, 16),
            reason="one gives batching away; large batches delay the chunk that is due first",
        ),
    ] = None
    final_chunk: Annotated[
        Literal["reference", "streaming"] | None,
        Parameter(
            meaning="attention of a stream's last chunk: over everything again as the reference does, or by chunks",
            default="reference",
            acts_on="decode",
        ),
    ] = None


class ThreadSettings(Settings):
    """Compute threads of one process of each stage"""

    encode: Annotated[
        int | None,
        Field(ge=1, le=256),
        Parameter(
            meaning="compute threads of each encoder (OMP_NUM_THREADS and the ONNX sessions)",
            default="1 up to 7 cores, else 2",
            acts_on="encode",
            unit="threads",
            guide="OMP_NUM_THREADS=8 for all",
        ),
    ] = None
    llm: Annotated[
        int | None,
        Field(ge=1, le=256),
        Parameter(
            meaning="compute threads of each LLM process (OMP_NUM_THREADS)",
            default="CPU: cores / 2, from 1 to 8; GPU: 1",
            acts_on="llm",
            unit="threads",
            guide="OMP_NUM_THREADS=8 for all",
        ),
    ] = None
    decode: Annotated[
        int | None,
        Field(ge=1, le=256),
        Parameter(
            meaning="compute threads of each decoder (OMP_NUM_THREADS)",
            default="CPU: what the LLM leaves of the cores, from 1 to 16, shared by the decoders; GPU: 1",
            acts_on="decode",
            unit="threads",
            guide="OMP_NUM_THREADS=8 for all",
        ),
    ] = None
