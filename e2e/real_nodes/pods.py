"""Manifests of pods that run the program of cluster/pod, for tests. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from real_nodes.images import POD_IMAGE


def pod(
    name: str,
    arguments: Sequence[str],
    *,
    namespace: str = "default",
    node: str | None = None,
    labels: Mapping[str, str] | None = None,
    memory: str | None = None,
    devices: Mapping[str, int] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A pod of one container.

    Args:
        arguments: of the program, e.g. ["serve", ":8080"].
        node: the name of the node that it must run on.
        memory: the limit, e.g. "64Mi".
        devices: how many of which resource, e.g. {"nvidia.com/gpu": 1}.
        spec: further fields of the pod's spec.
    """
    container: dict[str, Any] = {"name": "main", "image": POD_IMAGE, "args": list(arguments)}
    limits = {"memory": memory} if memory else {}
    limits |= {resource: str(count) for resource, count in (devices or {}).items()}
    if limits:
        container["resources"] = {"limits": limits}
    placed = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        "spec": {"terminationGracePeriodSeconds": 1, **placed, **spec, "containers": [container]},
    }


def service(name: str, selector: Mapping[str, str], port: int, target: int) -> dict[str, Any]:
    """A ClusterIP Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": dict(selector), "ports": [{"port": port, "targetPort": target}]},
    }
