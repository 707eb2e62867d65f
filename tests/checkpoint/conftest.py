"""Model directories to damage: a small one with random weights, copied for each test that changes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ttsfleet_runtime.checkpoint.random_model import make_checkpoint
from ttsfleet_runtime.checkpoint.random_recipe import PRESETS


@pytest.fixture(scope="session")
def tiny_random_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only: `model_dir` is a copy."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "model", PRESETS["tiny"], dtype="fp32")


@pytest.fixture
def model_dir(tiny_random_dir: Path, tmp_path: Path) -> Path:
    """A fresh copy of a small CosyVoice2 directory."""
    return Path(shutil.copytree(tiny_random_dir, tmp_path / "model"))
