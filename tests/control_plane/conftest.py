"""The control plane that all tests of this folder share. Without its binaries they are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane import binaries, scratch
from control_plane.cluster import Cluster
from control_plane.collection import cluster_of_environment, skip_or_refuse
from control_plane.plane import ControlPlane
from control_plane.processes import processes_below

FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is marked `control_plane`, and skipped when there is nothing to run it on."""
    needed = ("kubectl",) if os.environ.get("E2E_KUBECONFIG") else binaries.CONTROL_PLANE
    absent = binaries.missing(needed)
    advice = f"not built: {', '.join(absent)}; build with `{binaries.BUILD_COMMAND}` (cold about 10 minutes)"
    ours = [item for item in items if item.path.is_relative_to(FOLDER)]
    for item in ours:
        item.add_marker(pytest.mark.control_plane)
    skip_or_refuse(ours, [advice] if absent else [], "make test-control-plane")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After the last test: no process and no temporary file of ours."""
    yield
    assert [str(path) for path in scratch.left()] == []
    ours = (str(binaries.cache_root()), "ttsfleet_operator")
    assert [one for one in processes_below(os.getpid()) if any(name in one for name in ours)] == []


@pytest.fixture(scope="session")
def control_plane(nothing_is_left: None) -> Iterator[Cluster]:
    """The cluster of E2E_KUBECONFIG when that is set and allowed, else a control plane of our own."""
    if given := cluster_of_environment():
        yield given
        return
    with ControlPlane.started() as plane:
        yield plane


@pytest.fixture(scope="session")
def own_control_plane(control_plane: Cluster) -> ControlPlane:
    """For tests that need more than a kubeconfig: the audit log, kwok's nodes, the proxy, restarts."""
    if not isinstance(control_plane, ControlPlane):
        pytest.skip("needs a control plane of our own; E2E_KUBECONFIG names a given cluster")
    return control_plane


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """A fresh namespace, deleted after the test."""
    with control_plane.namespace() as name:
        yield name
