"""`render_fleet`: everything that should exist for one TTSService, in the order in which it is applied."""

from __future__ import annotations

from collections.abc import Collection

from ttsfleet_operator.fleet.plan import FleetPlan
from ttsfleet_operator.fleet.settings import FleetSettings
from ttsfleet_operator.manifests.deployments import config_map, deployment
from ttsfleet_operator.manifests.names import Manifest
from ttsfleet_operator.manifests.network_policy import network_policy
from ttsfleet_operator.manifests.service_children import (
    api_service,
    cache_claim,
    disruption_budget,
    service_monitor,
)


def render_fleet(
    plan: FleetPlan, settings: FleetSettings, *, without_surge: Collection[str] = frozenset()
) -> list[Manifest]:
    """All desired children as plain data.

    What a pod needs comes before its Deployment: configuration, claim, and the policy that restrains it. A class
    without a bundle has no Deployment here; whether an existing one is pruned is decided by the spec's class names,
    not by this list. `without_surge` names the classes whose surge pod found no room (rollout.surge Auto).
    """
    service = plan.service
    running = [decision for decision in plan.classes if decision.bundle is not None]
    children: list[Manifest | None] = []
    for decision in running:
        assert decision.bundle is not None
        children.append(config_map(service, decision.name, decision.bundle, decision.inputs_hash))
    children += [
        cache_claim(service),
        api_service(service),
        network_policy(service, settings),
        disruption_budget(service),
    ]
    for decision in running:
        assert decision.bundle is not None
        children.append(
            deployment(
                service,
                decision.name,
                decision.bundle,
                replicas=decision.desired,
                distribution_hash=plan.distribution_hash,
                surge=decision.name not in without_surge,
            )
        )
    children.append(service_monitor(service, settings))
    return [child for child in children if child is not None]
