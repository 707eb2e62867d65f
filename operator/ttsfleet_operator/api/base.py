"""The base of every TTSService struct, and the scalar types that Kubernetes gives a syntax.

Wire names are camelCase (the engine and server structs keep the guide's snake_case). Unknown fields are errors,
scalars are not coerced (`"8"` is no integer), and instances are frozen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

DNS_1035 = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
DNS_1123 = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_1123_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY = r"^\d+(\.\d+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
CONFIG_KEY = r"^[-._a-zA-Z0-9]+$"


class Struct(BaseModel):
    """A struct of the manifest with camelCase wire names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, serialize_by_alias=True
    )


class GuideStruct(BaseModel):
    """A struct whose wire names are the guide's snake_case parameter names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _number_to_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _no_traversal(value: object) -> object:
    """Refuse absolute paths and `..`: the path is joined to a directory of ours."""
    if isinstance(value, str) and (value.startswith("/") or ".." in value.split("/") or "\\" in value):
        raise PydanticCustomError(
            "path_traversal", "{value!r} must be relative and stay inside its directory (no '..')", {"value": value}
        )
    return value


Quantity: TypeAlias = Annotated[str, BeforeValidator(_number_to_text), StringConstraints(pattern=QUANTITY)]
RelativePath: TypeAlias = Annotated[str, BeforeValidator(_no_traversal), StringConstraints(max_length=256)]
ObjectName: TypeAlias = Annotated[str, StringConstraints(pattern=DNS_1123_SUBDOMAIN, min_length=1, max_length=253)]
ConfigKey: TypeAlias = Annotated[str, StringConstraints(pattern=CONFIG_KEY, min_length=1, max_length=253)]
Sha256: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def refuse(rule: str, message: str) -> PydanticCustomError:
    """The error of a rule over several fields (in the CRD: a CEL rule). `message` is shown as it is."""
    return PydanticCustomError(rule, message.replace("{", "{{").replace("}", "}}"))


def check_unique_names(what: str, names: Iterable[str]) -> None:
    """The key of a list map must be unique. Raises the error that names the duplicate."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise refuse("duplicate_key", f"two {what} are named {name!r}; names are identities and must differ")
        seen.add(name)


def check_exactly_one(what: str, given: Iterable[str], allowed: Iterable[str]) -> None:
    """A union has exactly one member. Raises the error that lists what was given and what is allowed."""
    present = list(given)
    if len(present) != 1:
        found = " and ".join(present) if present else "none"
        raise refuse("union", f"{what} must have exactly one of {', '.join(allowed)}; found {found}")


class SecretKeyRef(Struct):
    name: ObjectName
    key: ConfigKey


class ConfigMapKeyRef(Struct):
    name: ObjectName
    key: ConfigKey


class LocalObjectRef(Struct):
    name: ObjectName
