"""The CustomResourceDefinitions: current, complete, bounded, and small enough to be applied by every client."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ttsfleet_operator.api.crd import RESOURCES, Resource, definition, render
from ttsfleet_operator.api.engine import EngineOverrides, ServerOptions
from ttsfleet_operator.api.hardware import MAX_CLASS_NAME
from ttsfleet_operator.api.reference import render_reference
from ttsfleet_operator.api.service import MAX_NAME

ROOT = Path(__file__).resolve().parents[2]
CLIENT_SIDE_APPLY_LIMIT = 262_144
EVERY_KIND = pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)

# The guide's parameters and where they are given; the container's and the node's are not the engine's.
GUIDE_ENGINE = set(
    """
    encode_process_num encode_paral_num encode_max_batch_size gpt_paral_num batch_max_tokens router_max_wait_tokens
    decode_process_num decode_paral_num decode_max_batch_size graph_max_batch_size graph_max_len_in_batch
    disable_cudagraph max_total_token_num max_req_total_len cache_capacity kv_cache_mode enable_kv_cache_quant
    quant_type data_type load_trt trt_max_batch_size trt_precision trt_workspace_size use_flash_attention
    fa_kernel_type enable_gqa gqa_group_size workers""".split()  # noqa: SIM905 - a list of forty quoted names is harder to read
)
GUIDE_SERVER = set(
    """
    httpserver_workers worker_connections max_requests max_requests_jitter timeout keepalive ws_max_size
    ws_ping_interval ws_ping_timeout ws_max_queue""".split()  # noqa: SIM905 - a list of forty quoted names is harder to read
)


def schema_of(resource: Resource) -> dict[str, Any]:
    schema: dict[str, Any] = definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below `schema` with its path; metadata is the API server's."""
    yield path, schema
    for name, value in schema.get("properties", {}).items():
        if (path, name) != ("", "metadata"):
            yield from nodes(value, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from nodes(schema[key], path + mark)


@EVERY_KIND
def test_committed_file_is_current(resource: Resource) -> None:
    assert (ROOT / "crds" / resource.file_name).read_text() == render(resource), "run `make docs`"


def test_committed_reference_is_current() -> None:
    assert (ROOT / "docs" / "ttsservice.md").read_text() == render_reference(), "run `make docs`"


@EVERY_KIND
def test_definition_fits_the_annotation_of_a_client_side_apply(resource: Resource) -> None:
    assert len(json.dumps(definition(resource))) < 200_000 < CLIENT_SIDE_APPLY_LIMIT
    assert len(render(resource)) < 200_000


@EVERY_KIND
def test_every_field_is_described(resource: Resource) -> None:
    bare = [
        path for path, schema in nodes(schema_of(resource)) if path[-1:].isalpha() and not schema.get("description")
    ]
    assert bare == []


@EVERY_KIND
def test_every_optional_value_of_the_spec_says_what_its_absence_means(resource: Resource) -> None:
    spec = schema_of(resource)["properties"]["spec"]
    silent = [
        f"{path}.{name}"
        for path, schema in nodes(spec, "spec")
        for name, value in schema.get("properties", {}).items()
        if name not in schema.get("required", []) and value.get("type") != "object"
        if "bsent" not in value["description"] and "Exactly one" not in value["description"]
    ]
    assert silent == []


@EVERY_KIND
def test_everything_is_bounded_for_the_cost_of_rules(resource: Resource) -> None:
    bounds = {"string": "maxLength", "array": "maxItems", "integer": "maximum", "number": "maximum"}
    free = [
        path
        for path, schema in nodes(schema_of(resource))
        if (bound := bounds.get(schema.get("type", "")))
        and bound not in schema
        and "enum" not in schema
        and not path.endswith(("bservedGeneration", ".apiVersion", ".kind"))
    ]
    assert free == []
    maps = [schema for _, schema in nodes(schema_of(resource)) if "additionalProperties" in schema]
    assert all("maxProperties" in schema for schema in maps)


@EVERY_KIND
def test_only_replicas_have_a_default_that_is_stored(resource: Resource) -> None:
    defaults = {path: schema["default"] for path, schema in nodes(schema_of(resource)) if "default" in schema}
    assert defaults == ({".spec.replicas": 1} if resource.kind == "TTSService" else {})


@EVERY_KIND
def test_lists_of_named_things_are_merged_by_their_key(resource: Resource) -> None:
    for path, schema in nodes(schema_of(resource)):
        if schema.get("type") == "array":
            keys = schema.get("x-kubernetes-list-map-keys")
            assert schema["x-kubernetes-list-type"] == ("map" if keys else "atomic"), path
            assert set(keys or ()) <= set(schema["items"].get("required", ())), path


@EVERY_KIND
def test_every_rule_has_a_message_for_people(resource: Resource) -> None:
    for path, schema in nodes(schema_of(resource)):
        for rule in schema.get("x-kubernetes-validations", ()):
            assert ("message" in rule) != ("messageExpression" in rule), path
            assert "pattern" not in schema, path
            assert "\n" not in rule["rule"], path


def test_list_maps_are_those_of_the_api() -> None:
    keyed = {
        path: schema["x-kubernetes-list-map-keys"]
        for path, schema in nodes(schema_of(RESOURCES[0]))
        if "x-kubernetes-list-map-keys" in schema
    }
    assert keyed == {
        ".spec.styles": ["name"],
        ".spec.hardware.classes": ["name"],
        ".spec.runtime.imagePullSecrets": ["name"],
        ".status.classes": ["name"],
        ".status.conditions": ["type"],
    }


def test_every_parameter_of_the_guide_can_be_given_for_all_and_per_class() -> None:
    spec = schema_of(RESOURCES[0])["properties"]["spec"]["properties"]
    one = spec["hardware"]["properties"]["classes"]["items"]["properties"]["engine"]
    assert list(one["properties"]) == list(spec["engine"]["properties"]) == list(EngineOverrides.model_fields)
    assert set(EngineOverrides.model_fields) == GUIDE_ENGINE
    assert set(ServerOptions.model_fields) == GUIDE_SERVER
    assert "required" not in spec["engine"]


def test_names_of_children_stay_within_a_label_value() -> None:
    assert MAX_NAME + len("-") + MAX_CLASS_NAME <= 63


def test_subresources_tell_an_autoscaler_where_to_look() -> None:
    version = definition(RESOURCES[0])["spec"]["versions"][0]
    assert version["subresources"]["status"] == {}
    assert version["subresources"]["scale"] == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    columns = [column["name"] for column in version["additionalPrinterColumns"]]
    assert columns == ["Ready", "Replicas", "Desired", "GPU", "Workers", "Reason", "Age"]


def test_names_and_scope_are_those_of_the_api() -> None:
    names = {resource.kind: definition(resource)["spec"] for resource in RESOURCES}
    assert names["TTSService"]["names"]["shortNames"] == ["tts"]
    assert (names["TTSService"]["scope"], names["TTSGPUProfile"]["scope"]) == ("Namespaced", "Cluster")
    assert all(spec["conversion"] == {"strategy": "None"} for spec in names.values())
    assert all(spec["names"]["categories"] == ["ttsfleet"] for spec in names.values())


def test_rendered_file_is_what_the_definition_says() -> None:
    for resource in RESOURCES:
        assert yaml.safe_load(render(resource)) == definition(resource)


def test_patterns_mean_the_same_to_the_api_server_and_to_the_structs() -> None:
    """RE2 in Go and Rust part on \\d, \\w and \\s (Unicode), and on anchors within lines."""
    source = (ROOT / "operator" / "ttsfleet_operator" / "api" / "base.py").read_text()
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    patterns = [text for text in texts if isinstance(text, str) and text.startswith("^")]
    assert len(patterns) > 15
    assert [text for text in patterns if re.search(r"\\[dwsbDWSB]|\(\?", text)] == []
