"""A busy API server says 429 by its own API Priority and Fairness: the operator waits as told and loses nothing."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from control_plane.api_request import ApiRequest
from control_plane.operator_process import OperatorProcess
from control_plane.plane import ControlPlane
from control_plane.proxy_orders import Answered
from control_plane.speech import children_by_service, install_definitions, service, wait_all_serving
from control_plane.waiting import eventually

USER = "limited-operator"
LEVEL = "limited-operator"
SERVICES = 20
WORKERS = 16
GROUPS = {
    "": ["configmaps", "services"],
    "apps": ["deployments"],
    "networking.k8s.io": ["networkpolicies"],
    "policy": ["poddisruptionbudgets"],
    "ttsfleet.dev": ["ttsservices", "ttsservices/status"],
}
WRITTEN = {kind.split("/")[0] for kinds in GROUPS.values() for kind in kinds}


@pytest.fixture(scope="module")
def plane(own_control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """With our definitions, CPU nodes, and a user who may do everything and is exempt from nothing."""
    install_definitions(own_control_plane)
    nodes = own_control_plane.nodes(count=2, prefix="limited")
    own_control_plane.kubectl("create", "clusterrolebinding", USER, "--clusterrole=cluster-admin", f"--user={USER}")
    yield own_control_plane
    own_control_plane.kubectl("delete", "clusterrolebinding", USER)
    own_control_plane.kubectl("delete", "ttsservices", "-A", "--all", "--wait=false")
    own_control_plane.delete_nodes(nodes)


def flow_control(shares: int) -> list[dict[str, Any]]:
    """A level that borrows no seat and queues nothing, and the operator's writes of its kinds in it."""
    api = "flowcontrol.apiserver.k8s.io/v1"
    limited = {
        "nominalConcurrencyShares": shares,
        "lendablePercent": 0,
        "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Reject"},
    }
    rules = [
        {"apiGroups": [group], "resources": kinds, "verbs": ["create", "patch"], "namespaces": ["*"]}
        for group, kinds in GROUPS.items()
    ]
    schema = {
        "matchingPrecedence": 100,
        "priorityLevelConfiguration": {"name": LEVEL},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": USER}}], "resourceRules": rules}],
    }
    level = {"type": "Limited", "limited": limited}
    return [
        {"apiVersion": api, "kind": "PriorityLevelConfiguration", "metadata": {"name": LEVEL}, "spec": level},
        {"apiVersion": api, "kind": "FlowSchema", "metadata": {"name": LEVEL}, "spec": schema},
    ]


def level_metric(plane: ControlPlane, name: str) -> float | None:
    """The sum of one of the API server's metrics over the lines of our level; None when it has none."""
    lines = plane.kubectl("get", "--raw", "/metrics").splitlines()
    ours = [line for line in lines if line.startswith(f"{name}{{") and f'priority_level="{LEVEL}"' in line]
    return sum(float(line.split()[-1]) for line in ours) if ours else None


@contextmanager
def few_seats(plane: ControlPlane) -> Iterator[None]:
    """The operator's writes have fewer seats than it has workers."""
    plane.apply(*flow_control(shares=1))
    try:
        seats = eventually(
            lambda: level_metric(plane, "apiserver_flowcontrol_nominal_limit_seats"), "the level acts", every=0.2
        )
        assert seats is not None
        assert seats < WORKERS
        yield
    finally:
        plane.kubectl("delete", "flowschema", LEVEL)
        plane.kubectl("delete", "prioritylevelconfiguration", LEVEL)


def limited(request: ApiRequest) -> bool:
    return request.is_write and request.resource in WRITTEN


def owner(request: ApiRequest) -> str:
    """The service that a write is about: the names of its children begin with its own, `crowd-07`."""
    match = re.match(r"calm|crowd-\d\d", request.name)
    assert match, str(request)
    return match[0]


def too_early(answered: Sequence[Answered]) -> list[str]:
    """Writes about a service that were sent before the time that a 429 had named for it was over."""
    found = []
    closed: dict[str, float] = {}
    for one in sorted(answered, key=lambda one: one.begun):
        if one.begun < closed.get(owner(one.request), 0.0):
            found.append(f"{one.request} {closed[owner(one.request)] - one.begun:.2f} s too early")
        if one.status == 429:
            closed[owner(one.request)] = one.ended + one.retry_after_seconds
    return found


def without_names(found: dict[str, Any], name: str) -> str:
    """Children as text, without what is each service's own: its name and the hashes that it goes into."""
    return re.sub(r"\b[0-9a-f]{8,64}\b", "HASH", json.dumps(found).replace(name, "NAME"))


def test_real_429s_are_waited_for_and_nothing_is_lost_or_made_twice(plane: ControlPlane, namespace: str) -> None:
    names = [f"crowd-{number:02d}" for number in range(SERVICES)]
    proxy = plane.proxy(USER)
    operator = OperatorProcess(
        proxy.kubeconfig, WATCH_NAMESPACES=namespace, NAMESPACE=namespace, WORKERS=str(WORKERS)
    )
    try:
        operator.wait_leader()
        plane.apply(service("calm", namespace))
        wait_all_serving(plane, ["calm"], namespace)
        with few_seats(plane):
            mark = plane.audit_mark()
            plane.apply(*(service(name, namespace) for name in names))
            wait_all_serving(plane, names, namespace)
            operator.stop()
            rejected = level_metric(plane, "apiserver_flowcontrol_rejected_requests_total")
    finally:
        operator.stop()
    assert "Traceback" not in operator.log(), operator.log()
    writes = proxy.answered(limited)
    refused = [one for one in writes if one.status == 429]
    audited = list(plane.audit(since=mark, user=USER, writes=True, namespace=namespace))
    assert len(refused) >= SERVICES / 2, "the level is too wide: the operator met hardly any refusal"
    assert len(refused) == rejected == len([one for one in audited if one.code == 429]), (
        "by the API server's own count"
    )
    assert all(one.retry_after_seconds >= 1 for one in refused)
    assert too_early(writes) == []

    made = Counter(f"{one.resource}/{one.name}" for one in audited if one.code == 201 and one.resource != "events")
    assert set(made.values()) == {1}
    found = children_by_service(plane, namespace)
    pattern = without_names(found.pop("calm"), "calm")
    assert sorted(found) == names
    assert [name for name in names if without_names(found[name], name) != pattern] == []
