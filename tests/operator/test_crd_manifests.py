"""Every mistake of data/bad_manifests is refused with a remedy, every file of data/good_manifests is accepted.

The same files go to a real API server in tests/control_plane/test_api_rules.py: both must judge alike. The heading of
a bad one says who refuses it and with which words.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from ttsfleet_operator.api.manifest import load_services
from ttsfleet_operator.errors import ManifestError
from ttsfleet_operator.fleet.plan import plan_fleet
from ttsfleet_operator.fleet.settings import FleetSettings, References
from ttsfleet_operator.manifests.pod_template import pod_template
from ttsfleet_operator.profiles import builtin_profiles
from ttsfleet_operator.status.build import build_status
from ttsfleet_operator.status.observed import ObservedFleet

DATA = Path(__file__).parent / "data"
GOOD = sorted((DATA / "good_manifests").glob("*.yaml"))
BAD = sorted((DATA / "bad_manifests").glob("*.yaml"))


def heading(path: Path) -> dict[str, str]:
    lines = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    return dict(line.split(": ", 1) for line in lines)


REFUSED = [path for path in BAD if heading(path)["refused by"] == "API server"]
CONDITIONS = [path for path in BAD if heading(path)["refused by"].startswith("condition ")]


def test_at_least_forty_distinct_mistakes_are_told_apart() -> None:
    assert len(REFUSED) + len(CONDITIONS) == len(BAD) >= 40
    assert len({heading(path)["mistake"] for path in BAD}) == len(BAD)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_manifest_is_accepted(path: Path) -> None:
    (service,) = load_services(path)
    assert service.spec.replicas >= 0


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_bad_manifest_is_refused_with_a_remedy(path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        load_services(path)
    assert heading(path)["says"] in str(caught.value)
    assert all(problem.line is not None for problem in caught.value.problems)


@pytest.mark.parametrize("path", CONDITIONS, ids=lambda path: path.stem)
def test_what_only_the_operator_can_judge_becomes_a_condition_with_a_remedy(path: Path) -> None:
    """In a cluster without nodes, and without the ConfigMaps that a service names."""
    (service,) = load_services(path)
    settings = FleetSettings(release="0.1.0", runtime_image="registry.example/runtime:0.1.0")
    plan = plan_fleet(service, builtin_profiles(), (), {}, settings, References(), pod_template)
    status = build_status(service, plan, ObservedFleet(), {}, datetime(2026, 11, 23, tzinfo=UTC))
    told = {
        one["type"]: (one["status"], f"condition {one['reason']}", one["message"]) for one in status["conditions"]
    }
    assert told["Ready"][0] != "True"
    expected = heading(path)
    assert [
        kind
        for kind, (_, reason, message) in told.items()
        if reason == expected["refused by"] and expected["says"] in message
    ], told
