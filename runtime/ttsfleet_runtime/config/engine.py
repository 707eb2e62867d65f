"""engine.yaml: what a user asks of the runtime. Every value is optional; `config.resolve` decides the rest.

The names are the tuning guide's where it has one. A setting's meaning, unit, default rule and the guide's advice
stand in its annotation (`config.parameter.Parameter`); docs/engine-parameters.md is generated from there. Values
outside a hard limit are refused with a `ConfigError`; values outside the recommended range only warn.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from ttsfleet_runtime.checkpoint.directory import STYLE_NAME
from ttsfleet_runtime.config.gpu_settings import AccelerationSettings, NumericSettings
from ttsfleet_runtime.config.parameter import Parameter, Setting, Settings, walk
from ttsfleet_runtime.config.server_settings import LimitSettings, ServerSettings
from ttsfleet_runtime.config.stage_settings import (
    DecodeSettings,
    EncodeSettings,
    LLMSettings,
    ThreadSettings,
)

SCHEMA_VERSION: Final = 1


def parse_cpus(value: object) -> object:
    """CPU numbers of `0-3,8`, of one number, or of a list of numbers, sorted; other types are left to fail."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return (value,)
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, str):
        return value
    cpus: set[int] = set()
    for part in filter(None, (part.strip() for part in value.split(","))):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise ValueError(f"{part!r} is neither a CPU number nor a range such as 0-3")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last > 8191:
            raise ValueError(f"{part!r} is not a rising range of CPU numbers below 8192")
        cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))


CpuList = Annotated[tuple[Annotated[int, Field(ge=0, le=8191)], ...] | None, BeforeValidator(parse_cpus)]


def parse_styles(value: object) -> object:
    """`name=path` parts of a text with commas, or of a list; other types are left to fail."""
    parts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        return value
    names = []
    for part in parts:
        name, _, path = part.partition("=")
        if not STYLE_NAME.fullmatch(name) or not path:
            raise ValueError(f"{part!r} is not NAME=PATH; a name has letters, digits and _ . -")
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} leads out of the model directory; give a path in it")
        names.append(name)
    if len(set(names)) < len(names):
        raise ValueError("a name occurs twice")
    return tuple(parts)


StyleList = Annotated[tuple[str, ...] | None, BeforeValidator(parse_styles)]


class AffinitySettings(Settings):
    """CPU sets per stage"""

    encode: Annotated[
        CpuList,
        Parameter(
            meaning="CPUs of the encoders, e.g. 0-3,8",
            default="not pinned",
            acts_on="encode",
            unit="CPU numbers",
            allowed="CPU numbers such as 0-3,8",
            guide="the first half of the cores",
        ),
    ] = None
    llm: Annotated[
        CpuList,
        Parameter(
            meaning="CPUs of the LLM processes",
            default="not pinned",
            acts_on="llm",
            unit="CPU numbers",
            allowed="CPU numbers such as 0-3,8",
            guide="the second half of the cores",
        ),
    ] = None
    decode: Annotated[
        CpuList,
        Parameter(
            meaning="CPUs of the decoders",
            default="not pinned",
            acts_on="decode",
            unit="CPU numbers",
            allowed="CPU numbers such as 0-3,8",
        ),
    ] = None


