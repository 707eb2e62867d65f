"""TTSServices for tests on a control plane, and what is asked of them: conditions, children, readiness."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from control_plane.cluster import Cluster
from control_plane.waiting import eventually

CRDS = Path(__file__).resolve().parents[2] / "crds"
CHILD_KINDS = ("configmap", "service", "networkpolicy", "poddisruptionbudget", "deployment")
CPU: Mapping[str, Any] = {"name": "cpu", "cpu": {}}
ADA: Mapping[str, Any] = {"name": "ada", "gpu": {"products": ["NVIDIA-GeForce-RTX-4090"]}}
SMALL: Mapping[str, Any] = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "4Gi"}}


def install_definitions(cluster: Cluster) -> None:
    """Installs our CRDs and waits until they are served."""
    files = [f"--filename={path}" for path in sorted(CRDS.glob("ttsfleet.dev_*.yaml"))]
    cluster.kubectl("apply", "--server-side", *files)
    cluster.wait_for_definitions()


def service(
    name: str, namespace: str, *, classes: Sequence[Mapping[str, Any]] = (CPU,), replicas: int = 1, **spec: Any
) -> dict[str, Any]:
    """A TTSService of the builtin model."""
    return {
        "apiVersion": "ttsfleet.dev/v1alpha1",
        "kind": "TTSService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "model": {"source": {"builtin": {"name": "tiny-en"}}},
            "hardware": {"classes": [dict(one) for one in classes]},
            "resources": dict(SMALL),
            **spec,
        },
    }


def condition(cluster: Cluster, name: str, namespace: str, kind: str) -> Mapping[str, Any]:
    """The condition of a TTSService, or an empty mapping."""
    found = cluster.find("ttsservice", name, namespace) or {}
    return next((one for one in found.get("status", {}).get("conditions", []) if one["type"] == kind), {})


def wait_condition(
    cluster: Cluster, name: str, namespace: str, kind: str, status: str = "True", reason: str = "", within: float = 30
) -> Mapping[str, Any]:
    """The condition, once it has the status, the reason (when given) and the newest generation."""

    def check() -> Mapping[str, Any] | None:
        found = cluster.find("ttsservice", name, namespace) or {}
        generation = found.get("metadata", {}).get("generation")
        for one in found.get("status", {}).get("conditions", []):
            if one["type"] == kind and one["status"] == status and reason in ("", one["reason"]):
                return one if one["observedGeneration"] == generation else None
        return None

    answer = eventually(check, f"{kind} of {name} is {status} {reason}", within, every=0.2)
    assert answer is not None
    return answer


def serves(raw: Mapping[str, Any], replicas: int = 1) -> bool:
    """Whether that many replicas of a TTSService are ready, and no more are wanted or there."""
    status = raw.get("status", {})
    counts = [status.get(key) for key in ("replicas", "desiredReplicas", "readyReplicas")]
    return counts == [replicas] * 3 and status.get("observedGeneration") == raw["metadata"]["generation"]


def wait_serving(cluster: Cluster, name: str, namespace: str, replicas: int = 1, within: float = 30) -> None:
    """Returns when the service serves with that many replicas."""

    def check() -> bool:
        return serves(cluster.find("ttsservice", name, namespace) or {}, replicas)

    eventually(check, f"{replicas} replicas of {name} serve", within, every=0.2)


def wait_all_serving(cluster: Cluster, names: Iterable[str], namespace: str, within: float = 60) -> None:
    """Returns when each of the services serves with one replica. One list for all of them at a time."""
    wanted = set(names)

    def missing() -> list[str]:
        found = cluster.get("ttsservices", namespace=namespace)
        return sorted(wanted - {one["metadata"]["name"] for one in found if serves(one)})

    def check() -> bool:
        assert missing() == []
        return True

    eventually(check, f"{len(wanted)} services serve", within, every=0.5)


def children(cluster: Cluster, name: str, namespace: str) -> dict[str, Any]:
    """What the operator wrote for a service, as `kind/name`: what differs between two runs is left out."""
    return _children(cluster, namespace, f"ttsfleet.dev/service={name}").get(name, {})


def children_by_service(cluster: Cluster, namespace: str) -> dict[str, dict[str, Any]]:
    """As `children`, of every service of a namespace."""
    return _children(cluster, namespace, "ttsfleet.dev/service")


def _children(cluster: Cluster, namespace: str, selector: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in cluster.get(",".join(CHILD_KINDS), namespace=namespace, selector=selector):
        metadata = one["metadata"]
        owned = found.setdefault(metadata["labels"]["ttsfleet.dev/service"], {})
        owned[f"{one['kind'].lower()}/{metadata['name']}"] = _comparable(one)
    return found


def _comparable(manifest: Mapping[str, Any]) -> dict[str, Any]:
    metadata = manifest["metadata"]
    annotations = {
        key: value
        for key, value in metadata.get("annotations", {}).items()
        if key.startswith("ttsfleet.dev/") and key != "ttsfleet.dev/applied-hash"
    }
    spec = {key: value for key, value in manifest.get("spec", {}).items() if not key.startswith("clusterIP")}
    return {
        "labels": metadata["labels"],
        "annotations": annotations,
        "owners": [one["name"] for one in metadata["ownerReferences"]],
        "spec": spec,
        "data": manifest.get("data"),
    }
