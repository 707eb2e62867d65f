"""Where values come from: the flags of `ttsfleet-runtime serve` over the file engine.yaml.

Every setting is a flag of the same name (`--encode_process_num 2`, `--load_trt true`, `--threads.llm 1`). Both
sources end in one `EngineConfig.model_validate`; whatever is wrong becomes a `ConfigError` that names the source, the
field, the value, what is allowed and the remedy.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ttsfleet_runtime.config.engine import SCHEMA_VERSION, EngineConfig, settings
from ttsfleet_runtime.config.parameter import Setting
from ttsfleet_runtime.errors import ConfigError

_DESTINATION = "setting:"


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error instead of a silent last word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            if isinstance(key, str | int):
                seen.add(key)
        return super().construct_mapping(node, deep)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and one flag per setting. Absent flags leave nothing in the namespace."""
    parser.add_argument("--config", metavar="engine.yaml", help="file of settings; flags override it")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in settings():
        if setting.path == "schema_version":
            continue
        stage = setting.parameter.acts_on
        if stage not in groups:
            groups[stage] = parser.add_argument_group(f"acts on {stage}")
        groups[stage].add_argument(
            f"--{setting.path}",
            dest=_DESTINATION + setting.path,
            default=argparse.SUPPRESS,
            metavar=_metavar(setting),
            help=_help(setting).replace("%", "%%"),
        )


def read_config(arguments: argparse.Namespace) -> EngineConfig:
    """The settings of `--config` with the flags over them. Raises ConfigError."""
    file: str | None = arguments.config
    values: dict[str, Any] = {} if file is None else read_yaml(Path(file))
    flags = {
        name.removeprefix(_DESTINATION): text
        for name, text in vars(arguments).items()
        if name.startswith(_DESTINATION)
    }
    if file is not None:
        validate(values, source=file)
    by_path = {setting.path: setting for setting in settings()}
    for path, text in flags.items():
        _place(values, path, _parse_flag(by_path[path], text))
    config = validate(values, source="command line")
    return _check_files(config)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping of an engine.yaml, nulls left out. Raises ConfigError when it is missing or no such file."""
    try:
        document = yaml.load(path.read_text(), Loader=_UniqueKeyLoader)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; --config must name a readable engine.yaml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(document).__name__}")
    return _without_nulls(document)


def validate(values: Mapping[str, Any], source: str) -> EngineConfig:
    """Check the values of one source. Raises ConfigError with every fault, one per line."""
    version = values.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{source}: schema_version = {version!r}; this runtime reads version {SCHEMA_VERSION}: "
            "use a runtime of the release that wrote the file",
            param="schema_version",
        )
    try:
        return EngineConfig.model_validate(dict(values))
    except ValidationError as error:
        faults = error.errors()
        first = ".".join(str(part) for part in faults[0]["loc"])
        lines = [f"{source}: {_explain(fault)}" for fault in faults]
        raise ConfigError("\n".join(dict.fromkeys(lines)), param=first) from error


def _explain(fault: ErrorDetails) -> str:
    location = [part for part in fault["loc"] if isinstance(part, str)]
    path, value = ".".join(location), fault.get("input")
    by_path = {setting.path: setting for setting in settings()}
    setting = by_path.get(path)
    if setting is not None:
        allowed = setting.allowed()
        detail = f" ({fault['msg'].removeprefix('Value error, ')})" if fault["type"] == "value_error" else ""
        return (
            f"{path} = {_show(value)} is refused{detail}; allowed: {allowed}; "
            f"or leave it out, then the plan decides: {setting.parameter.default}"
        )
    if fault["type"] != "extra_forbidden":
        return f"{path} = {_show(value)} is refused: {fault['msg']}"
    return f"{path} = {_show(value)} is not a setting; {suggestion(path)}"


def suggestion(path: str, prefix: str = "") -> str:
    """What was probably meant by an unknown name, also one written outside or inside of its section."""
    known = [setting.path for setting in settings()]
    leaf = path.rpartition(".")[2]
    same_leaf = [candidate for candidate in known if candidate.rpartition(".")[2] == leaf]
    close = same_leaf or difflib.get_close_matches(path.replace("-", "_"), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return "`ttsfleet-runtime serve --help` lists all settings"


def _parse_flag(setting: Setting, text: str) -> object:
    """A flag's text as the setting's type; text that does not fit is left for validation to refuse."""
    if setting.kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        if setting.kind is int:
            return int(text)
        if setting.kind is float:
            return float(text)
    except ValueError:
        return text
    return text


def _check_files(config: EngineConfig) -> EngineConfig:
    path = config.custom_cfg_path
    if path and not Path(path).is_file():
        raise ConfigError(
            f"custom_cfg_path = {path!r}: no such file; give the file that says how each layer is quantised",
            param="custom_cfg_path",
        )
    return config


def _place(values: dict[str, Any], path: str, value: object) -> None:
    *sections, name = path.split(".")
    for section in sections:
        values[section] = dict(values.get(section, {}))
        values = values[section]
    values[name] = value


def _without_nulls(document: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(key): _without_nulls(value) if isinstance(value, dict) else value
        for key, value in document.items()
        if value is not None
    }


def _metavar(setting: Setting) -> str:
    if setting.choices or setting.kind is bool:
        return "{" + setting.allowed().replace(", ", ",") + "}"
    return setting.parameter.unit.upper().replace(" ", "_") or setting.kind.__name__.upper().replace("TUPLE", "LIST")


def _help(setting: Setting) -> str:
    parameter = setting.parameter
    gpu = "; needs a GPU" if parameter.gpu else ""
    return f"{parameter.meaning} (default: {parameter.default}{gpu})"


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