class PlacementSettings(Settings):
    """Model and machine"""

    schema_version: Annotated[
        Literal[1],
        Parameter(
            meaning="version of this file's format",
            default=str(SCHEMA_VERSION),
            allowed=str(SCHEMA_VERSION),
            acts_on="all",
        ),
    ] = 1
    model_dir: Annotated[
        str | None,
        Parameter(
            meaning="model directory as published; `builtin:NAME` for a voice that ships with the package",
            default="builtin:tiny-en",
            acts_on="all",
            unit="path",
        ),
    ] = None
    device: Annotated[
        str | None,
        Field(pattern=r"^(auto|cpu|cuda|cuda:\d{1,2})$"),
        Parameter(
            meaning="where LLM and decode run: auto, cpu, cuda or cuda:N",
            default="auto: the first GPU, else the CPU",
            allowed="auto, cpu, cuda, cuda:N",
            acts_on="llm, decode",
        ),
    ] = None
    styles: Annotated[
        StyleList,
        Parameter(
            meaning="styles and their LLM weights in the model directory, e.g. plain=llm.pt,news=styles/news",
            default="those of the model's style_config.json",
            acts_on="llm",
        ),
    ] = None
    workers: Annotated[
        int | None,
        Field(ge=1, le=64),
        Parameter(
            meaning="sets of LLM and decode processes on the one device",
            default="GPU: 1 below 20 GiB, 3 below 36 GiB, else 4; CPU: 1",
            acts_on="llm, decode",
            unit="sets",
            guide="24 GB: 3, 40 GB: 4, 10 GB: 1",
            recommended=(1, 8),
            reason="each set holds the weights and a KV cache of its own",
        ),
    ] = None
    cache_dir: Annotated[
        str | None,
        Parameter(
            meaning="folder of the compute-ready forms of models; may be deleted at any time",
            default="$TTSFLEET_CACHE_DIR, else ttsfleet in the user's cache folder",
            acts_on="all",
            unit="path",
        ),
    ] = None
    voices_dir: Annotated[
        str | None,
        Parameter(
            meaning="folder of the voices that clients registered; keep it",
            default="$TTSFLEET_VOICES_DIR, else ttsfleet/voices in the user's data folder",
            acts_on="router",
            unit="path",
        ),
    ] = None
    numa_node: Annotated[
        int | None,
        Field(ge=0, le=255),
        Parameter(
            meaning="NUMA node whose CPUs and memory all processes use",
            default="not bound",
            acts_on="all",
            guide="numactl --cpunodebind=0 --membind=0",
        ),
    ] = None
    exclusive_cpus: Annotated[
        int | None,
        Field(ge=4, le=4096),
        Parameter(
            meaning="CPUs that this pod alone should have: where it sees exactly so many, and fewer than the machine "
            "has, each stage is pinned to its share of them",
            default="not pinned",
            acts_on="encode, llm, decode",
            unit="CPUs",
            guide="taskset: the first half of the cores for encode, the second for LLM",
        ),
    ] = None
    exclusive_by_node: Annotated[
        bool | None,
        Parameter(
            meaning="share exclusive_cpus out NUMA node by node, LLM and decode on that of the GPU",
            default="false",
            acts_on="encode, llm, decode",
        ),
    ] = None


class SectionSettings(Settings):
    """The nested sections of engine.yaml"""

    threads: ThreadSettings = ThreadSettings()
    cpu_affinity: AffinitySettings = AffinitySettings()
    limits: LimitSettings = LimitSettings()


GROUPS: tuple[type[Settings], ...] = (
    PlacementSettings,
    EncodeSettings,
    LLMSettings,
    DecodeSettings,
    NumericSettings,
    AccelerationSettings,
    ServerSettings,
    ThreadSettings,
    AffinitySettings,
    LimitSettings,
)


class EngineConfig(
    SectionSettings,
    ServerSettings,
    AccelerationSettings,
    NumericSettings,
    DecodeSettings,
    LLMSettings,
    EncodeSettings,
    PlacementSettings,
):
    """All of engine.yaml, as asked. None means: let the plan decide."""


def settings() -> tuple[Setting, ...]:
    """Every leaf setting of engine.yaml, in the order of the documentation."""
    return tuple(walk(EngineConfig))


def styles_of(config: EngineConfig) -> dict[str, str]:
    """The styles asked for, name -> path; empty = the model's own."""
    pairs = (one.partition("=") for one in config.styles or ())
    return {name: path for name, _, path in pairs}


def asked(config: EngineConfig) -> dict[str, object]:
    """The values that the user gave, by dotted name; absent and null settings are left out."""
    values: dict[str, object] = {}
    for setting in settings():
        owner: object = config
        *sections, name = setting.path.split(".")
        for section in sections:
            owner = getattr(owner, section)
        value = getattr(owner, name)
        if value is not None and setting.path != "schema_version":
            values[setting.path] = value
    return values
