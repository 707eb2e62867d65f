"""`ttsfleet-runtime` as a user meets it: quick help, one clear line for an error, keys and places."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ttsfleet_runtime import cli
from ttsfleet_runtime.config import flags, locations


def test_help_imports_neither_torch_nor_pydantic() -> None:
    code = (
        "import sys\nfrom ttsfleet_runtime import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'pydantic', 'numpy', 'rich'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_serving_options_are_listed_without_torch() -> None:
    code = (
        "import sys\nfrom ttsfleet_runtime import cli\n"
        "try:\n    cli.main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--encode_process_num" in answer.stdout
    assert answer.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve", "--encode_proces_num", "2"], "did you mean --encode_process_num?"),
        (["serve", "--prompt_seconds=2"], "did you mean --limits.prompt_seconds?"),
        (["serve", "--workers", "0"], "workers = 0 is refused"),
        (["serve", "--model_dir", "builtin:nobody"], "no built-in model 'nobody'"),
        (["serve", "--model_dir", "nowhere"], "does not exist"),
        (["serve", "--api-key", "a", "--api-key-file", "b"], "give one of them"),
        (["serve", "--api-key", " "], "one line of printable ASCII"),
        (["serve", "--api-key-file", "nowhere"], "api key file nowhere"),
        (["version", "more"], "not expected here"),
    ],
)
def test_wrong_input_is_one_clear_line_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("ttsfleet-runtime 0.")


def key_of(monkeypatch: pytest.MonkeyPatch, words: list[str], environment: dict[str, str]) -> str | None:
    """The API key that `serve` would use."""
    for name in ("TTSFLEET_API_KEY", "TTSFLEET_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parser = argparse.ArgumentParser()
    cli.COMMANDS["serve"].add_arguments(parser)
    return cli.api_key(parser.parse_args(words))


def test_api_key_comes_from_flag_then_file_then_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    environment = {"TTSFLEET_API_KEY": "from-environment"}
    assert key_of(monkeypatch, ["--api-key", "from-flag"], environment) == "from-flag"
    assert key_of(monkeypatch, ["--api-key-file", str(file)], environment) == "from-file"
    assert key_of(monkeypatch, [], environment) == "from-environment"
    assert key_of(monkeypatch, [], {"TTSFLEET_API_KEY_FILE": str(file)}) == "from-file"
    assert key_of(monkeypatch, [], {}) is None


def test_places_come_from_flags_then_variables_then_the_users_folders(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    given = flags.read_config(parser.parse_args(["--cache_dir", str(tmp_path / "flag")]))
    absent = flags.read_config(parser.parse_args([]))
    variables = {"TTSFLEET_CACHE_DIR": "/a/cache", "TTSFLEET_VOICES_DIR": "/a/voices"}
    assert locations.complete_locations(given, variables).cache_dir == str(tmp_path / "flag")
    config = locations.complete_locations(absent, variables)
    assert (config.cache_dir, config.voices_dir) == ("/a/cache", "/a/voices")
    config = locations.complete_locations(absent, {"XDG_CACHE_HOME": "/x/cache", "XDG_DATA_HOME": "/x/data"})
    assert (config.cache_dir, config.voices_dir) == ("/x/cache/ttsfleet", "/x/data/ttsfleet/voices")
    assert config.model_dir is not None
    assert config.model_dir.endswith("tiny-en")
    config = locations.complete_locations(absent, {"XDG_CACHE_HOME": "not/absolute"})
    assert config.cache_dir == str(Path.home() / ".cache" / "ttsfleet")


def test_plan_is_printed_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTSFLEET_CACHE_DIR", str(tmp_path))
    assert cli.main(["config", "--device", "cpu", "--load_trt", "true", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["plan"]["gqa_group_size"] == 2
    assert document["asked"] == {"device": "cpu", "load_trt": True}
    assert [note["field"] for note in document["notes"]] == ["load_trt"]
