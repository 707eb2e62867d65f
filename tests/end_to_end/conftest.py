"""ttsfleet installed by its chart, on real nodes of our own or on a cluster that is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from container_images import build
from control_plane.cluster import Cluster, given_cluster
from control_plane.errors import ClusterRefused
from end_to_end.installation import Installation, installed
from real_nodes import leftovers, requirements
from real_nodes.cluster import RealCluster

RUN_COMMAND = "make e2e"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked `real_nodes` is skipped, or with E2E_REQUIRED refused, when there is nothing to run it on."""
    marked = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    found = obstacles() if marked else []
    if found and os.environ.get("E2E_REQUIRED"):
        pytest.exit(f"E2E_REQUIRED is set, but: {'; '.join(found)}", returncode=pytest.ExitCode.USAGE_ERROR)
    for item in marked:
        if found:
            item.add_marker(pytest.mark.skip(reason=f"{'; '.join(found)}; then run `{RUN_COMMAND}`"))


def obstacles() -> list[str]:
    if os.environ.get("E2E_KUBECONFIG"):
        return (
            []
            if os.environ.get("E2E_REGISTRY")
            else ["E2E_KUBECONFIG is set: E2E_REGISTRY must say where the images are"]
        )
    found = requirements.obstacles()
    if not find_spec("faster_whisper"):
        found.append("the recogniser is not installed: `tools/install asr`")
    if not build.store_path().exists():
        found.append(f"the images are not built: `{build.COMMAND}`")
    return found


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of E2E_KUBECONFIG when that is set and allowed, else three nodes in two zones of our own."""
    try:
        given = given_cluster(os.environ)
    except ClusterRefused as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
    if given:
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


@pytest.fixture(scope="session")
def real_nodes(cluster: Cluster) -> RealCluster:
    """For tests that end processes of nodes."""
    if not isinstance(cluster, RealCluster):
        pytest.skip("ends processes of nodes, which a given cluster does not allow")
    return cluster
