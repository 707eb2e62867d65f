"""The compute-ready form of a model: what `checkpoint.convert` writes once and every process maps.

A bundle is a directory in the cache:

    bundle.json                 ModelInfo: dimensions, special ids, sampling defaults, file names, the source's digest
    llm.<style>.safetensors     per style: `embedding` fused [text ; sos,task ; speech], q/k/v fused, gate/up fused
    flow.safetensors            encoder and estimator, q/k/v fused, time-embedding tables folded
    hift.safetensors            vocoder with weight norm folded
    voices.safetensors          spk2info.pt: `<name>/embedding`, `<name>/speech_token`, `<name>/mel`,
                                `<name>/prompt_ids`

This module imports no torch: router, server and encoders read `bundle.json` and `voices.safetensors` (numpy) only.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ttsfleet_runtime.errors import CheckpointError

BUNDLE_FORMAT = 1


class LLMInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Dimensions of the Qwen2 LM and the ids of the fused embedding table.

    Row ids of the fused table: text id t -> t; sos -> sos_row; task -> task_row; speech id s -> speech_offset + s.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    rms_norm_eps: float
    rope_theta: float
    text_vocab_size: int
    speech_vocab_size: int  # rows of llm_decoder, e.g. 6564
    speech_token_size: int  # codes proper, e.g. 6561
    sos_row: int
    task_row: int
    speech_offset: int
    eos_id: int  # in the speech vocabulary
    fill_id: int
    stop_ids: list[int]
    masked_before_min: int  # the id whose log-prob is -inf before min_len (6561 in both versions)
    mix_ratio: tuple[int, int]


class FlowInfo(msgspec.Struct, frozen=True, kw_only=True):
    vocab_size: int
    token_mel_ratio: int
    pre_lookahead_len: int
    spk_embed_dim: int
    mel_bins: int
    encoder_size: int
    encoder_heads: int
    encoder_ffn: int
    encoder_blocks: int
    up_blocks: int
    encoder_chunk: int  # tokens
    estimator_channels: int
    estimator_heads: int
    estimator_head_dim: int
    estimator_blocks: int  # transformers after each resnet
    estimator_mid_blocks: int
    time_embed_dim: int
    estimator_chunk: int  # mel frames
    cfg_rate: float
    num_steps: int


class HiFTInfo(msgspec.Struct, frozen=True, kw_only=True):
    base_channels: int
    f0_channels: int
    nb_harmonics: int
    nsf_alpha: float
    nsf_sigma: float
    nsf_voiced_threshold: float
    upsample_rates: list[int]
    upsample_kernels: list[int]
    istft_n_fft: int
    istft_hop: int
    resblock_kernels: list[int]
    resblock_dilations: list[list[int]]
    source_resblock_kernels: list[int]
    source_resblock_dilations: list[list[int]]
    lrelu_slope: float
    audio_limit: float


class MelInfo(msgspec.Struct, frozen=True, kw_only=True):
    n_fft: int
    hop: int
    num_mels: int
    fmin: float
    fmax: float | None


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a model that is not a weight."""

    format: int
    version: int  # 2 or 3
    name: str
    model_dir: str  # absolute: tokenizer and ONNX files stay where they were published
    digest: str
    dtype: str  # of the stored weights: "fp32" | "fp16" | "bf16"
    sample_rate: int
    token_rate: int
    styles: list[str]  # the first is the default; "cosyvoice" when there is no style_config.json
    tokenizer_dir: str
    speech_tokenizer_onnx: str
    speaker_onnx: str
    voices: list[str]
    voices_with_prompt: list[str]
    sampling_top_p: float
    sampling_top_k: int
    sampling_win_size: int
    sampling_tau_r: float
    mel: MelInfo
    llm: LLMInfo
    flow: FlowInfo
    hift: HiFTInfo


def read_model_info(bundle_dir: Path) -> ModelInfo:
    """Read `bundle.json`. Raises CheckpointError when it is missing, damaged or of another format."""
    path = bundle_dir / "bundle.json"
    try:
        info = msgspec.json.decode(path.read_bytes(), type=ModelInfo)
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(f"{path}: {error}; convert the model again with `ttsfleet-runtime convert`") from error
    if info.format != BUNDLE_FORMAT:
        raise CheckpointError(
            f"{path}: bundle format {info.format}, this runtime reads {BUNDLE_FORMAT}; convert the model again"
        )
    return info
