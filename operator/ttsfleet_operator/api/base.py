"""The base of every struct of our resources, and the scalar types that Kubernetes gives a syntax.

Wire names are camelCase (the engine and server structs keep the guide's snake_case). Unknown fields are errors,
scalars are not coerced (`"8"` is no integer), and instances are frozen. The text under a field is its description
in the CRD (`api.schema` reads it); every text, list and map has a bound, which the cost of CEL rules needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from ttsfleet_operator.api.quantity import BYTES, CORES, POSITIVE_BYTES
from ttsfleet_operator.api.rules import Rule

DNS_1035 = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
DNS_1123 = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_1123_OR_EMPTY = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"
DNS_1123_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
DNS_1123_SUBDOMAIN_OR_EMPTY = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$"
CONFIG_KEY = r"^[-._a-zA-Z0-9]+$"
SHA256 = r"^[0-9a-f]{64}$"
SHA256_OR_EMPTY = r"^([0-9a-f]{64})?$"
LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
LABEL_KEY = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
LABEL_KEY_OR_EMPTY = f"^({LABEL_KEY[1:-1]})?$"
REPOSITORY = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$"
REVISION = r"^[A-Za-z0-9._/-]*$"
BUCKET = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
REGION = r"^[a-z0-9-]*$"
CAPABILITY_OR_EMPTY = r"^([1-9][0-9]?\.[0-9])?$"
REASON = r"^[A-Z][A-Za-z0-9]*$"
RESOURCE_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9._-]+$"
IMAGE = r"^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$"
IMAGE_OR_EMPTY = r"^([a-zA-Z0-9][a-zA-Z0-9._:/@-]*)?$"
HTTPS_URL = r"^https://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?([/?][!-~]*)?$"
HTTPS_URL_OR_EMPTY = r"^(https://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?([/?][!-~]*)?)?$"

# What a text of a pattern looks like, for people: "must be …". Patterns are RE2 and mean the same in Rust and Go
# (explicit classes, no \d, \w or \s: those are Unicode in one and ASCII in the other).
PHRASES: dict[str, str] = {
    DNS_1035: "lower-case letters, digits and '-', beginning with a letter and not ending with '-'",
    DNS_1123: "lower-case letters, digits and '-', neither beginning nor ending with '-'",
    DNS_1123_OR_EMPTY: "lower-case letters, digits and '-', neither beginning nor ending with '-', or empty",
    DNS_1123_SUBDOMAIN: "lower-case letters, digits, '-' and '.', as in a Kubernetes object name",
    DNS_1123_SUBDOMAIN_OR_EMPTY: "lower-case letters, digits, '-' and '.', as in a Kubernetes object name, or empty",
    CORES: "a number of cores such as 8, 0.5 or 500m",
    BYTES: "a quantity such as 500M, 16Gi",
    POSITIVE_BYTES: "a quantity above 0 such as 500M, 16Gi",
    CONFIG_KEY: "letters, digits, '-', '_' and '.'",
    SHA256: "64 lower-case hexadecimal digits",
    SHA256_OR_EMPTY: "64 lower-case hexadecimal digits, or empty",
    LABEL_VALUE: "letters, digits, '-', '_' and '.', beginning and ending with a letter or digit, or empty",
    LABEL_KEY: "a label key such as topology.kubernetes.io/zone",
    LABEL_KEY_OR_EMPTY: "a label key such as topology.kubernetes.io/zone, or empty",
    REPOSITORY: "a repository as owner/name",
    REVISION: "a commit, tag or branch: letters, digits, '.', '_', '/' and '-'",
    BUCKET: "a bucket's name: 3 to 63 lower-case letters, digits, '-' and '.'",
    REGION: "a region such as eu-central-1: lower-case letters, digits and '-'",
    CAPABILITY_OR_EMPTY: 'a compute capability in quotes such as "8.9", or empty',
    REASON: "one word in CamelCase",
    RESOURCE_NAME: "an extended resource such as nvidia.com/gpu",
    IMAGE: "an image reference such as registry.example/speech/model:v1",
    IMAGE_OR_EMPTY: "an image reference such as registry.example/speech/model:v1, or empty",
    HTTPS_URL: "an https:// URL without a user and password in it",
    HTTPS_URL_OR_EMPTY: "an https:// URL without a user and password in it, or empty",
}


class _Ruled(BaseModel):
    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in self.RULES:
            rule.enforce(self)
        return self


class Struct(_Ruled):
    """A struct of the manifest with camelCase wire names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, serialize_by_alias=True
    )


