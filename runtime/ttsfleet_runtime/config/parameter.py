"""What is known about one setting beside its type: meaning, unit, default rule, the guide's advice, what it needs.

`Parameter` rides in the annotation of each field of `EngineConfig`; the flags, the generated table, the range
warnings and the notes about a missing GPU all read it from there, so a setting is described in one place only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Parameter:
    """Documentation of a setting, in the form that programs can use.

    default: the rule in words that applies when the setting is absent
    acts_on: the process or stage that reads it
    guide: the tuning guide's value or range, as text
    recommended: the range outside which a value is allowed but warned about, with `reason`
    allowed: what may be written, where the type does not say it
    gpu: for a setting that needs a GPU, what it does there
    pending: for a setting that is accepted but does not act yet, what it waits for
    """

    meaning: str
    default: str
    acts_on: str
    unit: str = ""
    guide: str = ""
    recommended: tuple[float, float] | None = None
    reason: str = ""
    allowed: str = ""
    gpu: str = ""
    pending: str = ""


class Settings(BaseModel):
    """Base of the configuration's sections: every field optional, no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class Setting:
    """One leaf of the configuration: `path` is its dotted name in engine.yaml and, with dashes, its flag."""

    path: str
    info: FieldInfo
    parameter: Parameter

    @property
    def kind(self) -> type[Any]:
        """The plain type under `X | None`; for a Literal the type of its choices."""
        choices = self.choices
        if choices:
            return type(choices[0])
        return _plain_type(self.info.annotation)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The allowed values of a Literal setting; empty for any other."""
        for argument in get_args(self.info.annotation):
            nested = get_args(argument)
            if nested and all(isinstance(value, str | int) for value in nested):
                return nested
        return ()

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """Hard limits (least, most), None where there is none. Beyond them a value is refused."""
        least = most = None
        for constraint in self.info.metadata:
            least = getattr(constraint, "ge", getattr(constraint, "gt", least))
            most = getattr(constraint, "le", most)
        return least, most

    def allowed(self) -> str:
        """What this setting accepts, in words for an error message and the table."""
        if self.parameter.allowed:
            return self.parameter.allowed
        if self.choices:
            return ", ".join(str(value) for value in self.choices)
        if self.kind is bool:
            return "true, false"
        word = {int: "an integer", float: "a number", str: "text", tuple: "a list"}[self.kind]
        least, most = self.bounds
        if least is not None and most is not None:
            return f"{word} from {least} to {most}"
        if least is not None:
            return f"{word}, at least {least}" if self.kind is int else f"{word} above {least}"
        return word


def _plain_type(annotation: Any) -> type[Any]:
    if annotation in (bool, int, float, str):
        return annotation  # type: ignore[no-any-return]
    for argument in get_args(annotation):
        if argument in (bool, int, float, str):
            return argument  # type: ignore[no-any-return]
        if getattr(argument, "__origin__", None) is tuple:
            return tuple
    raise AssertionError(f"setting of an unsupported type {annotation}")


def walk(model: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """Every leaf setting of a configuration model, sections expanded, in the order of declaration."""
    for name, info in model.model_fields.items():
        section = _section(info)
        if section is not None:
            yield from walk(section, f"{prefix}{name}.")
            continue
        for data in info.metadata:
            if isinstance(data, Parameter):
                yield Setting(f"{prefix}{name}", info, data)


def _section(info: FieldInfo) -> type[BaseModel] | None:
    for candidate in (info.annotation, *get_args(info.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
