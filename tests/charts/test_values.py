"""Values: what the schema admits, that nothing is undocumented, and that generated files are as generated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "ttsfleet"
OPEN_MAPS = {"annotations", "labels", "matchLabels", "nodeSelector", "podAnnotations", "podLabels"}
PASSED_THROUGH = {"global", "nodeAffinity", "podAffinity", "podAntiAffinity"}


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return loaded


def changed(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(values))
    *parents, last = path.split(".")
    target = copy
    for parent in parents:
        target = target.setdefault(parent, {})
    target[last] = value
    return copy


def object_schemas(schema: dict[str, Any], name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if schema.get("type") == "object":
        yield name, schema
    for key, child in schema.get("properties", {}).items():
        yield from object_schemas(child, key)
    if isinstance(schema.get("items"), dict):
        yield from object_schemas(schema["items"], f"{name}[]")


def test_no_object_of_the_schema_admits_unknown_keys(schema: dict[str, Any]) -> None:
    lenient = {name for name, one in object_schemas(schema) if one.get("additionalProperties") is not False}
    assert lenient == (OPEN_MAPS | PASSED_THROUGH)
    maps = [one for name, one in object_schemas(schema) if name in OPEN_MAPS]
    assert all(one["additionalProperties"] == {"type": "string"} for one in maps)


def test_defaults_satisfy_the_schema(schema: dict[str, Any], values: dict[str, Any]) -> None:
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)


def test_schema_and_defaults_have_the_same_keys(schema: dict[str, Any], values: dict[str, Any]) -> None:
    def keys_of_values(node: object, prefix: str = "") -> set[str]:
        if not isinstance(node, dict) or not node:
            return {prefix}
        return set().union(*(keys_of_values(child, f"{prefix}.{key}") for key, child in node.items()))

    def keys_of_schema(node: dict[str, Any], known: object, prefix: str = "") -> set[str]:
        if "properties" not in node or not isinstance(known, dict) or not known:
            return {prefix}
        children = {key: child for key, child in node["properties"].items() if key not in ("global",)}
        found = (keys_of_schema(child, known.get(key), f"{prefix}.{key}") for key, child in children.items())
        return set().union(*found)

    optional = {
        f".resources.{kind}.{name}" for kind in ("requests", "limits") for name in ("ephemeral-storage", "cpu")
    }
    assert keys_of_schema(schema, values) - keys_of_values(values) <= optional
    assert keys_of_values(values) <= keys_of_schema(schema, values)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("replica", 2, id="misspelt-key"),
        pytest.param("image.tga", "1", id="misspelt-key-below"),
        pytest.param("replicas", "2", id="text-for-a-number"),
        pytest.param("replicas", -1, id="negative-replicas"),
        pytest.param("image.digest", "latest", id="tag-as-digest"),
        pytest.param("image.pullPolicy", "Sometimes", id="unknown-pull-policy"),
        pytest.param("watchNamespaces", ["Speech"], id="namespace-in-capitals"),
        pytest.param("watchNamespaces", ["a", "a"], id="namespace-twice"),
        pytest.param("policies.images.allowed", ["a'] + ['b"], id="quote-in-an-image"),
        pytest.param("policies.reservedKeys.prefixes", ["x') || ('"], id="quote-in-a-prefix"),
        pytest.param("policies.reservedKeys.prefixes", [], id="no-prefix"),
        pytest.param("mirrors.huggingFace", "hub.example.com", id="mirror-without-scheme"),
        pytest.param("proxy.noProxy", "a, b", id="blank-in-no-proxy"),
        pytest.param("caBundle.configMapName", "speech/ca", id="ca-of-a-namespace"),
        pytest.param("caBundle.key", "..", id="ca-key-that-leaves-its-folder"),
        pytest.param("reconcile.workers", 0, id="no-workers"),
        pytest.param("reconcile.resyncSeconds", 5, id="looks-too-often"),
        pytest.param("reconcile.probeSeconds", 2.5, id="part-of-a-second"),
        pytest.param("logging.level", "loud", id="unknown-level"),
        pytest.param("networkPolicy.apiServer.ports", [0], id="port-zero"),
        pytest.param("networkPolicy.apiServer.cidrs", ["10.0.0.1"], id="address-without-mask"),
        pytest.param("resources.limits.gpu", 1, id="unknown-resource"),
        pytest.param("tolerations", [{"effect": "Always"}], id="unknown-effect"),
    ],
)
def test_wrong_values_are_refused(schema: dict[str, Any], values: dict[str, Any], path: str, value: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(values, path, value), schema)


def test_generated_files_are_as_generated(generator: ModuleType) -> None:
    stale = [str(path.relative_to(ROOT)) for path in generator.stale(generator.generated(generator.find_helm()))]
    assert stale == [], "run `make chart-docs`"


def test_a_value_without_a_comment_is_an_error_that_names_it(generator: ModuleType) -> None:
    with pytest.raises(generator.UndocumentedValue, match=r"image\.tag has no comment"):
        generator.read_values("# The image.\n\nimage:\n  tag: ''\n")


def test_table_joins_comment_lines_and_shows_defaults_as_json(generator: ModuleType) -> None:
    text = "a:\n  # First line,\n  # second line.\n  b: [x]\n# A map.\nc: {d: 1}\n"
    rows = [(value.key, value.default, value.comment) for value in generator.read_values(text)]
    assert rows == [("a.b", '["x"]', "First line, second line."), ("c", '{"d": 1}', "A map.")]
