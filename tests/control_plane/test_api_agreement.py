"""The API server and our structs agree on thousands of small mistakes: each place of a manifest, each odd value.

A manifest that only one of the two accepts is either refused by `ttsfleet plan` and taken by the cluster, or stored
and then unreadable for the operator.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import config

from control_plane.cluster import Cluster
from ttsfleet_operator.api.manifest import parse_service
from ttsfleet_operator.errors import ManifestError

ROOT = Path(__file__).resolve().parents[2]
GOOD = sorted((ROOT / "tests" / "operator" / "data" / "good_manifests").glob("*.yaml"))
URL = "/apis/ttsfleet.dev/v1alpha1/namespaces/default/ttsservices?dryRun=All&fieldValidation=Strict"
JSON = {"Content-Type": "application/json"}
ABSENT = object()
ODD_VALUES: tuple[Any, ...] = (
    ABSENT, None, "", 0, -1, 10**12, 2.5, True, "x", "A-b", "-a", "é", "x y", "x" * 300, [], ["a"], [None], {},
    {"a": "b"}, {"a": None}, {"ttsfleet.dev/x": "y"}, {"a b": "c"}, "1Gi", "0.0", "1e3", "Exists", "In",
    "10.0.0.0/08", "a/../b", "https://u@h", "https://h:1/p?q",
)  # fmt: skip


def places(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in members:
        yield from places(value, (*path, key))


def changed(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    document = copy.deepcopy(document)
    node = document
    for part in path[:-1]:
        node = node[part]
    if value is ABSENT:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return document


def variants() -> Iterator[tuple[str, Any]]:
    """Every place of every good manifest once, with every odd value in it."""
    seen: set[tuple[str, ...]] = set()
    for file in GOOD:
        document = json.loads(json.dumps(yaml.safe_load(file.read_text())).replace("2.0", "2"))
        for path in places(document["spec"]):
            kind = tuple("[]" if isinstance(part, int) else part for part in path)
            if path and kind not in seen:
                seen.add(kind)
                for value in ODD_VALUES:
                    yield f"{file.stem}: {path} = {value!r}", changed(document, ("spec", *path), value)


def refusal(document: Any) -> str:
    try:
        parse_service(document)
    except ManifestError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_api_server_and_structs_agree_on_every_small_mistake(control_plane: Cluster) -> None:
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "crds"))
    control_plane.wait_for_definitions()
    disagreements: list[str] = []
    judged = 0
    with closing(config.new_client_from_config(config_file=str(control_plane.kubeconfig))) as api:
        for name, document in variants():
            answer = api.call_api("POST", api.configuration.host + URL, JSON, document)
            body = answer.read()
            theirs = "" if answer.status == 201 else body.decode()
            ours = refusal(document)
            judged += 1
            if bool(theirs) != bool(ours):
                disagreements.append(f"{name}\n  API server: {theirs or 'accepted'}\n  structs: {ours or 'accepted'}")
    assert judged > 4000
    assert not disagreements, "\n".join(disagreements)
