"""`Observer`: how long a class has been in trouble, and what is asked of the API server because of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from ttsfleet_operator.api.manifest import parse_service
from ttsfleet_operator.cluster.api_errors import ForbiddenError
from ttsfleet_operator.cluster.client import KubernetesClient
from ttsfleet_operator.cluster.kinds import DEPLOYMENTS, Kind
from ttsfleet_operator.cluster.stores import ObjectKey
from ttsfleet_operator.cluster.view import ClusterView
from ttsfleet_operator.fleet.settings import FleetSettings
from ttsfleet_operator.observe import Observation, Observer
from ttsfleet_operator.profiles import read_profile_object

START = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
KEY = ObjectKey("speech", "narrator")
MOUNT_EVENTS = "/api/v1/namespaces/speech/events"


class APIServer:
    """Answers with its pods and Events, and notes what was listed."""

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.forbidden = False
        self.listed: list[str] = []

    async def list_all(self, kind: Kind, namespace: str, selector: str) -> list[dict[str, Any]]:
        self.listed.append(f"{kind.plural} {selector}")
        return self.pods

    async def request(self, method: str, path: str, *, query: Mapping[str, str]) -> dict[str, Any]:
        self.listed.append(f"{method} {path} {query['limit']}")
        if self.forbidden:
            raise ForbiddenError(403, "Forbidden", "no")
        return {"items": self.events}


class Scene:
    """An observer of service `narrator`, its clock and its API server."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.api = APIServer()
        self._version = 0
        self._view = ClusterView(("",), None, read_profile_object, lambda _key: None, lambda: None)
        self.observer = Observer(
            cast(KubernetesClient, self.api),
            cast(Any, self._view),
            wall=lambda: START + timedelta(seconds=self.seconds),
            clock=lambda: self.seconds,
            settings=FleetSettings(release="1.0.0", runtime_image="ttsfleet/runtime:1.0.0"),
        )

    def deployment(self, name: str, available: int) -> None:
        """The Deployment of a class, of whose one replica so many are available."""
        self._version += 1
        metadata = {
            "name": f"narrator-{name}",
            "namespace": "speech",
            "resourceVersion": str(self._version),
            "labels": {"ttsfleet.dev/service": "narrator", "ttsfleet.dev/class": name},
            "ownerReferences": [{"uid": "u"}],
        }
        status = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": available}
        spec = {"replicas": 1, "template": {"spec": {}}}
        self._view.children[DEPLOYMENTS].put({"metadata": metadata, "spec": spec, "status": status})

    def look(self, *classes: str, at: float) -> Observation:
        self.seconds = at
        raw = {
            "apiVersion": "ttsfleet.dev/v1alpha1",
            "kind": "TTSService",
            "metadata": {"name": "narrator", "namespace": "speech", "uid": "u", "generation": 1},
            "spec": {
                "model": {"source": {"builtin": {"name": "tiny-en"}}},
                "hardware": {"classes": [{"name": name, "cpu": {}} for name in classes]},
            },
        }
        return asyncio.run(self.observer.observe(parse_service(raw), raw))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_trouble_lasts_as_long_as_the_longest_of_the_classes(scene: Scene) -> None:
    scene.deployment("a", 0)
    assert scene.look("a", "b", at=0).unsettled_seconds == 0
    scene.deployment("b", 0)
    assert scene.look("a", "b", at=2).unsettled_seconds == 2
    scene.deployment("a", 1)
    assert scene.look("a", "b", at=7).unsettled_seconds == 5
    scene.deployment("b", 1)
    assert scene.look("a", "b", at=8).unsettled_seconds is None


@pytest.mark.parametrize("how", ["it settles", "it leaves the spec", "the service is forgotten"])
def test_trouble_begins_anew_after(scene: Scene, how: str) -> None:
    scene.deployment("a", 0)
    scene.look("a", "b", at=0)
    if how == "it settles":
        scene.deployment("a", 1)
        scene.look("a", "b", at=5)
        scene.deployment("a", 0)
    elif how == "it leaves the spec":
        assert scene.look("b", at=5).unsettled_seconds is None
    else:
        scene.observer.forget(KEY)
    assert scene.look("a", "b", at=9).unsettled_seconds == 0


def pod(scheduled_at: float) -> dict[str, Any]:
    when = (START + timedelta(seconds=scheduled_at)).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": when}
    return {"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Pending", "conditions": [condition]}}


PODS = "pods ttsfleet.dev/service=narrator,ttsfleet.dev/class=a"
EVENTS = f"GET {MOUNT_EVENTS} 500"


@pytest.mark.parametrize(
    ("available", "scheduled", "listed"),
    [
        pytest.param(1, 0, [], id="nothing of a class that is well"),
        pytest.param(0, 0, [PODS, EVENTS], id="pods, and Events when one waits for its volumes"),
        pytest.param(0, 25, [PODS], id="pods only, when each has just got its node"),
    ],
)
def test_what_is_listed(scene: Scene, available: int, scheduled: float, listed: Sequence[str]) -> None:
    scene.deployment("a", available)
    scene.api.pods = [pod(scheduled)]
    scene.api.events = [{"reason": "FailedMount"}]
    scene.look("a", at=0)
    scene.look("a", at=2)
    assert scene.api.listed == []
    seen = scene.look("a", at=30).classes["a"]
    assert scene.api.listed == listed
    assert (seen.pods_listed, bool(seen.events)) == (PODS in listed, EVENTS in listed)


def test_events_that_may_not_be_listed_are_done_without(scene: Scene) -> None:
    scene.deployment("a", 0)
    scene.api.pods, scene.api.forbidden = [pod(0)], True
    scene.look("a", at=0)
    assert scene.look("a", at=30).classes["a"].events == ()
