"""Flags over engine.yaml: both end in one checked configuration, and every fault names its place and its remedy."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ttsfleet_runtime.config import flags
from ttsfleet_runtime.config.engine import EngineConfig, asked, settings, styles_of
from ttsfleet_runtime.errors import ConfigError


def parse(*words: str) -> EngineConfig:
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    return flags.read_config(parser.parse_args(list(words)))


def engine_yaml(folder: Path, text: str) -> str:
    path = folder / "engine.yaml"
    path.write_text(text)
    return str(path)


def test_guides_own_command_line_is_understood() -> None:
    config = parse(
        "--load_trt", "True", "--encode_process_num", "2", "--trt_max_batch_size", "8", "--timeout", "12.5"
    )
    assert asked(config) == {
        "encode_process_num": 2,
        "load_trt": True,
        "trt_max_batch_size": 8,
        "timeout": 12.5,
    }


def test_every_setting_is_a_flag_of_its_own_name() -> None:
    parser = argparse.ArgumentParser()
    flags.add_arguments(parser)
    usage = parser.format_help()
    missing = [s.path for s in settings() if s.path != "schema_version" and f"--{s.path} " not in usage]
    assert missing == []


def test_no_flag_means_nothing_asked() -> None:
    assert asked(parse()) == {}


def test_flags_override_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    file = engine_yaml(tmp_path, "schema_version: 1\nworkers: 3\nlimits: {input_chars: 10, prompt_seconds: 5}\n")
    config = parse("--config", file, "--workers", "2", "--limits.input_chars", "20")
    assert asked(config) == {"workers": 2, "limits.input_chars": 20, "limits.prompt_seconds": 5.0}


def test_lists_and_cpu_ranges_are_read_from_both_sources(tmp_path: Path) -> None:
    file = engine_yaml(tmp_path, "cors_origins: [a, b]\ncpu_affinity: {llm: '0-2,5', encode: [1, 2], decode: 3}\n")
    config = parse("--config", file)
    assert config.cors_origins == ("a", "b")
    assert (config.cpu_affinity.llm, config.cpu_affinity.encode, config.cpu_affinity.decode) == (
        (0, 1, 2, 5),
        (1, 2),
        (3,),
    )
    config = parse("--cors_origins", "a,b", "--cpu_affinity.llm", "0-2,5")
    assert config.cors_origins == ("a", "b")
    assert config.cpu_affinity.llm == (0, 1, 2, 5)


def test_styles_are_read_from_both_sources(tmp_path: Path) -> None:
    file = engine_yaml(tmp_path, "styles: ['news=styles/my news', plain=llm.pt]\n")
    assert styles_of(parse("--config", file)) == {"news": "styles/my news", "plain": "llm.pt"}
    assert list(styles_of(parse("--styles", "plain=llm.pt, news=styles/news"))) == ["plain", "news"]
    assert styles_of(parse()) == {}


def test_null_and_empty_sections_mean_absent(tmp_path: Path) -> None:
    file = engine_yaml(tmp_path, "workers: null\nlimits:\nthreads: {llm: null}\n")
    assert asked(parse("--config", file)) == {}


def test_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    assert asked(parse("--config", engine_yaml(tmp_path, "# nothing\n"))) == {}


FAULTS = {
    "too small": ("encode_process_num: 0", "encode_process_num = 0 is refused; allowed: an integer from 1 to 64"),
    "text for a number": ("workers: three", "workers = 'three' is refused; allowed: an integer"),
    "quoted number": ("workers: '3'", "workers = '3' is refused"),
    "fraction for a count": ("workers: 1.5", "workers = 1.5 is refused"),
    "truth for a count": ("port: true", "port = true is refused"),
    "number for a truth": ("load_trt: 1", "load_trt = 1 is refused; allowed: true, false"),
    "unknown choice": ("quant_type: int8", "quant_type = 'int8' is refused; allowed: none, triton_int8weight"),
    "misspelt name": ("encode_proces_num: 2", "did you mean encode_process_num"),
    "name outside of its section": ("prompt_seconds: 2", "did you mean limits.prompt_seconds"),
    "name inside of a section": ("limits: {timeout: 2}", "limits.timeout = 2 is not a setting; did you mean timeout"),
    "nothing like it": ("zzz: 2", "`ttsfleet-runtime serve --help` lists all settings"),
    "style without a path": ("styles: [news]", "'news' is not NAME=PATH"),
    "style outside": ("styles: [news=../news]", "leads out of the model directory"),
    "style twice": ("styles: [a=llm.pt, a=llm.pt]", "a name occurs twice"),
    "bad CPU range": ("cpu_affinity: {llm: 4-2}", "not a rising range"),
    "CPU list with text": ("cpu_affinity: {llm: [a]}", "cpu_affinity.llm = 'a' is refused"),
    "section that is no mapping": ("limits: 3", "limits = 3 is refused"),
    "device": ("device: gpu", "device = 'gpu' is refused; allowed: auto, cpu, cuda, cuda:N"),
    "newer format": ("schema_version: 2", "this runtime reads version 1"),
    "key twice": ("workers: 1\nworkers: 2", "'workers' stands twice"),
    "no mapping": ("- 1", "expected a mapping of settings, found list"),
    "no YAML": ("a: [", "not valid YAML"),
    "two faults": ("workers: 0\nport: -1", "port = -1 is refused"),
    "file that is not there": ("quant_type: custom\ncustom_cfg_path: nowhere.yaml", "no such file"),
}


@pytest.mark.parametrize("scenario", FAULTS)
def test_fault_in_the_file_names_file_value_and_remedy(tmp_path: Path, scenario: str) -> None:
    text, expected = FAULTS[scenario]
    file = engine_yaml(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        parse("--config", file)
    assert expected in caught.value.message
    assert "nowhere.yaml" in caught.value.message or caught.value.message.startswith(file)


def test_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        parse("--config", "nowhere.yaml")


def test_fault_in_a_flag_names_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="command line: workers = 'x' is refused"):
        parse("--config", engine_yaml(tmp_path, "port: 1\n"), "--workers", "x")
