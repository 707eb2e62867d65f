"""The yaml of a model directory is data: tags are kept, references are evaluated, nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttsfleet_runtime.checkpoint.recipe import Recipe, Tagged
from ttsfleet_runtime.errors import CheckpointError


def recipe(tmp_path: Path, text: str) -> Recipe:
    path = tmp_path / "cosyvoice2.yaml"
    path.write_text(text)
    return Recipe(path)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("<chunk>", 25),
        ("<chunk> * <ratio>", 50),
        ("<chunk> + 2 * <ratio>", 29),
        ("(<chunk> + 1) // <ratio>", 13),
        ("-<chunk> % 4", 3),
        ("<nested.size> - <negative>", 13),
        ("<again>", 25),
        ("10 / <ratio>", 5),
    ],
)
def test_reference_arithmetic_is_evaluated(tmp_path: Path, expression: str, value: int) -> None:
    text = "chunk: 25\nratio: 2\nnegative: -1\nnested: !new:a.B\n  size: 12\nagain: !ref <chunk>\n"
    assert recipe(tmp_path, f"{text}x: !ref {expression}\n").integer("x") == value


def test_reference_to_an_object_is_followed(tmp_path: Path) -> None:
    parsed = recipe(tmp_path, "part: !new:a.Part\n  size: 3\nwhole: !new:a.Whole\n  part: !ref <part>\n")
    assert parsed.integer("whole.part.size") == 3
    assert parsed.value("whole") == Tagged("new:a.Whole", {"part": Tagged("ref", "<part>")})


def test_number_without_a_dot_is_read_as_a_number(tmp_path: Path) -> None:
    assert recipe(tmp_path, "sigma: 1e-06").number("sigma") == 1e-6


@pytest.mark.parametrize(
    "text",
    [
        "a: !apply:os.system ['touch {marker}']",
        "a: !new:subprocess.Popen\n  args: ['touch', '{marker}']",
        "a: !name:os.remove\n  path: '{marker}'",
        "a: !module:antigravity",
    ],
)
def test_tags_are_never_run(tmp_path: Path, text: str) -> None:
    marker = tmp_path / "ran"
    parsed = recipe(tmp_path, text.format(marker=marker))
    assert isinstance(parsed.value("a"), Tagged)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['true']", "cannot be read as yaml"),
        ("a: [1", "cannot be read as yaml"),
        ("- 1", "not a mapping"),
        ("b: 1", "key a is missing"),
        ("a: !ref <a>", "in a circle"),
        ("a: !ref <b>\nb: !ref <a> + 1", "in a circle"),
        ("b: 1\na: !ref <b> ** 9", "only \\+ - \\* / // % on numbers"),
        ("b: 1\na: !ref <b>.__class__ * 1", "only \\+ - \\* / // % on numbers"),
        ("b: 0\na: !ref 1 / <b>", "division by zero"),
        ("a: yes", "a is True, expected a number"),
        ("a: 2.5", "a is 2.5, expected a whole number"),
    ],
)
def test_bad_yaml_is_an_error_that_names_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        recipe(tmp_path, text).integer("a")
    assert "cosyvoice2.yaml" in caught.value.message
