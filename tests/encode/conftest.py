"""Fixtures of the encode tests: the text encoder and the voice encoder of the model that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.config.plan import LimitsPlan
from ttsfleet_runtime.encode.prompt import VoiceEncoder
from ttsfleet_runtime.encode.text import TextEncoder
from ttsfleet_runtime.encode.tokenizer import TextTokenizer


@pytest.fixture(scope="session")
def tokenizer(random_v2_dir: Path) -> TextTokenizer:
    return TextTokenizer.from_directory(random_v2_dir / "CosyVoice-BlankEN", 2)


@pytest.fixture(scope="session")
def text_encoder(tiny_en_bundle: Path) -> TextEncoder:
    return TextEncoder.for_model(read_model_info(tiny_en_bundle), LimitsPlan())


@pytest.fixture(scope="session")
def voice_encoder(tiny_en_bundle: Path) -> VoiceEncoder:
    return VoiceEncoder(read_model_info(tiny_en_bundle), num_threads=1)
