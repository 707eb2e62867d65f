"""The children that a service has once, whatever its classes: Service, disruption budget, claim, ServiceMonitor."""

from __future__ import annotations

from ttsfleet_operator.api.network import ServiceSpec
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.api.workload import MonitoringSpec
from ttsfleet_operator.fleet.settings import FleetSettings
from ttsfleet_operator.labels import RETAIN_ANNOTATION
from ttsfleet_operator.manifests.names import (
    Manifest,
    claim_name,
    metadata,
    service_labels,
    service_selector,
)

SERVICE_PORT = 80
SCRAPE_SECONDS = 15


def api_service(service: TTSService) -> Manifest:
    """Port 80 to the API. The management port is left out: a load balancer would publish it."""
    given = service.spec.network.service if service.spec.network is not None else None
    wanted = given or ServiceSpec()
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(service, service.name, service_labels(service.name), wanted.annotations),
        "spec": {
            "type": wanted.type,
            "selector": service_selector(service.name),
            "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def disruption_budget(service: TTSService) -> Manifest:
    """One pod at a time. maxUnavailable and not minAvailable, so that one replica does not block a drain; a pod that
    does not serve may always go."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(service, service.name, service_labels(service.name)),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": service_selector(service.name)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def cache_claim(service: TTSService) -> Manifest | None:
    """The claim of the model cache; None where none is asked for.

    With `retain` it has no owner, so that it outlives the TTSService; the annotation tells a later TTSService of the
    same name that the claim is its own to use.
    """
    cache = service.spec.model.cache
    if cache is None or cache.claim is None:
        return None
    claim = cache.claim
    spec: Manifest = {
        "accessModes": list(claim.access_modes),
        "resources": {"requests": {"storage": claim.size}},
    }
    if claim.storage_class_name:
        spec["storageClassName"] = claim.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(
            service,
            claim_name(service.name),
            service_labels(service.name),
            {RETAIN_ANNOTATION: "true"} if claim.retain else None,
            owned=not claim.retain,
        ),
        "spec": spec,
    }


def service_monitor(service: TTSService, settings: FleetSettings) -> Manifest | None:
    """Scrapes the pods' management port through the Service; None where it is unwanted or the cluster lacks the
    kind."""
    monitoring = service.spec.monitoring or MonitoringSpec()
    if monitoring.service_monitor == "Disabled" or not settings.service_monitors:
        return None
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(service, service.name, service_labels(service.name)),
        "spec": {
            "selector": {"matchLabels": service_labels(service.name)},
            "endpoints": [{"targetPort": "metrics", "path": "/metrics", "interval": f"{SCRAPE_SECONDS}s"}],
        },
    }
