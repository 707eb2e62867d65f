"""The dimensions of a model, from its yaml and its Qwen2 config. Decides what can be run at all; no torch.

Values that the published classes fix in code (512 wide look-ahead, four up-blocks, ten ODE steps) are constants
here; values that the runtime does not vary (activation, attention kind, solver) are required to be the known ones,
because a model that needs others would load and speak noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ttsfleet_runtime.checkpoint.bundle import FlowInfo, HiFTInfo, LLMInfo, MelInfo
from ttsfleet_runtime.checkpoint.directory import read_json
from ttsfleet_runtime.checkpoint.recipe import Recipe
from ttsfleet_runtime.errors import CheckpointError

UP_BLOCKS = 4
NUM_STEPS = 10
NUM_EXTRA_SPEECH_IDS = 3  # eos, unused, fill follow the speech codes
SPEAKER_SIZE = 192

_ENCODER = "flow.encoder"
_CFM = "flow.decoder.cfm_params.content"
_ESTIMATOR = "flow.decoder.estimator"
_REQUIRED: dict[str, object] = {
    "llm": "Qwen2LM",
    "flow": "CausalMaskedDiffWithXvec",
    _ENCODER: "UpsampleConformerEncoder",
    f"{_ENCODER}.output_size": 512,
    f"{_ENCODER}.input_size": 512,
    f"{_ENCODER}.normalize_before": True,
    f"{_ENCODER}.input_layer": "linear",
    f"{_ENCODER}.pos_enc_layer_type": "rel_pos_espnet",
    f"{_ENCODER}.selfattention_layer_type": "rel_selfattn",
    f"{_ENCODER}.use_cnn_module": False,
    f"{_ENCODER}.macaron_style": False,
    f"{_CFM}.solver": "euler",
    f"{_CFM}.t_scheduler": "cosine",
    "flow.decoder": "CausalConditionalCFM",
    _ESTIMATOR: "CausalConditionalDecoder",
    f"{_ESTIMATOR}.act_fn": "gelu",
    "hift": "HiFTGenerator",
    "hift.f0_predictor": "ConvRNNF0Predictor",
    "llm.sampling": "ras_sampling",
}


def check_architecture(recipe: Recipe) -> None:
    """Raise CheckpointError when the yaml names a class or an option that this runtime does not have."""
    for key, expected in _REQUIRED.items():
        recipe.require(key, expected)
    mel_bins = recipe.integer("flow.output_size")
    for key, expected in {
        f"{_ESTIMATOR}.in_channels": 4 * mel_bins,
        f"{_ESTIMATOR}.out_channels": mel_bins,
        "hift.in_channels": mel_bins,
        "hift.f0_predictor.in_channels": mel_bins,
        "feat_extractor.num_mels": mel_bins,
        "flow.spk_embed_dim": SPEAKER_SIZE,
        "flow.vocab_size": recipe.integer("llm.speech_token_size"),
        "flow.input_size": recipe.integer(f"{_ENCODER}.output_size"),
    }.items():
        recipe.require(key, expected)


def llm_dimensions(recipe: Recipe, config_path: Path) -> LLMInfo:
    """The LM's dimensions; `config_path` is CosyVoice-BlankEN/config.json."""
    config = read_json(config_path)
    hidden = _config_int(config, "hidden_size", config_path)
    heads = _config_int(config, "num_attention_heads", config_path)
    kv_heads = _config_int(config, "num_key_value_heads", config_path)
    if config.get("model_type") != "qwen2" or config.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{config_path}: model_type must be 'qwen2' with hidden_act 'silu'")
    if heads % kv_heads or ("head_dim" not in config and hidden % heads):
        raise CheckpointError(
            f"{config_path}: {heads} heads do not divide hidden_size {hidden} and {kv_heads} kv heads evenly"
        )
    for key in ("llm.llm_input_size", "llm.llm_output_size"):
        recipe.require(key, hidden)
    codes = recipe.integer("llm.speech_token_size")
    text_vocab = _config_int(config, "vocab_size", config_path)
    mix = recipe.integers("llm.mix_ratio")
    if len(mix) != 2:
        raise CheckpointError(f"{recipe.path}: llm.mix_ratio is {mix}, expected two numbers")
    return LLMInfo(
        hidden_size=hidden,
        num_layers=_config_int(config, "num_hidden_layers", config_path),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=config.get("head_dim") or hidden // heads,
        ffn_size=_config_int(config, "intermediate_size", config_path),
        rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope_theta=float(config.get("rope_theta", 1e6)),
        text_vocab_size=text_vocab,
        speech_vocab_size=codes + NUM_EXTRA_SPEECH_IDS,
        speech_token_size=codes,
        sos_row=text_vocab,
        task_row=text_vocab + 1,
        speech_offset=text_vocab + 2,
        eos_id=codes,
        fill_id=codes + 2,
        stop_ids=[codes, codes + 1, codes + 2],
        masked_before_min=codes,
        mix_ratio=(mix[0], mix[1]),
    )


