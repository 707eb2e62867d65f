"""What to do about a child: whose it is, what differs, and whose replicas count."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ttsfleet_operator.cluster.children import (
    SPLIT,
    Standing,
    compare,
    config_map_names,
    standing,
    to_create,
)
from ttsfleet_operator.cluster.diff import shown
from ttsfleet_operator.labels import RETAIN_ANNOTATION

OWNER = {
    "apiVersion": "ttsfleet.dev/v1alpha1",
    "kind": "TTSService",
    "name": "narrator",
    "uid": "u1",
    "controller": True,
}


def child(owners: list[dict[str, Any]] | None = None, kind: str = "Service", **spec: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "narrator", "namespace": "n", "labels": {"ttsfleet.dev/service": "narrator"}}
    if owners != []:
        metadata["ownerReferences"] = owners or [OWNER]
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}


def live_of(desired: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """The object as the API server has it after `desired` was applied."""
    live = copy.deepcopy(to_create(desired))
    live["metadata"] |= {"resourceVersion": "7", "uid": "live", **metadata}
    return live


def claim(owners: list[dict[str, Any]], retained: bool = False, **labels: str) -> dict[str, Any]:
    made = child(owners, kind="PersistentVolumeClaim")
    made["metadata"]["labels"] |= {"app.kubernetes.io/managed-by": "ttsfleet", **labels}
    made["metadata"]["annotations"] = {RETAIN_ANNOTATION: "true"} if retained else {}
    return made


OLD = {**OWNER, "uid": "u0"}
OTHER = {**OWNER, "kind": "Other", "name": "x", "uid": "x"}
OWNED, KEPT = claim([OWNER]), claim([], retained=True)
STANDINGS = [
    pytest.param(child(), None, Standing.ABSENT, id="nothing is there"),
    pytest.param(child(), child(), Standing.OURS, id="our uid"),
    pytest.param(child(), child([OTHER, OWNER]), Standing.OURS, id="our uid beside another"),
    pytest.param(child(), child([]), Standing.FOREIGN, id="no owner"),
    pytest.param(child(), child([OLD]), Standing.LEFTOVER, id="of a deleted service of this name"),
    pytest.param(child(), child([OTHER]), Standing.FOREIGN, id="somebody else's"),
    pytest.param(
        child(), {**claim([], retained=True), "kind": "Service"}, Standing.FOREIGN, id="marked, and not a claim"
    ),
    pytest.param(KEPT, KEPT, Standing.OURS, id="a kept claim"),
    pytest.param(OWNED, KEPT, Standing.OURS, id="a kept claim that shall be kept no more"),
    pytest.param(KEPT, OWNED, Standing.OURS, id="our claim that shall be kept"),
    pytest.param(KEPT, claim([OLD]), Standing.LEFTOVER, id="a claim that goes with a deleted service"),
    pytest.param(KEPT, claim([]), Standing.FOREIGN, id="a claim without the mark"),
    pytest.param(OWNED, claim([]), Standing.FOREIGN, id="a claim without mark and owner"),
    pytest.param(KEPT, claim([OTHER], retained=True), Standing.FOREIGN, id="a marked claim of somebody else"),
    pytest.param(
        KEPT,
        claim([], retained=True, **{"ttsfleet.dev/service": "other"}),
        Standing.FOREIGN,
        id="a kept claim of another service",
    ),
    pytest.param(
        OWNED,
        claim([], retained=True, **{"app.kubernetes.io/managed-by": "Helm"}),
        Standing.FOREIGN,
        id="a marked claim that another tool manages",
    ),
    pytest.param(
        KEPT,
        {**KEPT, "metadata": {"name": "narrator", "annotations": {RETAIN_ANNOTATION: "true"}}},
        Standing.FOREIGN,
        id="a marked claim without labels",
    ),
]


@pytest.mark.parametrize(("desired", "live", "expected"), STANDINGS)
def test_whose_an_object_is(desired: dict[str, Any], live: dict[str, Any] | None, expected: Standing) -> None:
    assert standing(desired, live, "u1") is expected


def test_what_was_applied_is_not_written_again() -> None:
    desired = child(ports=[{"port": 80}])
    assert compare(desired, live_of(desired)).paths == ()


def test_a_change_by_somebody_else_is_drift_and_our_own_change_is_not() -> None:
    desired = child(type="ClusterIP")
    edited = live_of(desired)
    edited["spec"]["type"] = "NodePort"
    result = compare(desired, edited)
    assert ([shown(path) for path in result.paths], result.drift) == (["spec.type"], True)
    assert not compare(child(type="LoadBalancer"), live_of(desired)).drift


def deployment(replicas: int, image: str = "a") -> dict[str, Any]:
    return child(kind="Deployment", replicas=replicas, template={"image": image})


def test_a_new_split_writes_the_replicas() -> None:
    result = compare(deployment(3), live_of(deployment(2)))
    assert ("spec", "replicas") in result.paths
    assert result.body["spec"]["replicas"] == 3
    assert result.body["metadata"]["annotations"][SPLIT] == "3"


def test_replicas_of_others_are_reported_and_repeated_in_the_next_write() -> None:
    live = live_of(deployment(2))
    live["spec"]["replicas"] = 5
    unchanged = compare(deployment(2), live)
    assert (unchanged.paths, unchanged.scaled) == ((), 5)
    changed = compare(deployment(2, image="b"), live)
    assert changed.body["spec"]["replicas"] == 5
    assert changed.body["metadata"]["resourceVersion"] == "7", "a later value of the other writer is a conflict"


def test_a_new_split_overrules_replicas_of_others_once() -> None:
    live = live_of(deployment(2))
    live["spec"]["replicas"] = 5
    result = compare(deployment(3), live)
    assert (result.body["spec"]["replicas"], result.scaled) == (3, None)


def test_comparing_changes_neither_side() -> None:
    desired, live = deployment(2), live_of(deployment(1))
    before = copy.deepcopy((desired, live))
    compare(desired, live)
    assert (desired, live) == before


def test_config_maps_of_a_pod_are_found_in_volumes_and_projections() -> None:
    volumes = [
        {"name": "a", "configMap": {"name": "one"}},
        {"name": "b", "projected": {"sources": [{"configMap": {"name": "two"}}, {"secret": {"name": "no"}}]}},
        {"name": "c", "emptyDir": {}},
    ]
    assert config_map_names({"spec": {"template": {"spec": {"volumes": volumes}}}}) == {"one", "two"}
