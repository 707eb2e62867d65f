"""The bundle's LM weights are loaded strictly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.errors import CheckpointError
from ttsfleet_runtime.llm.engine import EngineSizes, build_engine
from ttsfleet_runtime.llm.scheduler import SchedulerLimits
from ttsfleet_runtime.llm.self_test import run_self_test
from ttsfleet_runtime.llm.weights import load_llm_weights

CPU = torch.device("cpu")


@pytest.fixture
def copy(random_v2_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of its own, to be damaged."""
    shutil.copy(random_v2_bundle / "bundle.json", tmp_path)
    shutil.copy(next(random_v2_bundle.glob("llm.*.safetensors")), tmp_path / "llm.style.safetensors")
    return tmp_path


def load(bundle: Path) -> dict[str, torch.Tensor]:
    return load_llm_weights(bundle, "style", read_model_info(bundle).llm, CPU, torch.float32)


def damage(bundle: Path, key: str, tensor: torch.Tensor | None) -> None:
    path = bundle / "llm.style.safetensors"
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    path.unlink()
    if tensor is None:
        del tensors[key]
    else:
        tensors[key] = tensor
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("key", "tensor", "names"),
    [
        ("layers.1.qkv.weight", None, ["layers.1.qkv.weight", "missing"]),
        ("embedding.weight", None, ["embedding.weight"]),
        ("layers.9.o.weight", torch.zeros(2), ["layers.9.o.weight", "unknown"]),
        ("norm.weight", torch.zeros(3), ["norm.weight", "(3,)", "(256,)"]),
        ("embedding.weight", torch.zeros(10, 256), ["embedding.weight", "(10, 256)"]),
    ],
)
def test_a_wrong_key_or_shape_is_named(copy: Path, key: str, tensor: torch.Tensor | None, names: list[str]) -> None:
    damage(copy, key, tensor)
    with pytest.raises(CheckpointError) as error:
        load(copy)
    for name in ["llm.style.safetensors", *names]:
        assert name in str(error.value)


def test_a_truncated_file_is_named(copy: Path) -> None:
    path = copy / "llm.style.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"llm\.style\.safetensors"):
        load(copy)


def test_weights_that_are_not_numbers_fail_the_self_test(copy: Path) -> None:
    info = read_model_info(copy).llm
    damage(copy, "layers.0.down.weight", torch.full((info.hidden_size, info.ffn_size), float("nan")))
    limits = SchedulerLimits(max_running=4, max_rows=64, max_step_rows=64)
    engine = build_engine(copy, "style", info, EngineSizes(limits, 16), device=CPU, dtype=torch.float32)
    with pytest.raises(CheckpointError, match="self-test"):
        run_self_test(engine, "llm.style")
