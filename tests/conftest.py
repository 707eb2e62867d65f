"""Fixtures shared by all areas: the golden cases, the model that speaks, and their compute-ready bundles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ttsfleet_runtime.checkpoint import resolve_model_dir
from ttsfleet_runtime.checkpoint.convert import convert

# Before torch is imported: threads that spin between small operations would starve the services that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TESTS_DIR = Path(__file__).resolve().parent


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
