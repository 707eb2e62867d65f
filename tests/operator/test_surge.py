"""When an old pod goes before its successor comes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ttsfleet_operator.api.workload import RolloutSpec
from ttsfleet_operator.surge import SurgeDecision, decide_surge

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
ROLLING = {"replicas": 2, "updatedReplicas": 1, "availableReplicas": 1, "readyReplicas": 1}
DONE = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "readyReplicas": 1}


def deployment(status: dict[str, int], surge: int = 1) -> dict[str, Any]:
    strategy = {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1 - surge}}
    spec = {"replicas": 1, "strategy": strategy}
    return {"metadata": {"generation": 1}, "spec": spec, "status": {"observedGeneration": 1, **status}}


def pod(scheduled: str, since: str, **metadata: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": scheduled, "lastTransitionTime": since}
    return {"metadata": metadata, "status": {"conditions": [condition]}}


WAITS_10 = pod("False", "2026-01-01T11:59:50Z")
WAITS_90 = pod("False", "2026-01-01T11:58:30Z")
RUNS = pod("True", "2026-01-01T11:58:30Z")
ENDS = pod("False", "2026-01-01T11:58:30Z", deletionTimestamp="2026-01-01T11:59:00Z")

WITH = SurgeDecision(without_surge=False)
WITHOUT = SurgeDecision(without_surge=True)
CASES = [
    pytest.param("Auto", None, [], WITH, id="no Deployment yet"),
    pytest.param("Auto", deployment(ROLLING), [RUNS], WITH, id="the surge pod has room"),
    pytest.param("Auto", deployment(ROLLING), [RUNS, WAITS_10], SurgeDecision(False, 50.0), id="it waits a little"),
    pytest.param("Auto", deployment(ROLLING), [RUNS, WAITS_90], WITHOUT, id="it has waited long enough"),
    pytest.param("Auto", deployment(ROLLING), [ENDS], WITH, id="a pod that ends waits for nothing"),
    pytest.param("Auto", deployment(DONE), [WAITS_90], WITH, id="no rollout: a class that lacks devices"),
    pytest.param("Auto", deployment(ROLLING, surge=0), [RUNS], WITHOUT, id="it stays so until the rollout is over"),
    pytest.param("Auto", deployment(DONE, surge=0), [RUNS], WITH, id="the next rollout begins with one again"),
    pytest.param("Always", deployment(ROLLING), [WAITS_90], WITH, id="Always waits"),
    pytest.param("Never", deployment(ROLLING), [WAITS_90], WITH, id="Never is the manifest's matter"),
]


@pytest.mark.parametrize(("surge", "live", "pods", "expected"), CASES)
def test_a_class_rolls(
    surge: str, live: dict[str, Any] | None, pods: list[dict[str, Any]], expected: SurgeDecision
) -> None:
    assert decide_surge(RolloutSpec.model_validate({"surge": surge}), live, pods, NOW) == expected
