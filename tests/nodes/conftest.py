"""Real nodes for the tests of this folder. Where they cannot run, these tests are skipped with what is missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control_plane.collection import skip_or_refuse
from real_nodes import leftovers, requirements
from real_nodes.cluster import RealCluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked `real_nodes` is skipped, or with E2E_REQUIRED refused, when this machine cannot run it."""
    marked = [item for item in items if item.get_closest_marker("real_nodes")]
    skip_or_refuse(marked, requirements.obstacles() if marked else [], "make test-nodes")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    """Three nodes in two zones, for the tests of one module; nothing of them is left afterwards."""
    with RealCluster.started(nodes=3) as cluster:
        yield cluster
    assert leftovers.found() == []


@pytest.fixture
def namespace(cluster: RealCluster) -> Iterator[str]:
    """A fresh namespace, deleted after the test."""
    with cluster.namespace() as name:
        yield name
