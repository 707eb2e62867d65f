"""ttsfleet installed by its chart, on real nodes of our own or on a cluster that is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from container_images import build
from control_plane.cluster import Cluster
from control_plane.collection import cluster_of_environment, skip_or_refuse
from end_to_end.installation import Installation, installed
from real_nodes import leftovers, requirements
from real_nodes.cluster import RealCluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of this folder are skipped, or with E2E_REQUIRED refused, when there is nothing to run them on."""
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    skip_or_refuse(ours, obstacles() if ours else [], "make e2e")


def obstacles() -> list[str]:
    found = [] if find_spec("faster_whisper") else ["the recogniser is not installed: `tools/install asr`"]
    if os.environ.get("E2E_KUBECONFIG"):
        if not os.environ.get("E2E_REGISTRY"):
            found.append("E2E_KUBECONFIG is set: E2E_REGISTRY must say where the images are")
        return found
    found += requirements.obstacles()
    if not build.store_path().exists():
        found.append(f"the images are not built: `{build.COMMAND}`")
    return found


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of E2E_KUBECONFIG when that is set and allowed, else three nodes in two zones of our own."""
    if given := cluster_of_environment():
        yield given
        return
    with RealCluster.started(nodes=3, store=build.store_path()) as own:
        own.enforce_network_policies()
        yield own
    assert leftovers.found() == []


@pytest.fixture(scope="session")
def installation(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The chart, installed with the images of this tree."""
    registry = os.environ.get("E2E_REGISTRY") or "localhost"
    with installed(cluster, tmp_path_factory.mktemp("helm"), registry) as installation:
        yield installation
