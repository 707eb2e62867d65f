"""Which tensors a checkpoint must hold: key -> shape, derived from the dimensions. Pure; no torch.

The shapes are those of the published state dicts with weight norm in its newer spelling
(`X.parametrizations.weight.original0/1`). `published` compares a file with them, `random_weights` fills them.
"""

from __future__ import annotations

from collections.abc import Iterator

from ttsfleet_runtime.checkpoint.bundle import FlowInfo, HiFTInfo, LLMInfo

Shape = tuple[int, ...]
Entry = tuple[str, Shape]

GAIN = "parametrizations.weight.original0"
DIRECTION = "parametrizations.weight.original1"


def llm_keys(info: LLMInfo) -> dict[str, Shape]:
    return dict(_llm(info))


def flow_keys(info: FlowInfo) -> dict[str, Shape]:
    return dict(_flow(info))


def hift_keys(info: HiFTInfo, mel_bins: int) -> dict[str, Shape]:
    return dict(_hift(info, mel_bins))


def _linear(name: str, out: int, inner: int, *, bias: bool = True) -> Iterator[Entry]:
    yield f"{name}.weight", (out, inner)
    if bias:
        yield f"{name}.bias", (out,)


def _conv(name: str, out: int, inner: int, kernel: int) -> Iterator[Entry]:
    yield f"{name}.weight", (out, inner, kernel)
    yield f"{name}.bias", (out,)


def _norm(name: str, size: int) -> Iterator[Entry]:
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)


def _llm(info: LLMInfo) -> Iterator[Entry]:
    d, kv = info.hidden_size, info.num_kv_heads * info.head_dim
    q = info.num_heads * info.head_dim
    yield "llm_embedding.weight", (2, d)
    yield "speech_embedding.weight", (info.speech_vocab_size, d)
    yield from _linear("llm_decoder", info.speech_vocab_size, d)
    yield "llm.model.model.embed_tokens.weight", (info.text_vocab_size, d)
    yield "llm.model.lm_head.weight", (info.text_vocab_size, d)
    yield "llm.model.model.norm.weight", (d,)
    for i in range(info.num_layers):
        layer = f"llm.model.model.layers.{i}"
        yield from _linear(f"{layer}.self_attn.q_proj", q, d)
        yield from _linear(f"{layer}.self_attn.k_proj", kv, d)
        yield from _linear(f"{layer}.self_attn.v_proj", kv, d)
        yield from _linear(f"{layer}.self_attn.o_proj", d, q, bias=False)
        yield from _linear(f"{layer}.mlp.gate_proj", info.ffn_size, d, bias=False)
        yield from _linear(f"{layer}.mlp.up_proj", info.ffn_size, d, bias=False)
        yield from _linear(f"{layer}.mlp.down_proj", d, info.ffn_size, bias=False)
        yield f"{layer}.input_layernorm.weight", (d,)
        yield f"{layer}.post_attention_layernorm.weight", (d,)


def _flow(info: FlowInfo) -> Iterator[Entry]:
    size, mel = info.encoder_size, info.mel_bins
    yield "input_embedding.weight", (info.vocab_size, size)
    yield from _linear("spk_embed_affine_layer", mel, info.spk_embed_dim)
    for embed in ("encoder.embed", "encoder.up_embed"):
        yield from _linear(f"{embed}.out.0", size, size)
        yield from _norm(f"{embed}.out.1", size)
    yield from _norm("encoder.after_norm", size)
    yield from _conv("encoder.pre_lookahead_layer.conv1", size, size, info.pre_lookahead_len + 1)
    yield from _conv("encoder.pre_lookahead_layer.conv2", size, size, 3)
    yield from _conv("encoder.up_layer.conv", size, size, 2 * info.token_mel_ratio + 1)
    for i in range(info.encoder_blocks):
        yield from _conformer(f"encoder.encoders.{i}", info)
    for i in range(info.up_blocks):
        yield from _conformer(f"encoder.up_encoders.{i}", info)
    yield from _linear("encoder_proj", mel, size)
    yield from _estimator("decoder.estimator", info)


