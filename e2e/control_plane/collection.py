"""What the conftest files of tests on Kubernetes have in common: skipped, refused, or on a cluster that is named."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import pytest

from control_plane.cluster import Cluster, given_cluster
from control_plane.errors import ClusterRefused


def skip_or_refuse(items: Iterable[pytest.Item], obstacles: Sequence[str], command: str) -> None:
    """Skips the tests where something stands against them; with E2E_REQUIRED the run ends instead.

    Args:
        obstacles: each with its remedy; empty when the tests can run.
        command: what runs these tests once the remedies are taken.
    """
    if not obstacles:
        return
    found = "; ".join(obstacles)
    for item in items:
        if os.environ.get("E2E_REQUIRED"):
            pytest.exit(f"E2E_REQUIRED is set, but: {found}", returncode=pytest.ExitCode.USAGE_ERROR)
        item.add_marker(pytest.mark.skip(reason=f"{found}; then run `{command}`"))


def cluster_of_environment() -> Cluster | None:
    """The cluster of E2E_KUBECONFIG; the run ends when the allow-list does not allow it."""
    try:
        return given_cluster(os.environ)
    except ClusterRefused as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
