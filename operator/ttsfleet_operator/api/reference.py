"""docs/ttsservice.md: every field of our resources, from the schema that the API server gets.

`python -m ttsfleet_operator.api.reference` prints it; `make docs` writes it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from ttsfleet_operator.api.crd import RESOURCES, Resource, root_schema
from ttsfleet_operator.api.schema import Schema

_HEADING = """\
# TTSService and TTSGPUProfile

Generated from the code (`make docs`); do not edit. `kubectl explain tts.spec` shows the same in a terminal.

- **Field**: path in the manifest; `[]` is an entry of a list, `{}` a value of a map.
- **Required** fields are marked; every other may be left out, and the text says what that means.
- **Rules** are checked by the API server and, with the same words, by `ttsfleet plan` and `ttsfleet run`.
  Those about a claim that cannot change only the API server can check.
- Unknown fields are errors wherever validation is strict, as it is with `kubectl` by default.
"""
_SECTIONS = {"spec": "Spec", "status": "Status, written by the operator"}


def render_reference() -> str:
    """The whole document."""
    return "\n".join([_HEADING, *(line for resource in RESOURCES for line in _resource(resource))])


def _resource(resource: Resource) -> Iterator[str]:
    schema = root_schema(resource.struct)
    yield f"## {resource.kind}\n"
    yield f"{schema['description']}\n"
    yield (
        f"`apiVersion: ttsfleet.dev/v1alpha1`, {resource.scope.lower()}, short name `{resource.short_name}`, "
        "category `ttsfleet`.\n"
    )
    for rule in _rules(schema):
        yield f"- {rule}"
    for name, title in _SECTIONS.items():
        if name not in schema["properties"]:
            continue
        section = schema["properties"][name]
        yield f"\n### {title}\n"
        yield "| Field | Type | Meaning |"
        yield "|---|---|---|"
        yield from _rows(section, name, {})
        sentences: dict[str, list[str]] = {}
        for path, one in _walk(section, name):
            for rule in _rules(one):
                sentences.setdefault(rule, []).append(f"`{path}`")
        if sentences:
            yield "\nRules:\n"
            yield from (f"- {sentence} ({', '.join(paths)})" for sentence, paths in sentences.items())
    yield ""


def _rows(schema: Schema, path: str, seen: dict[str, str]) -> Iterator[str]:
    """One row per field; a struct that was already listed is referred to."""
    for name, value in schema.get("properties", {}).items():
        required = ", required" if name in schema.get("required", ()) else ""
        described = str(value["description"]).replace("|", "\\|")
        inner, below = _inner(value), f"{path}.{name}{_mark(value)}"
        before = seen.setdefault(str(inner["properties"]), below) if len(inner.get("properties", ())) > 1 else below
        if before != below:
            described += f" Fields as in `{before}`."
        yield f"| `{path}.{name}` | {_type(value)}{required} | {described} |"
        if before == below:
            yield from _rows(inner, below, seen)


def _walk(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    inner = _inner(schema)
    if inner is not schema:
        yield from _walk(inner, path + _mark(schema))
    for name, value in schema.get("properties", {}).items():
        yield from _walk(value, f"{path}.{name}")


def _inner(schema: Schema) -> Schema:
    inner: Schema = schema.get("items") or schema.get("additionalProperties") or schema
    return inner


def _mark(schema: Schema) -> str:
    return "[]" if "items" in schema else "{}" if "additionalProperties" in schema else ""


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{word}`" if word else "empty" for word in schema["enum"])
    if "x-kubernetes-int-or-string" in schema:
        return "quantity"
    if "items" in schema:
        keys = schema.get("x-kubernetes-list-map-keys")
        by = f" by {keys[0]}" if keys else ""
        return f"list{by}, at most {schema['maxItems']}"
    if "additionalProperties" in schema:
        return f"map, at most {schema['maxProperties']}"
    if schema["type"] in ("integer", "number") and "minimum" in schema:
        most = f" to {schema['maximum']}" if "maximum" in schema else " or more"
        return f"{schema['type']}, {schema['minimum']}{most}"
    return str(schema["type"])


def _rules(schema: Schema) -> Iterator[str]:
    """The sentences of a schema's rules; a value that is filled in is shown as `…`."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "message" in rule:
            yield str(rule["message"])
        else:
            template = rule["messageExpression"].split('".format(')[0].removeprefix('"')
            yield re.sub("(%s)+", "…", template).replace("%%", "%").replace("\\\\", "\\")


if __name__ == "__main__":
    sys.stdout.write(render_reference())
