"""A status of many classes keeps to its 8 KiB."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ttsfleet_operator.plan import Problem
from ttsfleet_operator.status.size import MAX_BYTES, size_of


def sixteen(fleet: Any, problem: str = "", warnings: tuple[str, ...] = ()) -> dict[str, Any]:
    """A status of 16 classes, more than the schema admits, with the longest names and a problem in each."""
    service = fleet.service(replicas=160)
    one = service.spec.hardware.classes[0]
    classes = tuple(one.model_copy(update={"name": f"class-number-{index:07d}"}) for index in range(16))
    hardware = service.spec.hardware.model_copy(update={"classes": classes})
    named = {"name": f"n{'x' * 39}", "namespace": "s" * 63}
    service = service.model_copy(
        update={
            "metadata": service.metadata.model_copy(update=named),
            "spec": service.spec.model_copy(update={"hardware": hardware}),
        }
    )
    names = [one.name for one in classes]
    problems = {name: Problem("UnsupportedQuantization", problem) for name in names} if problem else {}
    plan = fleet.plan(service, dict.fromkeys(names, 10), problems, pending=True)
    plan = replace(plan, classes=tuple(replace(one, warnings=warnings) for one in plan.classes))
    return fleet.status(service, plan, fleet.observed(None))  # type: ignore[no-any-return]


@pytest.mark.parametrize("problem", ["", "short", "p" * 512, "ü" * 512, "\N{SPEAKING HEAD IN SILHOUETTE}" * 512])
def test_sixteen_classes_stay_within_8_kib(fleet: Any, problem: str) -> None:
    status = sixteen(fleet, problem)
    assert size_of(status) <= MAX_BYTES
    assert len(status["classes"]) == 16
    for one in status["classes"]:
        assert one["planHash"]
        assert one["desired"] == 10
        assert not problem or one["problem"]["reason"] == "UnsupportedQuantization"
    assert sixteen(fleet, problem) == status


def test_warnings_go_before_anything_else_from_the_last_class_on(fleet: Any) -> None:
    long = tuple(f"{number}{'w' * 199}" for number in range(4))
    status = sixteen(fleet, "short", long)
    assert size_of(status) <= MAX_BYTES
    assert ["warnings" in one for one in status["classes"]] == sorted(
        ("warnings" in one for one in status["classes"]), reverse=True
    )
    without = sixteen(fleet, "short")
    rest = [{key: value for key, value in one.items() if key != "warnings"} for one in status["classes"]]
    assert {**status, "classes": rest} == without
