"""What is kept of events, lists and our own answers, whatever their order."""

from __future__ import annotations

from typing import Any

from ttsfleet_operator.cluster.kinds import DEPLOYMENTS, NODES, SERVICES
from ttsfleet_operator.cluster.stores import ObjectKey, ObjectStore, ReducedStore

SERVICE = ObjectKey("n", "narrator")


def manifest(version: int, name: str = "a", service: str | None = "narrator", **fields: Any) -> dict[str, Any]:
    labels = {"ttsfleet.dev/service": service} if service else {}
    metadata = {
        "name": name,
        "namespace": "n",
        "resourceVersion": str(version),
        "labels": labels,
        "managedFields": [1],
    }
    return {"kind": "Deployment", "metadata": metadata, **fields}


def store(*, status_matters: bool = True) -> ObjectStore:
    kind = DEPLOYMENTS if status_matters else SERVICES
    return ObjectStore(kind, with_status=status_matters, status_matters=status_matters)


def test_a_change_concerns_the_service_of_the_object() -> None:
    assert store().deliver("ADDED", manifest(1)) == {SERVICE}


def test_the_echo_of_our_own_write_is_no_change() -> None:
    kept = store()
    kept.put(manifest(5, spec={"a": 1}))
    assert kept.deliver("MODIFIED", manifest(5, spec={"a": 1})) == set()


def test_an_older_event_does_not_overwrite_a_newer_answer() -> None:
    kept = store()
    kept.put(manifest(5, spec={"a": 2}))
    assert kept.deliver("MODIFIED", manifest(4, spec={"a": 1})) == set()
    found = kept.get(ObjectKey("n", "a"))
    assert found is not None
    assert found["spec"] == {"a": 2}


def test_an_older_answer_does_not_bring_back_what_was_deleted() -> None:
    kept = store()
    kept.put(manifest(5))
    assert kept.deliver("DELETED", manifest(7)) == {SERVICE}
    assert kept.put(manifest(6)) == set()
    assert kept.get(ObjectKey("n", "a")) is None
    assert kept.put(manifest(8)) == {SERVICE}, "created anew"


def test_a_new_version_without_meaning_is_kept_and_concerns_nobody() -> None:
    kept = store(status_matters=False)
    kept.put(manifest(1, status={"x": 1}))
    assert kept.deliver("MODIFIED", manifest(2, status={"x": 2})) == set()
    assert kept.versions() == {ObjectKey("n", "a"): 2}


def test_a_status_that_matters_is_a_change() -> None:
    kept = store()
    kept.put(manifest(1, status={"x": 1}))
    assert kept.deliver("MODIFIED", manifest(2, status={"x": 2})) == {SERVICE}


def test_a_relabelled_object_concerns_both_services() -> None:
    kept = store()
    kept.put(manifest(1))
    assert kept.put(manifest(2, service="other")) == {SERVICE, ObjectKey("n", "other")}
    assert kept.of_service(SERVICE) == []


def test_a_list_removes_what_it_lacks_unless_it_is_newer() -> None:
    kept = store()
    for name, version in (("a", 1), ("b", 2), ("c", 9)):
        kept.put(manifest(version, name))
    assert kept.replace([manifest(1, "a")], version=5) == {SERVICE}
    assert [key.name for key in kept] == ["a", "c"]


def test_managed_fields_are_not_kept() -> None:
    kept = store()
    kept.put(manifest(1))
    assert "managedFields" not in kept.of_service(SERVICE)[0]["metadata"]


def node(version: int, name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, **fields}


def test_only_changed_facts_of_a_reduced_kind_are_changes() -> None:
    kept = ReducedStore(NODES, lambda raw: raw.get("gpu"))
    assert kept.put(node(1, gpu="4090"))
    assert not kept.deliver("MODIFIED", node(2, gpu="4090", heartbeat=1))
    assert kept.deliver("MODIFIED", node(3, gpu="3080"))
    assert not kept.deliver("DELETED", node(2))
    assert kept.deliver("DELETED", node(4))
    assert list(kept) == []


def test_the_revision_of_a_reduced_kind_changes_with_its_facts() -> None:
    kept = ReducedStore(NODES, lambda raw: raw.get("gpu"))
    kept.replace([node(1, "a", gpu="x"), node(1, "b", gpu="y")], version=3)
    before = kept.revision
    assert not kept.replace([node(2, "a", gpu="x"), node(1, "b", gpu="y")], version=4)
    assert kept.revision == before
    assert kept.replace([node(2, "a", gpu="x")], version=5)
    assert (list(kept), kept.revision > before) == (["x"], True)
