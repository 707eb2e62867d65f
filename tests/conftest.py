"""Fixtures shared by all areas: the golden cases, the model that speaks, and their compute-ready bundles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ttsfleet_runtime.checkpoint import resolve_model_dir
from ttsfleet_runtime.checkpoint.bundle import BUNDLE_FORMAT, FlowInfo, HiFTInfo, LLMInfo, MelInfo, ModelInfo
from ttsfleet_runtime.checkpoint.convert import convert

# Before torch is imported: threads that spin between small operations would starve the services that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TESTS_DIR = Path(__file__).resolve().parent

_FLOW = FlowInfo(
    vocab_size=6561,
    token_mel_ratio=2,
    pre_lookahead_len=3,
    spk_embed_dim=192,
    mel_bins=80,
    encoder_size=512,
    encoder_heads=8,
    encoder_ffn=2048,
    encoder_blocks=6,
    up_blocks=4,
    encoder_chunk=25,
    estimator_channels=256,
    estimator_heads=8,
    estimator_head_dim=64,
    estimator_blocks=4,
    estimator_mid_blocks=12,
    time_embed_dim=1024,
    estimator_chunk=50,
    cfg_rate=0.7,
    num_steps=10,
)
_HIFT = HiFTInfo(
    base_channels=512,
    f0_channels=512,
    nb_harmonics=8,
    nsf_alpha=0.1,
    nsf_sigma=0.003,
    nsf_voiced_threshold=10.0,
    upsample_rates=[8, 5, 3],
    upsample_kernels=[16, 11, 7],
    istft_n_fft=16,
    istft_hop=4,
    resblock_kernels=[3, 7, 11],
    resblock_dilations=[[1, 3, 5]] * 3,
    source_resblock_kernels=[7, 7, 11],
    source_resblock_dilations=[[1, 3, 5]] * 3,
    lrelu_slope=0.1,
    audio_limit=0.99,
)


@pytest.fixture(scope="session")
def goldens_dir() -> Path:
    """tests/goldens: MANIFEST.json and its cases."""
    return TESTS_DIR / "goldens"


@pytest.fixture(scope="session")
def random_v2_dir(goldens_dir: Path) -> Path:
    """A whole CosyVoice2 directory with small random weights: the model of the v2 cases."""
    return goldens_dir / "cosyvoice2-random"


@pytest.fixture(scope="session")
def tiny_en_dir() -> Path:
    """The model that ships with the runtime and speaks English."""
    return resolve_model_dir("builtin:tiny-en")


@pytest.fixture(scope="session")
def tiny_en_data() -> Path:
    """tests/data/tiny-en: prompt recordings with their transcripts, and sentences to say."""
    return TESTS_DIR / "data" / "tiny-en"


@pytest.fixture(scope="session")
def bundle_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bundle cache for the whole session."""
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="session")
def random_v2_bundle(random_v2_dir: Path, bundle_cache: Path) -> Path:
    """`random_v2_dir` converted, fp32."""
    return convert(random_v2_dir, bundle_cache, dtype="fp32")


@pytest.fixture(scope="session")
def tiny_en_bundle(tiny_en_dir: Path, bundle_cache: Path) -> Path:
    """`tiny_en_dir` converted, fp32."""
    return convert(tiny_en_dir, bundle_cache, dtype="fp32")


@pytest.fixture
def model() -> ModelInfo:
    """CosyVoice2-0.5B's dimensions as values: 24 layers, 14 query and 2 KV heads of 64. No file is behind it."""
    return ModelInfo(
        format=BUNDLE_FORMAT,
        version=2,
        name="cosyvoice2-0.5b",
        model_dir="/models/cosyvoice2",
        digest="0" * 64,
        dtype="fp32",
        sample_rate=24000,
        token_rate=25,
        styles=["cosyvoice"],
        tokenizer_dir="/models/cosyvoice2/CosyVoice-BlankEN",
        speech_tokenizer_onnx="/models/cosyvoice2/speech_tokenizer_v2.onnx",
        speaker_onnx="/models/cosyvoice2/campplus.onnx",
        voices=[],
        voices_with_prompt=[],
        sampling_top_p=0.8,
        sampling_top_k=25,
        sampling_win_size=10,
        sampling_tau_r=0.1,
        mel=MelInfo(n_fft=1920, hop=480, num_mels=80, fmin=0.0, fmax=8000.0),
        llm=LLMInfo(
            hidden_size=896,
            num_layers=24,
            num_heads=14,
            num_kv_heads=2,
            head_dim=64,
            ffn_size=4864,
            rms_norm_eps=1e-6,
            rope_theta=1e6,
            text_vocab_size=151936,
            speech_vocab_size=6564,
            speech_token_size=6561,
            sos_row=151936,
            task_row=151937,
            speech_offset=151938,
            eos_id=6561,
            fill_id=6563,
            stop_ids=[6561, 6562, 6563],
            masked_before_min=6561,
            mix_ratio=(5, 15),
        ),
        flow=_FLOW,
        hift=_HIFT,
    )
