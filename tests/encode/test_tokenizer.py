"""The tokenizer's ids come from published files; a damaged set is refused with the file's name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ttsfleet_runtime.encode.tokenizer import TextTokenizer
from ttsfleet_runtime.errors import CheckpointError

FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


@pytest.fixture
def directory(tmp_path: Path, random_v2_dir: Path) -> Path:
    for name in FILES:
        shutil.copy(random_v2_dir / "CosyVoice-BlankEN" / name, tmp_path)
    return tmp_path


def test_special_tokens_follow_the_vocabulary_without_a_gap(tokenizer: TextTokenizer) -> None:
    special = tokenizer.special_tokens()
    assert list(special.values()) == list(range(700, 720))
    assert special["<|endofprompt|>"] == 703
    assert special["[mn]"] == 719


def test_version_3_has_280_added_names_at_their_real_ids(goldens_dir: Path) -> None:
    tokenizer = TextTokenizer.from_directory(goldens_dir / "cosyvoice3-random" / "CosyVoice-BlankEN", 3)
    special = tokenizer.special_tokens()
    assert len(special) == 281
    assert special["<|endofsystem|>"] == 151663
    assert special["[ǜ]"] == 151923


def test_special_tokens_are_recognised_inside_text(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("ha[laughter]ha")
    assert ids == [*tokenizer.encode("ha"), 708, *tokenizer.encode("ha")]
    assert tokenizer.decode(ids) == "haha"


def test_decomposed_text_gives_the_ids_of_composed_text(tokenizer: TextTokenizer) -> None:
    assert tokenizer.encode("cafe\u0301") == tokenizer.encode("caf\u00e9")


def test_a_batch_gives_the_ids_of_its_texts(tokenizer: TextTokenizer) -> None:
    texts = ["Hello world!", "", "我有123个苹果。", "<|im_start|>x"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        TextTokenizer.from_directory(directory, 2)


def _add_taken_id(config: dict[str, dict[str, dict[str, str]]]) -> None:
    config["added_tokens_decoder"] = {"699": {"content": "<|endoftext|>"}}


def _remove_tokens(config: dict[str, dict[str, dict[str, str]]]) -> None:
    config["added_tokens_decoder"] = {}


@pytest.mark.parametrize("damage", [_add_taken_id, _remove_tokens])
def test_files_that_do_not_belong_together_are_refused(
    directory: Path, damage: Callable[[dict[str, dict[str, dict[str, str]]]], None]
) -> None:
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text())
    damage(config)
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        TextTokenizer.from_directory(directory, 2)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused(directory: Path, name: str) -> None:
    (directory / name).write_text('{"half')
    with pytest.raises(CheckpointError):
        TextTokenizer.from_directory(directory, 2)
