"""The text files of a model directory with random weights: yaml, Qwen2 config, tokenizer config. No torch.

The tokenizer is the built-in voice's byte-level BPE, with the special tokens moved to the ids that the wanted text
vocabulary gives them. Text therefore becomes more tokens than with the released vocabulary (2,048 entries instead
of 151,643); the embedding has all its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Dimensions of a model that can be made. `first_special_id`: the id of `<|endoftext|>`."""

    llm_size: int
    llm_layers: int
    llm_heads: int
    llm_kv_heads: int
    llm_ffn: int
    text_vocab: int
    first_special_id: int
    speech_codes: int
    encoder_ffn: int
    encoder_blocks: int
    estimator_channels: int
    estimator_heads: int
    estimator_head_dim: int
    estimator_blocks: int
    estimator_mid_blocks: int
    vocoder_channels: int
    f0_channels: int


PRESETS = {
    "cosyvoice2-0.5b": Preset(
        llm_size=896,
        llm_layers=24,
        llm_heads=14,
        llm_kv_heads=2,
        llm_ffn=4864,
        text_vocab=151936,
        first_special_id=151643,
        speech_codes=6561,
        encoder_ffn=2048,
        encoder_blocks=6,
        estimator_channels=256,
        estimator_heads=8,
        estimator_head_dim=64,
        estimator_blocks=4,
        estimator_mid_blocks=12,
        vocoder_channels=512,
        f0_channels=512,
    ),
    "tiny": Preset(
        llm_size=128,
        llm_layers=2,
        llm_heads=2,
        llm_kv_heads=1,
        llm_ffn=128,
        text_vocab=2112,
        first_special_id=2048,
        speech_codes=2187,
        encoder_ffn=64,
        encoder_blocks=1,
        estimator_channels=32,
        estimator_heads=2,
        estimator_head_dim=16,
        estimator_blocks=1,
        estimator_mid_blocks=1,
        vocoder_channels=32,
        f0_channels=16,
    ),
}

_YAML = Template(
    """\
# Random weights: for benchmarks and tests. It speaks noise.
sample_rate: 24000
llm_input_size: $llm_size
llm_output_size: $llm_size
spk_embed_dim: 192
qwen_pretrain_path: ''
token_frame_rate: 25
token_mel_ratio: 2
chunk_size: 25
num_decoding_left_chunks: -1
llm: !new:cosyvoice.llm.llm.Qwen2LM
    llm_input_size: !ref <llm_input_size>
    llm_output_size: !ref <llm_output_size>
    speech_token_size: $speech_codes
    mix_ratio: [5, 15]
    llm: !new:cosyvoice.llm.llm.Qwen2Encoder
        pretrain_path: !ref <qwen_pretrain_path>
    sampling: !name:cosyvoice.utils.common.ras_sampling
        top_p: 0.8
        top_k: 25
        win_size: 10
        tau_r: 0.1
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
    input_size: 512
    output_size: 80
    spk_embed_dim: !ref <spk_embed_dim>
    vocab_size: $speech_codes
    input_frame_rate: !ref <token_frame_rate>
    token_mel_ratio: !ref <token_mel_ratio>
    pre_lookahead_len: 3
    encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder
        output_size: 512
        attention_heads: 8
        linear_units: $encoder_ffn
        num_blocks: $encoder_blocks
        normalize_before: True
        input_layer: 'linear'
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        input_size: 512
        use_cnn_module: False
        macaron_style: False
        static_chunk_size: !ref <chunk_size>
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        in_channels: 240
        spk_emb_dim: 80
        cfm_params: !new:omegaconf.DictConfig
            content:
                solver: 'euler'
                t_scheduler: 'cosine'
                inference_cfg_rate: 0.7
        estimator: !new:cosyvoice.flow.decoder.CausalConditionalDecoder
            in_channels: 320
            out_channels: 80
            channels: [$estimator_channels]
            attention_head_dim: $estimator_head_dim
            n_blocks: $estimator_blocks
            num_mid_blocks: $estimator_mid_blocks
            num_heads: $estimator_heads
            act_fn: 'gelu'
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
            num_decoding_left_chunks: !ref <num_decoding_left_chunks>
hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    in_channels: 80
    base_channels: $vocoder_channels
    nb_harmonics: 8
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 0.003
    nsf_voiced_threshold: 10
    upsample_rates: [8, 5, 3]
    upsample_kernel_sizes: [16, 11, 7]
    istft_params:
        n_fft: 16
        hop_len: 4
    resblock_kernel_sizes: [3, 7, 11]
    resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    source_resblock_kernel_sizes: [7, 7, 11]
    source_resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    lrelu_slope: 0.1
    audio_limit: 0.99
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
        num_class: 1
        in_channels: 80
        cond_channels: $f0_channels
get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    token_path: !ref <qwen_pretrain_path>
    skip_special_tokens: True
allowed_special: 'all'
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: 1920
    num_mels: 80
    sampling_rate: !ref <sample_rate>
    hop_size: 480
    win_size: 1920
    fmin: 0
    fmax: 8000
    center: False
"""
)


def yaml_text(preset: Preset) -> str:
    """`cosyvoice2.yaml`."""
    return _YAML.substitute({name: str(value) for name, value in vars(preset).items()})


def qwen_config(preset: Preset) -> dict[str, Any]:
    """`CosyVoice-BlankEN/config.json`."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": preset.llm_size,
        "intermediate_size": preset.llm_ffn,
        "num_hidden_layers": preset.llm_layers,
        "num_attention_heads": preset.llm_heads,
        "num_key_value_heads": preset.llm_kv_heads,
        "vocab_size": preset.text_vocab,
        "bos_token_id": preset.first_special_id,
        "eos_token_id": preset.first_special_id,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
    }


def tokenizer_config(preset: Preset) -> dict[str, Any]:
    """`CosyVoice-BlankEN/tokenizer_config.json`: Qwen2's own three special tokens at their ids."""
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(preset.first_special_id + i): {"content": name, **flags} for i, name in enumerate(names)
        },
        "additional_special_tokens": list(names[1:]),
        "bos_token": None,
        "eos_token": names[0],
        "pad_token": names[0],
        "unk_token": None,
        "errors": "replace",
        "model_max_length": 32768,
        "tokenizer_class": "Qwen2Tokenizer",
    }
