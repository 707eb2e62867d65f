"""The expected keys follow from the dimensions, and at released dimensions they are the released ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ttsfleet_runtime.checkpoint.dimensions import flow_dimensions, hift_dimensions, llm_dimensions
from ttsfleet_runtime.checkpoint.directory import TOKENIZER_DIR
from ttsfleet_runtime.checkpoint.keys import flow_keys, hift_keys, llm_keys
from ttsfleet_runtime.checkpoint.random_recipe import PRESETS, qwen_config, yaml_text
from ttsfleet_runtime.checkpoint.recipe import Recipe


@pytest.fixture
def released(tmp_path: Path) -> tuple[Recipe, Path]:
    preset = PRESETS["cosyvoice2-0.5b"]
    (tmp_path / TOKENIZER_DIR).mkdir()
    config = tmp_path / TOKENIZER_DIR / "config.json"
    config.write_text(json.dumps(qwen_config(preset)))
    (tmp_path / "cosyvoice2.yaml").write_text(yaml_text(preset))
    return Recipe(tmp_path / "cosyvoice2.yaml"), config


def published(goldens_dir: Path, module: str) -> dict[str, tuple[int, ...]]:
    document = json.loads((goldens_dir / "common" / "state_dict_keys_real.json").read_text())
    return {key: tuple(shape) for key, shape in document["v2"][module].items()}


def test_llm_keys_at_released_dimensions_are_the_released_ones(
    released: tuple[Recipe, Path], goldens_dir: Path
) -> None:
    recipe, config = released
    assert llm_keys(llm_dimensions(recipe, config)) == published(goldens_dir, "llm")


def test_flow_keys_at_released_dimensions_are_the_released_ones(
    released: tuple[Recipe, Path], goldens_dir: Path
) -> None:
    assert flow_keys(flow_dimensions(released[0])) == published(goldens_dir, "flow")


def test_hift_keys_at_released_dimensions_are_the_released_ones(
    released: tuple[Recipe, Path], goldens_dir: Path
) -> None:
    assert hift_keys(hift_dimensions(released[0]), 80) == published(goldens_dir, "hift")


def test_fused_table_of_the_released_model_holds_text_then_special_then_speech(released: tuple[Recipe, Path]) -> None:
    info = llm_dimensions(*released)
    assert (info.sos_row, info.task_row, info.speech_offset) == (151936, 151937, 151938)
    assert (info.eos_id, info.fill_id, info.stop_ids) == (6561, 6563, [6561, 6562, 6563])
