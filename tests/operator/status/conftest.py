"""Builders for the status tests: a service, its real plan, Deployments and pods as the API gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ttsfleet_operator.api.manifest import parse_service
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.engine_config import Placement, render_engine_yaml
from ttsfleet_operator.fleet.bundle import make_bundle
from ttsfleet_operator.fleet.plan import ClassDecision, FleetPlan
from ttsfleet_operator.plan import Problem, plan_class
from ttsfleet_operator.profiles import builtin_profiles
from ttsfleet_operator.sites import site_of_profile
from ttsfleet_operator.status.build import build_status
from ttsfleet_operator.status.observed import ObservedClass, ObservedFleet

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
ADA: dict[str, Any] = {"name": "ada", "gpu": {"products": ["NVIDIA-GeForce-RTX-4090"]}}
CPU: dict[str, Any] = {"name": "cpu", "cpu": {}}


class Builder:
    """One service `narrator` in namespace `speech`, generation 4; what a test leaves out is healthy."""

    now = NOW
    judged = ("Ready", "Scheduled", "WorkloadAvailable", "Reconciling", "Stalled", "Degraded")

    def service(self, classes: Sequence[Mapping[str, Any]] = (ADA,), **spec: Any) -> TTSService:
        source = {"huggingFace": {"repo": "FunAudioLLM/CosyVoice2-0.5B"}}
        document = {
            "apiVersion": "ttsfleet.dev/v1alpha1",
            "kind": "TTSService",
            "metadata": {"name": "narrator", "namespace": "speech", "uid": "u-1", "generation": 4},
            "spec": {"replicas": 3, "model": {"source": source}, "hardware": {"classes": list(classes)}} | spec,
        }
        return parse_service(document)

    def plan(
        self,
        service: TTSService,
        desired: Mapping[str, int] | None = None,
        problems: Mapping[str, Problem] | None = None,
        problem: Problem | None = None,
        pending: bool = False,
    ) -> FleetPlan:
        """The plan with `desired` replicas by class; without it the first class gets all."""
        wanted = 0 if service.spec.suspend else service.spec.replicas
        first = service.spec.hardware.classes[0].name
        split = {first: wanted} if desired is None else desired
        classes = []
        for one in service.spec.hardware.classes:
            site = replace(site_of_profile(service, one, builtin_profiles()), assumed=False)
            plan = plan_class(service, one, builtin_profiles(), site)
            engine = render_engine_yaml(service, plan, Placement("/model"))
            trouble = (problems or {}).get(one.name)
            bundle = make_bundle(engine, {})
            classes.append(
                ClassDecision(
                    hardware_class=one,
                    plan=plan,
                    bundle=None if trouble is not None and not split.get(one.name) else bundle,
                    inputs_hash="i",
                    pending=replace(bundle, hash="feedbeef") if pending else None,
                    memory=plan.memory,
                    desired=split.get(one.name, 0),
                    matching_nodes=1,
                    problem=trouble,
                )
            )
        return FleetPlan(service, tuple(classes), "d", problem)

    def deployment(
        self,
        replicas: int = 3,
        ready: int | None = None,
        *,
        updated: int | None = None,
        total: int | None = None,
        engine_map: str = "",
        surge: int = 1,
        generation: int = 1,
        conditions: Sequence[Mapping[str, str]] = (),
    ) -> dict[str, Any]:
        """`replicas` wanted of which `ready` are up (all); `total` pods exist, `updated` of the newest template."""
        ready = replicas if ready is None else ready
        total = replicas if total is None else total
        volumes = [{"name": "engine", "configMap": {"name": engine_map}}] if engine_map else []
        return {
            "metadata": {"name": "narrator-ada", "generation": generation},
            "spec": {
                "replicas": replicas,
                "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1 - surge}},
                "template": {"spec": {"volumes": volumes}},
            },
            "status": {
                "observedGeneration": 1,
                "replicas": total,
                "updatedReplicas": total if updated is None else updated,
                "readyReplicas": ready,
                "availableReplicas": ready,
                "conditions": list(conditions),
            },
        }

    def refused(self, message: str) -> dict[str, Any]:
        """A Deployment of which the API server creates no pod."""
        failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
        return self.deployment(3, 0, total=0, conditions=[failure])

    def pod(self, name: str = "p", **status: Any) -> dict[str, Any]:
        """A pod with a node; `status` replaces parts of its status."""
        base: dict[str, Any] = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}
        return {"metadata": {"name": name}, "spec": {"nodeName": "n1"}, "status": base | status}

    def ready_pod(self, name: str = "ready") -> dict[str, Any]:
        conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]
        running = self.container(running={"startedAt": self.ago(600)}, ready=True)
        return self.pod(name, phase="Running", conditions=conditions, containerStatuses=[running])

    def container(
        self, name: str = "runtime", ready: bool = False, restarts: int = 0, **states: Any
    ) -> dict[str, Any]:
        """A container status; `waiting`, `running`, `terminated` are its state, `last` how it ended before."""
        last = states.pop("last", None)
        status = {
            "name": name,
            "image": "registry.example/tts:1",
            "ready": ready,
            "restartCount": restarts,
            "state": states,
        }
        return status | ({"lastState": {"terminated": last}} if last else {})

    def pending_pod(self, message: str, seconds: int = 30, name: str = "p") -> dict[str, Any]:
        """A pod without a node, with the scheduler's message."""
        scheduled = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": self.ago(seconds),
        }
        pod = self.pod(name, conditions=[scheduled])
        del pod["spec"]["nodeName"]
        return pod

    def waiting_pod(self, reason: str, message: str = "", name: str = "p") -> dict[str, Any]:
        """A pod whose container waits."""
        return self.pod(name, containerStatuses=[self.container(waiting={"reason": reason, "message": message})])

    def fetch_failed(self, code: int, message: str = "") -> dict[str, Any]:
        ended = {"exitCode": code, "reason": "Error", "message": message}
        return self.pod("p", initContainerStatuses=[self.container("fetch", restarts=2, terminated=ended)])

    def observed(self, deployment: Mapping[str, Any] | None = None, *pods: Any, **fleet: Any) -> ObservedFleet:
        """Class `ada` with this Deployment and these pods."""
        return ObservedFleet(classes={"ada": ObservedClass("ada", deployment, tuple(pods))}, **fleet)

    def status(
        self,
        service: TTSService | None = None,
        plan: FleetPlan | None = None,
        observed: ObservedFleet | None = None,
        previous: Mapping[str, Any] | None = None,
        later: float = 0,
    ) -> dict[str, Any]:
        service = service or self.service()
        plan = plan or self.plan(service)
        observed = observed or self.observed(self.deployment())
        return build_status(service, plan, observed, previous or {}, NOW + timedelta(seconds=later))

    def first_sight(self) -> dict[str, Any]:
        return self.status(observed=self.observed(None))

    def seen(self, deployment: Mapping[str, Any] | None, *pods: Any, **facts: Any) -> dict[str, Any]:
        """The second look: the resource has a status from the first."""
        return self.status(observed=self.observed(deployment, *pods, **facts), previous=self.first_sight())

    def scaled_from_zero(self, *pods: Any, **spec: Any) -> dict[str, Any]:
        zero = self.status(self.service(replicas=0), observed=self.observed(self.deployment(0)))
        observed = self.observed(self.deployment(3, 0, total=len(pods)), *pods)
        return self.status(self.service(replicas=3, **spec), observed=observed, previous=zero)

    def two_classes(self, desired: Mapping[str, int], problems: Mapping[str, Problem]) -> dict[str, Any]:
        """Classes `ada` and `cpu` with these replicas, all ready."""
        service = self.service(classes=[{"name": "ada", "gpu": {"products": ["NVIDIA-L4"]}}, CPU])
        deployments = {"ada": self.deployment(desired["ada"]) if desired["ada"] else None}
        deployments["cpu"] = self.deployment(desired["cpu"])
        observed = ObservedFleet(classes={name: ObservedClass(name, one) for name, one in deployments.items()})
        return self.status(service, self.plan(service, desired, problems), observed)

    @staticmethod
    def condition(status: Mapping[str, Any], kind: str) -> dict[str, Any]:
        return next((one for one in status["conditions"] if one["type"] == kind), {})

    def told(self, status: Mapping[str, Any], *kinds: str) -> list[str]:
        """`Ready=True/Serving` for each kind that is there."""
        found = [self.condition(status, kind) for kind in kinds]
        return [f"{one['type']}={one['status']}/{one['reason']}" for one in found if one]

    def ago(self, seconds: float) -> str:
        return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def fleet() -> Builder:
    return Builder()