class GuideStruct(_Ruled):
    """A struct whose wire names are the guide's snake_case parameter names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


@dataclass(frozen=True)
class ListMap:
    """A list whose entries are told apart by `key` (x-kubernetes-list-type: map)."""

    key: str = "name"


@dataclass(frozen=True)
class SchemaDefault:
    """The API server writes this default into the object: only for values that never become better ones."""

    value: Any


@dataclass(frozen=True)
class IntOrString:
    """The API server takes an integer as well as a text."""


def _integer_to_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _leaves_its_directory(value: str) -> dict[str, object] | None:
    outside = value.startswith("/") or ".." in value.split("/") or "\\" in value
    return {} if outside else None


INSIDE = Rule(
    name="path_traversal",
    cel=r"!self.startsWith('/') && !self.contains('\\') && !self.split('/').exists(part, part == '..')",
    message="must be relative and stay inside its directory (no '..', no '\\')",
    check=_leaves_its_directory,
)

CoresQuantity: TypeAlias = Annotated[
    str, BeforeValidator(_integer_to_text), StringConstraints(pattern=CORES, max_length=32), IntOrString()
]
BytesQuantity: TypeAlias = Annotated[
    str, BeforeValidator(_integer_to_text), StringConstraints(pattern=BYTES, max_length=32), IntOrString()
]
PositiveBytesQuantity: TypeAlias = Annotated[
    str, BeforeValidator(_integer_to_text), StringConstraints(pattern=POSITIVE_BYTES, max_length=32), IntOrString()
]
RelativePath: TypeAlias = Annotated[str, StringConstraints(max_length=256), INSIDE]
ObjectName: TypeAlias = Annotated[str, StringConstraints(pattern=DNS_1123_SUBDOMAIN, max_length=253)]
OptionalObjectName: TypeAlias = Annotated[str, StringConstraints(pattern=DNS_1123_SUBDOMAIN_OR_EMPTY, max_length=253)]
ConfigKey: TypeAlias = Annotated[str, StringConstraints(pattern=CONFIG_KEY, max_length=253)]
Sha256: TypeAlias = Annotated[str, StringConstraints(pattern=SHA256, max_length=64)]
HttpsURL: TypeAlias = Annotated[str, StringConstraints(pattern=HTTPS_URL, max_length=1024)]
Endpoint: TypeAlias = Annotated[str, StringConstraints(pattern=HTTPS_URL_OR_EMPTY, max_length=1024)]
LabelKey: TypeAlias = Annotated[str, StringConstraints(pattern=LABEL_KEY, max_length=317)]
OptionalLabelKey: TypeAlias = Annotated[str, StringConstraints(pattern=LABEL_KEY_OR_EMPTY, max_length=317)]
LabelValue: TypeAlias = Annotated[str, StringConstraints(pattern=LABEL_VALUE, max_length=63)]


def wire_names(struct: type[BaseModel]) -> Mapping[str, str]:
    """Attribute → wire name."""
    return {name: info.alias or name for name, info in struct.model_fields.items()}


class SecretKeyRef(Struct):
    """A key of a Secret in the service's namespace. The operator never reads it: the pod mounts it."""

    name: ObjectName
    """Name of the Secret."""
    key: ConfigKey
    """Key within the Secret."""


class ConfigMapKeyRef(Struct):
    """A key of a ConfigMap in the service's namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: ConfigKey
    """Key within the ConfigMap."""


class LocalObjectRef(Struct):
    """An object in the service's namespace."""

    name: ObjectName
    """Name of the object."""
