"""A scale run that is cut or fails in a phase keeps what it has measured, and says what it has not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control_plane.errors import NeverHappened
from control_plane.scale.load import Told
from control_plane.scale.phases import Phases
from control_plane.scale.results import Growth, Restart, ScaleResult

EMPTY = ScaleResult(services=10, nodes=5, creators=1, date="2026-11-24", cpus=2, load_before=0.0)
GROWTH = Growth(seconds=20.0, written_seconds=1.0, arrivals=(10.0, 20.0), cpu_seconds=0.1, writes={"patch": 90})
RESTART = Restart(1.0, 2.0, 100, 90, 0.5, writes={"patch deployments": 1})


async def test_what_is_known_is_handed_out_after_every_phase_and_a_failure_is_part_of_it() -> None:
    saved: list[ScaleResult] = []
    bars: dict[str, int] = {}

    def begin(title: str) -> Told:
        return lambda count: bars.__setitem__(title, count)

    async def never(told: Told) -> Growth:
        told(3)
        raise NeverHappened("7 deployments are not as wanted")

    async def grown(_told: Told) -> Growth:
        return GROWTH

    phases = Phases(EMPTY, begin, saved.append)
    await phases.run("baseline", "script", never, lambda known, found: replace(known, baseline=found))
    await phases.run("creation", "operator", grown, lambda known, found: replace(known, creation=found))
    failure = {"baseline": "NeverHappened: 7 deployments are not as wanted"}
    assert saved == [replace(EMPTY, failures=failure), replace(EMPTY, failures=failure, creation=GROWTH)]
    assert bars == {"script": 3, "operator": 10}


@pytest.mark.parametrize(
    ("result", "verdicts"),
    [
        pytest.param(EMPTY, ["not measured"] * 8, id="cut at once"),
        pytest.param(
            replace(EMPTY, creation=GROWTH),
            ["held", "not measured", "held", "held", "held", "not measured", "not measured", "not measured"],
            id="cut after the creation",
        ),
        pytest.param(
            replace(EMPTY, baseline=replace(GROWTH, seconds=10.0), creation=GROWTH, restart=RESTART),
            ["held", "missed", "held", "held", "held", "held", "held", "missed"],
            id="too slow against the script, and a write after the restart",
        ),
    ],
)
def test_each_limit_is_held_missed_or_not_measured(result: ScaleResult, verdicts: list[str]) -> None:
    assert [one["verdict"] for one in result.as_json()["limits"]] == verdicts
    assert not result.held


def test_a_run_with_a_failed_phase_is_not_held() -> None:
    calm = replace(RESTART, writes={})
    whole = replace(EMPTY, baseline=GROWTH, creation=GROWTH, restart=calm, change=GROWTH)
    assert whole.held
    assert not replace(whole, change=None, failures={"change": "NeverHappened: "}).held
