"""`ttsfleet render`, and `ttsfleet plan` for nodes that are given: what is printed, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ttsfleet_operator.cli import main
from ttsfleet_operator.cli.fleet_inputs import node_with
from ttsfleet_operator.profiles import builtin_profiles

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
MIXED = str(EXAMPLES / "ttsservice-mixed.yaml")
TINY = str(EXAMPLES / "ttsservice-tiny.yaml")


@pytest.fixture
def nodes(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(*names: str, more: tuple[dict[str, Any], ...] = ()) -> str:
        items = [node_with(builtin_profiles(), name, number) for number, name in enumerate(names)]
        path = tmp_path / "nodes.yaml"
        path.write_text(yaml.safe_dump({"kind": "List", "items": [*items, *more]}))
        return str(path)

    return write


def documents(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one]


def replicas(text: str) -> dict[str, int]:
    found = [one for one in documents(text) if one["kind"] == "Deployment"]
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in found}


def test_children_are_printed_as_documents(capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["render", "-f", TINY]) == 0
    output = capsys.readouterr().out
    kinds = [one["kind"] for one in documents(output)]
    assert kinds == ["ConfigMap", "Service", "NetworkPolicy", "PodDisruptionBudget", "Deployment"]
    assert "# Left out: ownerReferences" in output
    assert "no nodes were given" in output


def test_what_only_a_cluster_knows_of_the_policy_is_told(capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["render", "-f", str(EXAMPLES / "ttsservice-rtx4090.yaml")]) == 0
    assert "# Not read: the addresses of the API server" in capsys.readouterr().out
    assert main(["render", "-f", TINY]) == 0
    assert "API server" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        pytest.param(["rtx-4090", "rtx-4090", "l4"], (2, 1, 1), id="as far as there are cards"),
        pytest.param(["l4"], (1, 1, 1), id="minReplicas waits for its card"),
    ],
)
def test_replicas_follow_the_given_gpus(gpus: list[str], expected: tuple[int, ...], tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "four.yaml"
    count = sum(expected)
    path.write_text((EXAMPLES / "ttsservice-mixed.yaml").read_text().replace("replicas: 6", f"replicas: {count}"))
    assert main(["render", "-f", str(path), "--gpu", *gpus]) == 0
    assert tuple(replicas(capsys.readouterr().out).values()) == expected


def test_nodes_of_a_file_decide_like_gpus_by_name(nodes, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["render", "-f", MIXED, "--nodes", nodes("rtx-4090", "l4")]) == 0
    from_file = capsys.readouterr().out
    assert main(["render", "-f", MIXED, "--gpu", "rtx-4090", "l4"]) == 0
    assert from_file == capsys.readouterr().out


def test_profile_in_the_file_replaces_a_row(nodes, capsys) -> None:  # type: ignore[no-untyped-def]
    profile = {
        "apiVersion": "ttsfleet.dev/v1alpha1",
        "kind": "TTSGPUProfile",
        "metadata": {"name": "rtx-4090"},
        "spec": {
            "products": ["NVIDIA-GeForce-RTX-4090"],
            "memoryMiB": 24564,
            "computeCapability": "8.9",
            "engine": {"workers": 2},
        },
    }
    path = str(EXAMPLES / "ttsservice-rtx4090.yaml")
    assert main(["render", "-f", path, "--nodes", nodes("rtx-4090", more=(profile,))]) == 0
    (config_map,) = (one for one in documents(capsys.readouterr().out) if one["kind"] == "ConfigMap")
    assert yaml.safe_load(config_map["data"]["engine.yaml"])["workers"] == 2


def test_class_that_cannot_run_is_exit_code_1_with_the_reason(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "odd.yaml"
    path.write_text((EXAMPLES / "ttsservice-rtx4090.yaml").read_text().replace("NVIDIA-GeForce-RTX-4090", "Odd-1"))
    path.write_text(path.read_text().replace("        memoryMiB: {min: 22000}\n", ""))
    assert main(["render", "-f", str(path)]) == 1
    assert "class ada: UnknownProduct: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["--gpu", "gtx-9"], "is not in the sizing table", id="unknown GPU"),
        pytest.param(["--nodes", "/no/such"], "No such file", id="no such file"),
        pytest.param(["--nodes", TINY], "holds no Node", id="a file of something else"),
        pytest.param(["--kubeconfig", "/no/such"], "--kubeconfig /no/such", id="no such kubeconfig"),
        pytest.param(["--class", "cpu"], "--class goes with --compose", id="a class without compose"),
        pytest.param(["--compose", "--class", "gpu"], "has the classes cpu", id="an unknown class"),
    ],
)
def test_wrong_option_is_explained(words: list[str], message: str, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["render", "-f", TINY, *words]) in (1, 2)
    assert message in capsys.readouterr().err


def test_compose_of_a_class_by_name(capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["render", "-f", MIXED, "--compose", "--class", "l4"]) == 0
    document = yaml.safe_load(capsys.readouterr().out)
    assert "class l4" in document["configs"]["engine"]["content"]


def test_plan_for_nodes_shows_replicas_and_matching_nodes(nodes, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["plan", "-f", MIXED, "--nodes", nodes("rtx-4090", "l4"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["nodes"] == {"ada": 1, "l4": 1, "cpu": None}
    assert sum(report["replicas"].values()) == 6
    assert report["classes"][0]["device"]["assumed"] is False


def test_plan_table_for_nodes_names_what_is_missing(nodes, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["plan", "-f", MIXED, "--nodes", nodes("l4")]) == 0
    output = capsys.readouterr().out
    assert "NoMatchingNode" in output
    assert "class l4: replicas" in output
