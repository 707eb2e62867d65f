"""The memory model: what a plan takes on a device, in MiB. Pure arithmetic; nothing is measured here.

    device = workers x ( engines x (LLM weights + KV pool + activations + graphs)
                       + decoders x (flow + vocoder weights + activations + TensorRT) )
             + processes x CUDA context + driver reserve

`engines` is one per style, `decoders` is decode_process_num (0 = one, inside the LLM process: no context of its own).
Weights and KV are exact for the known models. Activations are an upper estimate from the widest layers; contexts
and reserve are constants of experience. What a running pod measures is reported beside the estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

MIB = 1 << 20

CUDA_CONTEXT_MIB = 450  # context, loaded kernels and library workspaces of one PyTorch process
DRIVER_RESERVE_MIB = 512
DRIVER_RESERVE_SHARE = 0.02
HEADROOM_SHARE = 0.08  # fragmentation, and what the activations' estimate may be wrong by
GRAPH_BASE_MIB = 64
GRAPH_PER_SIZE_MIB = 8
HOST_TORCH_MIB = 350  # resident size of a process that imported PyTorch, before any weight
HOST_DECODE_MIB = 900  # kernels compiled per length and packed weights of a decoder; tiny-en grew to 1.6 GiB in all
HOST_ENCODER_MIB = 180
HOST_BASE_MIB = 250  # router and one HTTP process
SEGMENT_FRAMES = 1500  # a long segment with its prompt: 30 s at 50 mel frames per second
VOCODER_FRAMES = 500
LIVE_FLOW_TENSORS = 16
LIVE_VOCODER_TENSORS = 3

BYTES_OF_DATA_TYPE = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0}
# Scales: int8 one fp16 per output channel (rounded up to 1 %), fp8 one fp32 per 128 x 128 block.
BYTES_OF_QUANT_TYPE = {"triton_int8weight": 1.01, "triton-fp8w8a8-b128": 1.001, "custom": 1.01}


@dataclass(frozen=True)
class ModelShape:
    """The dimensions that decide memory. Parameter counts are of the released files."""

    name: str
    llm_linear_parameters: int  # what quant_type shrinks: the matrices of the layers
    llm_other_parameters: int  # embeddings, output head, norms: kept in data_type
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    hidden_size: int
    ffn_size: int
    speech_vocabulary: int
    flow_parameters: int
    flow_width: int
    vocoder_parameters: int
    vocoder_floats_per_frame: int  # of the widest upsampled layer
    encoder_mib: int  # ONNX front ends, per encoder


COSYVOICE2 = ModelShape(
    name="cosyvoice2-0.5b",
    llm_linear_parameters=357_900_000,
    llm_other_parameters=148_000_000,
    layers=24,
    query_heads=14,
    kv_heads=2,
    head_dim=64,
    hidden_size=896,
    ffn_size=4864,
    speech_vocabulary=6564,
    flow_parameters=112_500_000,
    flow_width=256,
    vocoder_parameters=20_800_000,
    vocoder_floats_per_frame=120 * 64,
    encoder_mib=600,
)
COSYVOICE3 = replace(
    COSYVOICE2,
    name="cosyvoice3-0.5b",
    llm_other_parameters=148_400_000,
    speech_vocabulary=6761,
    flow_parameters=332_000_000,
    flow_width=1024,
    encoder_mib=1000,
)
TINY_EN = ModelShape(
    name="tiny-en",
    llm_linear_parameters=5_510_000,
    llm_other_parameters=1_110_000,
    layers=8,
    query_heads=4,
    kv_heads=2,
    head_dim=64,
    hidden_size=256,
    ffn_size=640,
    speech_vocabulary=2190,
    flow_parameters=9_450_000,
    flow_width=128,
    vocoder_parameters=2_050_000,
    vocoder_floats_per_frame=120 * 20,
    encoder_mib=20,
)


@dataclass(frozen=True)
class MemoryEstimate:
    """What a plan takes, by part, against what the device has. `usable_mib` is without reserve and headroom."""

    device_mib: int
    usable_mib: int
    parts: tuple[tuple[str, int], ...]

    @property
    def total_mib(self) -> int:
        return sum(size for _, size in self.parts)

    @property
    def fits(self) -> bool:
        return self.total_mib <= self.usable_mib


def guess_shape(hint: str) -> tuple[ModelShape, bool]:
    """(shape, known) from the text that names a model. An unknown model counts as the largest known one."""
    text = hint.lower().replace("-", "").replace("_", "")
    for word, shape in (("tinyen", TINY_EN), ("cosyvoice3", COSYVOICE3), ("cosyvoice2", COSYVOICE2)):
        if word in text:
            return shape, True
    return COSYVOICE3, False


def kv_bytes_per_token(shape: ModelShape, data_type: str, kv_cache_mode: str) -> float:
    """Keys and values of all layers for one position; int8 adds an fp16 scale per head."""
    per_head = shape.head_dim * BYTES_OF_DATA_TYPE[data_type]
    if kv_cache_mode == "int8":
        per_head = shape.head_dim + 2.0
    return shape.layers * 2 * shape.kv_heads * per_head


def estimate_gpu(shape: ModelShape, engine: Mapping[str, object], device_mib: int, num_styles: int) -> MemoryEstimate:
    """Memory of a plan on one GPU. `engine` holds every engine value by its guide name."""
    sizes = _Sizes(shape, engine, num_styles, on_gpu=True)
    processes = sizes.workers * (sizes.engines + sizes.decode_processes)
    reserve = max(DRIVER_RESERVE_MIB, int(device_mib * DRIVER_RESERVE_SHARE))
    return MemoryEstimate(
        device_mib=device_mib,
        usable_mib=int(device_mib * (1 - HEADROOM_SHARE)) - reserve,
        parts=(
            ("LLM weights", _mib(sizes.workers * sizes.engines * sizes.llm_weights)),
            ("KV cache", _mib(sizes.workers * sizes.engines * sizes.kv_pool)),
            ("LLM activations", _mib(sizes.workers * sizes.engines * sizes.llm_activations)),
            ("CUDA graphs", sizes.workers * sizes.engines * sizes.graphs_mib),
            ("flow and vocoder weights", _mib(sizes.workers * sizes.decoders * sizes.decoder_weights)),
            ("flow and vocoder activations", _mib(sizes.workers * sizes.decoders * sizes.decoder_activations)),
            ("TensorRT", _mib(sizes.workers * sizes.decoders * sizes.tensorrt)),
            ("CUDA contexts", processes * CUDA_CONTEXT_MIB),
        ),
    )


def estimate_host(
    shape: ModelShape, engine: Mapping[str, object], memory_mib: int, num_styles: int
) -> MemoryEstimate:
    """Main memory of a plan on the CPU class. Weights are mapped files: counted once, however many processes."""
    sizes = _Sizes(shape, engine, num_styles, on_gpu=False)
    processes = sizes.workers * (sizes.engines + sizes.decode_processes)
    return MemoryEstimate(
        device_mib=memory_mib,
        usable_mib=int(memory_mib * (1 - HEADROOM_SHARE)),
        parts=(
            ("weights", _mib(sizes.engines * sizes.llm_weights + sizes.decoder_weights)),
            ("KV cache", _mib(sizes.workers * sizes.engines * sizes.kv_pool)),
            (
                "activations",
                _mib(
                    sizes.workers
                    * (sizes.engines * sizes.llm_activations + sizes.decoders * sizes.decoder_activations)
                ),
            ),
            ("encoders", sizes.encoders * (HOST_ENCODER_MIB + shape.encoder_mib)),
            (
                "LLM and decode processes",
                processes * HOST_TORCH_MIB + sizes.workers * sizes.decoders * HOST_DECODE_MIB,
            ),
            ("router and server", HOST_BASE_MIB),
        ),
    )


class _Sizes:
    """The terms of the model, in bytes unless the name says MiB."""

    def __init__(self, shape: ModelShape, engine: Mapping[str, object], num_styles: int, on_gpu: bool) -> None:
        data_type = str(engine["data_type"]) if on_gpu else "fp32"
        width = BYTES_OF_DATA_TYPE[data_type]
        self.workers = _count(engine, "workers")
        self.engines = max(1, num_styles)
        self.encoders = _count(engine, "encode_process_num")
        self.decode_processes = _count(engine, "decode_process_num")
        self.decoders = max(1, self.decode_processes)
        linear_width = BYTES_OF_QUANT_TYPE.get(str(engine["quant_type"]), width) if on_gpu else width
        self.llm_weights = shape.llm_linear_parameters * linear_width + shape.llm_other_parameters * width
        token_bytes = kv_bytes_per_token(shape, data_type, str(engine["kv_cache_mode"]) if on_gpu else "none")
        self.kv_pool = _count(engine, "max_total_token_num") * token_bytes
        step_width = 6 * shape.hidden_size + 3 * shape.ffn_size
        logits = _count(engine, "gpt_paral_num") * shape.speech_vocabulary * 4 * 3
        self.llm_activations = _count(engine, "batch_max_tokens") * step_width * width + logits
        graphs = 0 if not on_gpu or engine["disable_cudagraph"] else _count(engine, "graph_max_batch_size")
        self.graphs_mib = GRAPH_BASE_MIB + GRAPH_PER_SIZE_MIB * graphs if graphs else 0
        self.decoder_weights = shape.flow_parameters * width + shape.vocoder_parameters * 4
        batch = _count(engine, "decode_max_batch_size")
        flow_item = SEGMENT_FRAMES * 2 * shape.flow_width * LIVE_FLOW_TENSORS * width
        vocoder_item = VOCODER_FRAMES * shape.vocoder_floats_per_frame * LIVE_VOCODER_TENSORS * 4
        self.decoder_activations = batch * (flow_item + vocoder_item)
        self.tensorrt = 0.0
        if on_gpu and engine["load_trt"]:
            scratch = 2 * _count(engine, "trt_max_batch_size") * flow_item
            weights = shape.flow_parameters * BYTES_OF_DATA_TYPE[str(engine["trt_precision"])]
            self.tensorrt = weights + min(float(_count(engine, "trt_workspace_size")), scratch)


def _count(engine: Mapping[str, object], name: str) -> int:
    value = engine[name]
    assert isinstance(value, int), name
    return value


def _mib(size: float) -> int:
    return round(size / MIB)
