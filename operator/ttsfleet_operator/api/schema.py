"""From the structs to a structural OpenAPI v3 schema, as a CustomResourceDefinition holds it. Pure.

Only what the API server knows is written: types, bounds, enums, list keys, and CEL for patterns (with the phrase that
people read instead of the expression), keys of maps and the structs' rules. Defaults are left out but for
`SchemaDefault`: the structs have them, and a default in the schema would be stored in every object.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args, get_origin

from pydantic import BaseModel

from ttsfleet_operator.api.base import PHRASES, IntOrString, ListMap, SchemaDefault
from ttsfleet_operator.api.rules import Rule, cel_text
from ttsfleet_operator.api.shape import flattened, is_struct, unwrapped

Schema: TypeAlias = dict[str, Any]

_RULES = "x-kubernetes-validations"
_BOUNDS = {"ge": "minimum", "le": "maximum"}
_LENGTHS = {
    "string": {"min_length": "minLength", "max_length": "maxLength"},
    "array": {"min_length": "minItems", "max_length": "maxItems"},
}


def struct_schema(struct: type[BaseModel], given: Mapping[str, Schema] | None = None) -> Schema:
    """The schema of one struct with all that is in it. `given` are the schemas of properties that are not ours."""
    docs = field_descriptions(struct)
    properties: Schema = {}
    for name, info in struct.model_fields.items():
        if given is not None and (info.alias or name) in given:
            properties[info.alias or name] = given[info.alias or name]
            continue
        schema = _value_schema(info.annotation, info.metadata)
        described = docs.get(name) or schema.get("description", "")
        properties[info.alias or name] = {"description": described, **_without(schema, "description")}
    required = [info.alias or name for name, info in struct.model_fields.items() if info.is_required()]
    schema = {"type": "object", "description": struct_description(struct)}
    if properties:
        schema["properties"] = properties
    if required:
        schema["required"] = required
    rules = [rule.validation() for rule in getattr(struct, "RULES", ())]
    return schema | ({_RULES: rules} if rules else {})


def struct_description(struct: type[BaseModel]) -> str:
    """The docstring of a struct as one line."""
    return " ".join((inspect.getdoc(struct) or "").split())


def field_descriptions(struct: type[BaseModel]) -> dict[str, str]:
    """The texts that stand under the fields of a struct, each as one line, by attribute name."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for before, after in zip(body.body, body.body[1:], strict=False):
        if not isinstance(before, ast.AnnAssign) or not isinstance(before.target, ast.Name):
            continue
        if (
            isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[before.target.id] = " ".join(after.value.value.split())
    return found


def _value_schema(annotation: Any, metadata: Sequence[Any] = ()) -> Schema:
    kind, more = unwrapped(annotation)
    marks = [*more, *flattened(metadata)]
    origin = get_origin(kind)
    if is_struct(kind):
        return struct_schema(kind)
    if origin is tuple:
        return _list_schema(kind, marks)
    if origin is dict:
        return _map_schema(kind, marks)
    if origin is Literal:
        schema: Schema = {"type": "string", "enum": list(get_args(kind))}
    else:
        names = {str: "string", int: "integer", float: "number", bool: "boolean"}
        schema = {"type": names[kind]}
    return _bounded(schema, marks)


def _bounded(schema: Schema, marks: list[Any]) -> Schema:
    rules: list[dict[str, str]] = []
    lengths = _LENGTHS.get(schema["type"], {})
    for mark in marks:
        for attribute, key in (_BOUNDS | lengths).items():
            value = getattr(mark, attribute, None)
            if value is not None:
                schema[key] = value
        pattern = getattr(mark, "pattern", None)
        if pattern is not None:
            rules.append({"rule": f"self.matches(r'{pattern}')", "message": f"must be {PHRASES[pattern]}"})
        if isinstance(mark, Rule):
            rules.append(mark.validation())
        if isinstance(mark, SchemaDefault):
            schema["default"] = mark.value
    if any(isinstance(mark, IntOrString) for mark in marks):
        schema = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]} | _without(
            schema, "type"
        )
        rules = [{**rule, "rule": rule["rule"].replace("self.", "string(self).", 1)} for rule in rules]
    return schema | ({_RULES: rules} if rules else {})


def _list_schema(kind: Any, marks: list[Any]) -> Schema:
    schema = _bounded({"type": "array"}, marks) | {"items": _value_schema(get_args(kind)[0])}
    keys = [mark.key for mark in marks if isinstance(mark, ListMap)]
    if keys:
        return schema | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}
    return schema | {"x-kubernetes-list-type": "atomic"}


def _map_schema(kind: Any, marks: list[Any]) -> Schema:
    key, value = get_args(kind)
    size = next(mark.max_length for mark in marks if getattr(mark, "max_length", None) is not None)
    schema = {"type": "object", "maxProperties": size, "additionalProperties": _value_schema(value)}
    rules = []
    for mark in unwrapped(key)[1]:
        if getattr(mark, "pattern", None) is not None:
            broken = f"!k.matches(r'{mark.pattern}') || k.size() > {mark.max_length}"
            message = (
                cel_text(f"key '%s' must be {PHRASES[mark.pattern]}") + f".format([self.filter(k, {broken})[0]])"
            )
            rules.append({"rule": f"self.all(k, !({broken}))", "messageExpression": message})
    rules += [mark.validation() for mark in marks if isinstance(mark, Rule)]
    return schema | ({_RULES: rules} if rules else {})


def _without(schema: Schema, key: str) -> Schema:
    return {name: value for name, value in schema.items() if name != key}
