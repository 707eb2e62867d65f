"""A hundred services at once: all converge with few writes, rest without any, and a restart adds none.

Counts, never times: those are measured by benchmarks/control_plane_scale.py. The operator looks at everything and
compares its caches more often than it does by default: more can go wrong in a minute.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control_plane.operator_process import OperatorProcess, leading
from control_plane.plane import ControlPlane
from control_plane.scale.load import Load
from control_plane.scale.results import Growth
from control_plane.scale.run import (
    QUIET_SECONDS,
    ScaleRun,
    ScaleSettings,
    has_looked_at_all,
    prepare,
    start_operator,
    writes_of_operator,
)
from control_plane.waiting import eventually

# Ten minutes in `make e2e-soak`.
IDLE_SECONDS = float(os.environ.get("E2E_IDLE_SECONDS", "60"))
SETTINGS = ScaleSettings(services=100, nodes=50, within_seconds=240)
OFTEN = {"RESYNC_SECONDS": "20", "PROBE_SECONDS": "10"}

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + IDLE_SECONDS)]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    if os.environ.get("E2E_KUBECONFIG"):
        pytest.skip("fills a cluster with nodes and services; not a given one")
    with ControlPlane.started() as started:
        prepare(started, SETTINGS)
        yield started


@pytest.fixture(scope="module")
def operator(plane: ControlPlane) -> Iterator[OperatorProcess]:
    with leading(start_operator(plane, **OFTEN)) as process:
        yield process


@pytest.fixture(scope="module")
def created(plane: ControlPlane, operator: OperatorProcess) -> Growth:
    """The creation of a hundred services; they all serve."""

    async def create(kubeconfig: Path) -> Growth:
        async with Load.connected(kubeconfig) as load:
            return await ScaleRun(plane, load, SETTINGS, operator).create_services()

    return asyncio.run(create(plane.kubeconfig))


def test_all_serve_after_at_most_twelve_writes_each(created: Growth) -> None:
    assert len(created.arrivals) == SETTINGS.services
    assert created.writes is not None
    assert created.num_writes <= 12 * SETTINGS.services, created.writes
    assert created.writes["patch deployments"] == SETTINGS.services
    assert not [what for what in created.writes if what.endswith(" ttsservices")], "the spec is the user's"


def test_an_idle_operator_writes_nothing_but_its_lease(
    plane: ControlPlane,
    operator: OperatorProcess,
    created: Growth,
    record_property: Callable[[str, object], None],
) -> None:
    time.sleep(QUIET_SECONDS)  # a change of numbers alone may be written ten seconds after the last
    mark = plane.audit_mark()
    began = time.monotonic()
    while (idle := time.monotonic() - began) < IDLE_SECONDS:
        time.sleep(min(10.0, IDLE_SECONDS - idle))
        assert writes_of_operator(plane, mark) == {}, f"after {idle:.0f} idle seconds"
        logger.info("%.0f of %.0f idle seconds", time.monotonic() - began, IDLE_SECONDS)
    record_property("services", SETTINGS.services)
    record_property("idle_seconds", round(time.monotonic() - began))
    assert operator.running
    assert operator.answer("/livez") == (200, "ok\n")
    assert operator.metric("ttsfleet_watch_gaps_total") == 0
    assert list(plane.audit(since=mark, writes=True, resource="leases", namespace="default"))


def test_a_restarted_operator_looks_at_all_and_writes_nothing(
    plane: ControlPlane, operator: OperatorProcess, created: Growth
) -> None:
    operator.stop()
    mark = plane.audit_mark()
    second = start_operator(plane, "scale-operator-2")
    try:
        eventually(lambda: has_looked_at_all(second, SETTINGS.services), "it has looked at all", 120, 0.5)
        time.sleep(QUIET_SECONDS)
        assert writes_of_operator(plane, mark) == {}
    finally:
        second.stop()