def _conformer(name: str, info: FlowInfo) -> Iterator[Entry]:
    size = info.encoder_size
    for part in ("pos_bias_u", "pos_bias_v"):
        yield f"{name}.self_attn.{part}", (info.encoder_heads, size // info.encoder_heads)
    for part in ("linear_q", "linear_k", "linear_v", "linear_out"):
        yield from _linear(f"{name}.self_attn.{part}", size, size)
    yield from _linear(f"{name}.self_attn.linear_pos", size, size, bias=False)
    yield from _linear(f"{name}.feed_forward.w_1", info.encoder_ffn, size)
    yield from _linear(f"{name}.feed_forward.w_2", size, info.encoder_ffn)
    yield from _norm(f"{name}.norm_ff", size)
    yield from _norm(f"{name}.norm_mha", size)


def _estimator(name: str, info: FlowInfo) -> Iterator[Entry]:
    c, time, mel = info.estimator_channels, info.time_embed_dim, info.mel_bins
    yield from _linear(f"{name}.time_mlp.linear_1", time, 4 * mel)
    yield from _linear(f"{name}.time_mlp.linear_2", time, time)
    yield from _resnet_and_transformers(f"{name}.down_blocks.0", 4 * mel, info)
    yield from _conv(f"{name}.down_blocks.0.2", c, c, 3)
    for i in range(info.estimator_mid_blocks):
        yield from _resnet_and_transformers(f"{name}.mid_blocks.{i}", c, info)
    yield from _resnet_and_transformers(f"{name}.up_blocks.0", 2 * c, info)
    yield from _conv(f"{name}.up_blocks.0.2", c, c, 3)
    yield from _conv(f"{name}.final_block.block.0", c, c, 3)
    yield from _norm(f"{name}.final_block.block.2", c)
    yield from _conv(f"{name}.final_proj", mel, c, 1)


def _resnet_and_transformers(name: str, inputs: int, info: FlowInfo) -> Iterator[Entry]:
    c, inner = info.estimator_channels, info.estimator_heads * info.estimator_head_dim
    yield from _linear(f"{name}.0.mlp.1", c, info.time_embed_dim)
    for block, width in (("block1", inputs), ("block2", c)):
        yield from _conv(f"{name}.0.{block}.block.0", c, width, 3)
        yield from _norm(f"{name}.0.{block}.block.2", c)
    yield from _conv(f"{name}.0.res_conv", c, inputs, 1)
    for i in range(info.estimator_blocks):
        transformer = f"{name}.1.{i}"
        yield from _norm(f"{transformer}.norm1", c)
        for part in ("to_q", "to_k", "to_v"):
            yield from _linear(f"{transformer}.attn1.{part}", inner, c, bias=False)
        yield from _linear(f"{transformer}.attn1.to_out.0", c, inner)
        yield from _norm(f"{transformer}.norm3", c)
        yield from _linear(f"{transformer}.ff.net.0.proj", 4 * c, c)
        yield from _linear(f"{transformer}.ff.net.2", c, 4 * c)


def _weight_normed(name: str, shape: Shape, bias: int) -> Iterator[Entry]:
    """Weight norm is over all dims but the first, also where the first is the input channel (transposed)."""
    yield f"{name}.bias", (bias,)
    yield f"{name}.{GAIN}", (shape[0], 1, 1)
    yield f"{name}.{DIRECTION}", shape


def _hift(info: HiFTInfo, mel_bins: int) -> Iterator[Entry]:
    base, spectrum = info.base_channels, info.istft_n_fft + 2
    yield from _linear("m_source.l_linear", 1, info.nb_harmonics + 1)
    yield from _weight_normed("conv_pre", (base, mel_bins, 7), base)
    # source_downs bring the source's spectrum from the finest rate back to the rate behind each upsampling
    strides = [1]
    for rate in reversed(info.upsample_rates[1:]):
        strides.append(strides[-1] * rate)
    for i, kernel in enumerate(info.upsample_kernels):
        channels = base >> (i + 1)
        yield from _weight_normed(f"ups.{i}", (base >> i, channels, kernel), channels)
        stride = strides[-1 - i]
        yield from _conv(f"source_downs.{i}", channels, spectrum, 1 if stride == 1 else 2 * stride)
        yield from _resblock(
            f"source_resblocks.{i}",
            channels,
            info.source_resblock_kernels[i],
            info.source_resblock_dilations[i],
        )
        for j, size in enumerate(info.resblock_kernels):
            block = f"resblocks.{i * len(info.resblock_kernels) + j}"
            yield from _resblock(block, channels, size, info.resblock_dilations[j])
    last = base >> len(info.upsample_kernels)
    yield from _weight_normed("conv_post", (spectrum, last, 7), spectrum)
    for i in range(5):
        inputs = mel_bins if i == 0 else info.f0_channels
        shape = (info.f0_channels, inputs, 3)
        yield from _weight_normed(f"f0_predictor.condnet.{2 * i}", shape, info.f0_channels)
    yield from _linear("f0_predictor.classifier", 1, info.f0_channels)


def _resblock(name: str, channels: int, kernel: int, dilations: list[int]) -> Iterator[Entry]:
    for i in range(len(dilations)):
        for side in ("1", "2"):
            yield from _weight_normed(f"{name}.convs{side}.{i}", (channels, channels, kernel), channels)
            yield f"{name}.activations{side}.{i}.alpha", (channels,)
