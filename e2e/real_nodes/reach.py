"""What a pod of the test image reaches, seen from inside it."""

from __future__ import annotations

from control_plane.cluster import Cluster
from control_plane.errors import CommandFailed

# How a connection ends that the rules of `network_policy` refuse, and nothing else in the cluster's network.
FORBIDDEN = "no route to host"


def gets(cluster: Cluster, namespace: str, pod: str, url: str) -> bool:
    """Whether a pod gets an answer from a URL: False when a policy forbids it.

    Raises:
        CommandFailed: there is no answer for another reason.
    """
    return _allowed(cluster, namespace, pod, "get", url, "5")


def resolves(cluster: Cluster, namespace: str, pod: str, name: str) -> bool:
    """Whether a pod finds the addresses of a name; as `gets`."""
    return _allowed(cluster, namespace, pod, "lookup", name)


def _allowed(cluster: Cluster, namespace: str, pod: str, *arguments: str) -> bool:
    try:
        cluster.kubectl("exec", "-n", namespace, pod, "--", "/pod", *arguments)
    except CommandFailed as error:
        if FORBIDDEN not in error.stderr:
            raise
        return False
    return True
