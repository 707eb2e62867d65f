"""A HorizontalPodAutoscaler scales a service of two classes: the operator follows and never answers back."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from control_plane.operator_process import OperatorProcess
from control_plane.plane import ControlPlane
from control_plane.speech import ADA, install_definitions, service, wait_serving
from control_plane.waiting import eventually

# Two hundred in `make e2e-soak`.
SCALINGS = int(os.environ.get("E2E_SCALINGS", "20"))
OPERATOR = "scaling-operator"
HOPPER = {"name": "hopper", "gpu": {"products": ["NVIDIA-H100-80GB-HBM3"]}, "maxReplicas": 3}
SIZES = (4, 1, 6, 2, 5, 3)

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 12 * SCALINGS)]


@pytest.fixture(scope="module")
def plane(own_control_plane: ControlPlane) -> Iterator[ControlPlane]:
    install_definitions(own_control_plane)
    nodes = own_control_plane.nodes("4090", prefix="scaling-ada", gpus=8)
    nodes += own_control_plane.nodes("h100", prefix="scaling-hopper", gpus=8)
    operator = OperatorProcess(own_control_plane.kubeconfig_for(OPERATOR, ["system:masters"]))
    operator.wait_leader()
    yield own_control_plane
    own_control_plane.kubectl("delete", "ttsservices", "-A", "--all", "--wait=false")
    operator.stop()
    own_control_plane.delete_nodes(nodes)


def test_an_autoscaler_is_followed_and_never_reverted(
    plane: ControlPlane, namespace: str, record_property: Callable[[str, object], None]
) -> None:
    plane.apply(service("scaled", namespace, classes=[HOPPER, ADA]))
    wait_serving(plane, "scaled", namespace)
    target = {"apiVersion": "ttsfleet.dev/v1alpha1", "kind": "TTSService", "name": "scaled"}
    bounds = {"minReplicas": 1, "maxReplicas": 1}
    plane.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "users", "namespace": namespace},
            "spec": {"scaleTargetRef": target, **bounds},
        }
    )
    mark = plane.audit_mark()

    def replicas() -> list[int]:
        found = plane.get("deployments", namespace=namespace)
        return [one["spec"]["replicas"] for one in found]

    for done, size in enumerate(itertools.islice(itertools.cycle(SIZES), SCALINGS), 1):
        patch = json.dumps({"spec": {"minReplicas": size, "maxReplicas": size}})
        plane.kubectl("patch", "hpa", "users", "-n", namespace, "-p", patch)

        def follows(size: int = size) -> bool:
            return (
                sum(replicas()) == size and plane.get("ttsservice", "scaled", namespace)["spec"]["replicas"] == size
            )

        eventually(follows, f"{size} replicas are asked for", 30, every=0.2)
        if done % 10 == 0:
            logger.info("%d of %d scalings", done, SCALINGS)

    scaled = list(plane.audit(since=mark, writes=True, namespace=namespace, resource="ttsservices"))
    ours = [one for one in scaled if one.user == OPERATOR]
    theirs = [one for one in scaled if one.user != OPERATOR]
    assert {one.subresource for one in ours} == {"status"}, "the spec is the user's"
    assert [one.subresource for one in theirs if one.code < 300] == ["scale"] * SCALINGS, (
        "nothing had to be said twice"
    )
    writes = Counter(
        one.name
        for one in plane.audit(since=mark, user=OPERATOR, writes=True, namespace=namespace, resource="deployments")
    )
    record_property("scalings", SCALINGS)
    record_property("writes", dict(writes))
    assert set(writes) == {"scaled-ada", "scaled-hopper"}
    assert max(writes.values()) <= SCALINGS, writes
