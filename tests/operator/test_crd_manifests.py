"""Every mistake of data/bad_manifests is refused with a remedy, every file of data/good_manifests is accepted.

The same files go to a real API server in tests/control_plane/test_api_rules.py: both must judge alike. The heading of
a bad one says who refuses it and with which words.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ttsfleet_operator.api.manifest import load_services
from ttsfleet_operator.errors import ManifestError
from ttsfleet_operator.plan import plan_class
from ttsfleet_operator.profiles import builtin_profiles
from ttsfleet_operator.sites import site_of_profile

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
def test_what_only_a_plan_can_judge_becomes_a_condition_with_a_remedy(path: Path) -> None:
    (service,) = load_services(path)
    table = builtin_profiles()
    (one,) = service.spec.hardware.classes
    problem = plan_class(service, one, table, site_of_profile(service, one, table)).problem
    assert problem is not None
    assert f"condition {problem.reason}" == heading(path)["refused by"]
    assert heading(path)["says"] in problem.message
