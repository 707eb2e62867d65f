"""The kinds that the operator reads or writes, and their URLs. Data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ttsfleet_operator.labels import MANAGED_LABEL, MANAGER

MANAGED_SELECTOR = f"{MANAGED_LABEL}={MANAGER}"


@dataclass(frozen=True)
class Kind:
    """One kind of one API version."""

    api_version: str
    name: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        group, slash, _ = self.api_version.partition("/")
        return group if slash else ""

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of an object, or of the collection when `name` is empty; no namespace = all of them."""
        parts = [f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


SERVICES_OF_USERS = Kind("ttsfleet.dev/v1alpha1", "TTSService", "ttsservices")
GPU_PROFILES = Kind("ttsfleet.dev/v1alpha1", "TTSGPUProfile", "ttsgpuprofiles", namespaced=False)
NODES = Kind("v1", "Node", "nodes", namespaced=False)
PODS = Kind("v1", "Pod", "pods")
EVENTS = Kind("v1", "Event", "events")
CONFIG_MAPS = Kind("v1", "ConfigMap", "configmaps")
SERVICES = Kind("v1", "Service", "services")
CLAIMS = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
DEPLOYMENTS = Kind("apps/v1", "Deployment", "deployments")
REPLICA_SETS = Kind("apps/v1", "ReplicaSet", "replicasets")
DISRUPTION_BUDGETS = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICIES = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
SERVICE_MONITORS = Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors")
SCALERS = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
ENDPOINT_SLICES = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
LEASES = Kind("coordination.k8s.io/v1", "Lease", "leases")

# Children that are watched, in the order in which they are applied. ServiceMonitors are children too, but their kind
# may be absent: they are listed on a timer.
WATCHED_CHILDREN = (CONFIG_MAPS, CLAIMS, SERVICES, NETWORK_POLICIES, DISRUPTION_BUDGETS, DEPLOYMENTS)
CHILDREN = (*WATCHED_CHILDREN, SERVICE_MONITORS)

_BY_NAME = {(kind.api_version, kind.name): kind for kind in (*CHILDREN, SERVICES_OF_USERS, GPU_PROFILES, NODES)}


def kind_of(manifest: Mapping[str, Any]) -> Kind:
    """The kind of a manifest. Raises KeyError for one that the operator never writes."""
    return _BY_NAME[(manifest["apiVersion"], manifest["kind"])]