def flow_dimensions(recipe: Recipe) -> FlowInfo:
    channels = recipe.integers(f"{_ESTIMATOR}.channels")
    if len(channels) != 1:
        raise CheckpointError(f"{recipe.path}: {_ESTIMATOR}.channels is {channels}; exactly one entry is implemented")
    return FlowInfo(
        vocab_size=recipe.integer("flow.vocab_size"),
        token_mel_ratio=recipe.integer("flow.token_mel_ratio"),
        pre_lookahead_len=recipe.integer("flow.pre_lookahead_len"),
        spk_embed_dim=recipe.integer("flow.spk_embed_dim"),
        mel_bins=recipe.integer("flow.output_size"),
        encoder_size=recipe.integer(f"{_ENCODER}.output_size"),
        encoder_heads=recipe.integer(f"{_ENCODER}.attention_heads"),
        encoder_ffn=recipe.integer(f"{_ENCODER}.linear_units"),
        encoder_blocks=recipe.integer(f"{_ENCODER}.num_blocks"),
        up_blocks=UP_BLOCKS,
        encoder_chunk=recipe.integer(f"{_ENCODER}.static_chunk_size"),
        estimator_channels=channels[0],
        estimator_heads=recipe.integer(f"{_ESTIMATOR}.num_heads"),
        estimator_head_dim=recipe.integer(f"{_ESTIMATOR}.attention_head_dim"),
        estimator_blocks=recipe.integer(f"{_ESTIMATOR}.n_blocks"),
        estimator_mid_blocks=recipe.integer(f"{_ESTIMATOR}.num_mid_blocks"),
        time_embed_dim=4 * channels[0],
        estimator_chunk=recipe.integer(f"{_ESTIMATOR}.static_chunk_size"),
        cfg_rate=recipe.number(f"{_CFM}.inference_cfg_rate"),
        num_steps=NUM_STEPS,
    )


def hift_dimensions(recipe: Recipe) -> HiFTInfo:
    info = HiFTInfo(
        base_channels=recipe.integer("hift.base_channels"),
        f0_channels=recipe.integer("hift.f0_predictor.cond_channels"),
        nb_harmonics=recipe.integer("hift.nb_harmonics"),
        nsf_alpha=recipe.number("hift.nsf_alpha"),
        nsf_sigma=recipe.number("hift.nsf_sigma"),
        nsf_voiced_threshold=recipe.number("hift.nsf_voiced_threshold"),
        upsample_rates=recipe.integers("hift.upsample_rates"),
        upsample_kernels=recipe.integers("hift.upsample_kernel_sizes"),
        istft_n_fft=recipe.integer("hift.istft_params.n_fft"),
        istft_hop=recipe.integer("hift.istft_params.hop_len"),
        resblock_kernels=recipe.integers("hift.resblock_kernel_sizes"),
        resblock_dilations=recipe.integer_lists("hift.resblock_dilation_sizes"),
        source_resblock_kernels=recipe.integers("hift.source_resblock_kernel_sizes"),
        source_resblock_dilations=recipe.integer_lists("hift.source_resblock_dilation_sizes"),
        lrelu_slope=recipe.number("hift.lrelu_slope"),
        audio_limit=recipe.number("hift.audio_limit"),
    )
    stages = len(info.upsample_rates)
    pairs = {
        "upsample_kernel_sizes": (len(info.upsample_kernels), stages),
        "source_resblock_kernel_sizes": (len(info.source_resblock_kernels), stages),
        "source_resblock_dilation_sizes": (len(info.source_resblock_dilations), stages),
        "resblock_dilation_sizes": (len(info.resblock_dilations), len(info.resblock_kernels)),
    }
    for key, (found, expected) in pairs.items():
        if found != expected:
            raise CheckpointError(f"{recipe.path}: hift.{key} has {found} entries, expected {expected}")
    return info


def mel_dimensions(recipe: Recipe) -> MelInfo:
    fmax = recipe.value("feat_extractor.fmax")
    return MelInfo(
        n_fft=recipe.integer("feat_extractor.n_fft"),
        hop=recipe.integer("feat_extractor.hop_size"),
        num_mels=recipe.integer("feat_extractor.num_mels"),
        fmin=recipe.number("feat_extractor.fmin"),
        fmax=None if fmax is None else recipe.number("feat_extractor.fmax"),
    )


def _config_int(config: dict[str, Any], key: str, path: Path) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{path}: {key} is {value!r}, expected a positive whole number")
    return value
