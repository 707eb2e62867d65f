"""Mistakes that only the operator can judge, all at once: each is shown as a condition that says what to do.

The manifests and what is said of them are those of tests/operator/test_crd_manifests.py, which feeds them to the plan
and the status alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane.operator_process import OperatorProcess
from control_plane.plane import ControlPlane
from control_plane.speech import install_definitions
from control_plane.waiting import eventually

DATA = Path(__file__).resolve().parents[1] / "operator" / "data" / "bad_manifests"


def heading(path: Path) -> dict[str, str]:
    lines = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    return dict(line.split(": ", 1) for line in lines)


JUDGED = [path for path in sorted(DATA.glob("*.yaml")) if heading(path)["refused by"].startswith("condition ")]


@pytest.fixture(scope="module")
def mistaken(own_control_plane: ControlPlane) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The namespace of all mistaken services, by the names of their files, and their status once each has one."""
    plane = own_control_plane
    install_definitions(plane)
    kubeconfig = plane.kubeconfig_for("operator-of-mistakes", ["system:masters"])
    with plane.namespace() as namespace:
        operator = OperatorProcess(kubeconfig, WATCH_NAMESPACES=namespace, NAMESPACE=namespace)
        try:
            operator.wait_leader()
            metadata = {path: {"name": path.stem, "namespace": namespace} for path in JUDGED}
            plane.apply(*({**yaml.safe_load(path.read_text()), "metadata": metadata[path]} for path in JUDGED))

            def told() -> dict[str, Any]:
                found = {one["metadata"]["name"]: one for one in plane.get("ttsservices", namespace=namespace)}
                assert [name for name, one in found.items() if "status" not in one] == []
                return found

            yield namespace, eventually(told, "each has a status", within=30, every=0.2)
            assert "Traceback" not in operator.log(), operator.log()
        finally:
            operator.stop()
            plane.kubectl("delete", "ttsservices", "--all", "-n", namespace, "--wait=false")


@pytest.mark.parametrize("path", JUDGED, ids=lambda path: path.stem)
def test_what_only_the_operator_can_judge_is_shown_with_a_remedy(
    mistaken: tuple[str, Mapping[str, Any]], path: Path
) -> None:
    namespace, told = mistaken
    reason = heading(path)["refused by"].removeprefix("condition ")
    words = heading(path)["says"].replace("namespace default", f"namespace {namespace}")
    status = told[path.stem]["status"]
    conditions = {one["type"]: one for one in status["conditions"]}
    assert status["observedGeneration"] == 1
    assert conditions["Ready"]["status"] != "True"
    shown = [kind for kind, one in conditions.items() if one["reason"] == reason and words in one["message"]]
    assert shown, conditions


def test_there_are_mistakes_of_that_kind() -> None:
    assert len(JUDGED) >= 10
