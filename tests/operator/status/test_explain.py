"""`explain`: what a person is told of a TTSService, and that every advice can be followed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from ttsfleet_operator.plan import Problem
from ttsfleet_operator.status.explain import Explanation, age, explain
from ttsfleet_operator.status.fetch_codes import FETCH_REASONS
from ttsfleet_operator.status.reasons import ENTRIES, Reason, Urgency, say

ROOT = Path(__file__).resolve().parents[3]
NO_GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


def explained(fleet: Any, status: Any, *pods: Any, **metadata: Any) -> Explanation:
    resource = {"metadata": {"name": "narrator", "namespace": "speech", "generation": 4} | metadata, "status": status}
    return explain(resource, pods, now=fleet.now + timedelta(minutes=5))


@pytest.mark.parametrize(
    ("status", "metadata", "state", "words"),
    [
        pytest.param(lambda fleet: fleet.status(), {}, "Ready", "3 of 3 replicas serve", id="serving"),
        pytest.param(lambda fleet: {}, {}, "Unknown", "no operator has looked at it", id="no operator"),
        pytest.param(
            lambda fleet: fleet.status(), {"generation": 5}, "Progressing", "generation 5, not 4", id="newer spec"
        ),
        pytest.param(
            lambda fleet: fleet.status(), {"deletionTimestamp": "now"}, "Progressing", "being deleted", id="deleted"
        ),
        pytest.param(
            lambda fleet: fleet.status(observed=fleet.observed(fleet.deployment(3, 2), fleet.pending_pod(NO_GPU))),
            {},
            "Progressing",
            "2 of 3 replicas serve; replicas are starting or ending; class ada: no node takes the pod",
            id="waiting for a device",
        ),
        pytest.param(
            lambda fleet: fleet.status(fleet.service(suspend=True), observed=fleet.observed(fleet.deployment(0))),
            {},
            "Suspended",
            "spec.suspend is true",
            id="suspended",
        ),
        pytest.param(
            lambda fleet: fleet.status(observed=fleet.observed(None, name_conflicts=("Service/narrator",))),
            {},
            "Stalled",
            "Service/narrator exists and is not ours",
            id="name conflict",
        ),
    ],
)
def test_state_and_summary(fleet: Any, status: Callable[[Any], Any], metadata: Any, state: str, words: str) -> None:
    found = explained(fleet, status(fleet), **metadata)
    assert found.state == state
    assert words in found.summary


def test_classes_and_conditions_are_lines(fleet: Any) -> None:
    found = explained(fleet, fleet.status(plan=fleet.plan(fleet.service(), pending=True)))
    (ada,) = found.classes
    assert (ada.name, ada.replicas, ada.profile, ada.pending) == ("ada", "3/3", "rtx-4090", "feedbeef")
    assert ada.plan.startswith("3 workers, decode 2, bf16, ")
    assert ada.memory.endswith("of 24564 MiB")
    assert next((one.type, one.age) for one in found.conditions) == ("Ready", "5m")
    assert found.notes[0].startswith("a newer plan waits for ada")
    assert found.advice == ()


def test_advice_names_the_pod(fleet: Any) -> None:
    crashed = fleet.container(restarts=5, terminated={"exitCode": 3})
    pod = fleet.pod("narrator-ada-x", containerStatuses=[crashed])
    found = explained(
        fleet, fleet.status(observed=fleet.observed(fleet.deployment(3, 2), pod)), pod, fleet.ready_pod()
    )
    (advice,) = found.advice
    assert advice.reason == "CrashLoopBackOff"
    assert "`kubectl logs narrator-ada-x --previous`" in advice.remedy
    assert [(one.name, one.state) for one in found.pods] == [
        ("narrator-ada-x", "CrashLoopBackOff"),
        ("ready", "Ready"),
    ]


def test_advice_of_a_refused_plan(fleet: Any) -> None:
    problem = Problem("OutOfMemory", "the plan needs 99999 MiB; workers: 3 would fit")
    found = explained(fleet, fleet.status(plan=fleet.plan(fleet.service(), {"ada": 3}, {"ada": problem})))
    (advice,) = found.advice
    assert (advice.reason, advice.message) == ("OutOfMemory", f"class ada: {problem.message}")


def test_reason_of_a_newer_operator_is_not_hidden(fleet: Any) -> None:
    status = fleet.status()
    status["classes"][0]["problem"] = {"reason": "NewThing", "message": "m", "pods": 1, "since": ""}
    (advice,) = explained(fleet, status).advice
    assert (advice.reason, advice.message) == ("NewThing", "class ada: m")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d")]
)
def test_age(fleet: Any, seconds: int, shown: str) -> None:
    assert age(fleet.ago(seconds), fleet.now) == shown


def test_unknown_age(fleet: Any) -> None:
    assert age("?", fleet.now) == ""


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_documented_with_its_remedy(reason: Reason) -> None:
    page = (ROOT / "docs" / "status.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{reason.value}` |")]
    assert reason.remedy.replace("|", "\\|") in row
    assert reason.urgency is Urgency.NONE or reason.remedy


def facts_of(reason: Reason) -> dict[str, Any]:
    """Endless words, with control characters, for everything that the template names but numbers."""
    names = {name for _, name, _, _ in Formatter().parse(ENTRIES[reason].template) if name}
    numbers = {"ready": 1, "desired": 3, "code": 13, "seconds": 3600}
    return {name: numbers.get(name, f"{name}-{'x' * 5000}\x00\n") for name in names}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_message_is_bounded_and_plain(reason: Reason) -> None:
    message = say(reason, **facts_of(reason))
    assert 0 < len(message) <= 512
    assert message.isprintable()


@pytest.mark.parametrize("code", list(FETCH_REASONS))
def test_exit_codes_of_the_fetch_are_documented(code: int) -> None:
    page = (ROOT / "docs" / "status.md").read_text()
    assert f"| {code} | `{FETCH_REASONS[code].value}` |" in page


def test_every_problem_of_a_plan_has_its_reason() -> None:
    """A reason that is not in the closed set would be shown as InvalidPlan."""
    sources = (ROOT / "operator" / "ttsfleet_operator").rglob("*.py")
    found = {reason for path in sources for reason in re.findall(r"\bProblem\(\s*\"(\w+)\"", path.read_text())}
    assert {"OutOfMemory", "NoMatchingNode"} <= found <= {reason.value for reason in Reason}
