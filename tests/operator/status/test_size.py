"""A status of many classes keeps to its 8 KiB."""

from __future__ import annotations

from typing import Any

import pytest

from ttsfleet_operator.plan import Problem
from ttsfleet_operator.status.size import MAX_BYTES, size_of


def sixteen(fleet: Any, problem: str = "") -> dict[str, Any]:
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
