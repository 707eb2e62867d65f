"""`ttsfleet plan` and the pieces around the subcommands: tables, JSON, players, the embedded manifest."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from ttsfleet_operator.api.manifest import load_services
from ttsfleet_operator.cli import main
from ttsfleet_operator.cluster_notes import cluster_notes
from ttsfleet_operator.errors import SpeechError
from ttsfleet_operator.players import PLAYERS, Player
from ttsfleet_operator.tiny import tiny_service

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def test_embedded_manifest_is_the_tiny_example() -> None:
    embedded = (ROOT / "operator" / "ttsfleet_operator" / "tiny.yaml").read_text()
    assert embedded == (EXAMPLES / "ttsservice-tiny.yaml").read_text()
    assert tiny_service().name == "tiny"


def test_plan_shows_every_class_with_the_origin_of_its_values(capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["plan", "-f", str(EXAMPLES / "ttsservice-mixed.yaml"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    classes = {one["name"]: one for one in report["classes"]}
    assert list(classes) == ["ada", "l4", "cpu"]
    origins = {value["name"]: value["origin"] for value in classes["l4"]["values"]}
    assert origins["workers"] == "class override"
    assert origins["kv_cache_mode"] == "spec.engine"
    assert origins["quant_type"] == "profile"
    assert origins["max_total_token_num"] == "guide rule"
    assert any(
        note.startswith("spec.replicas: needs a cluster; ignored by `ttsfleet run`") for note in report["notes"]
    )


def test_plan_table_is_readable(capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["plan", "-f", str(EXAMPLES / "ttsservice-rtx4090.yaml")]) == 0
    output = capsys.readouterr().out
    for word in ("decode_process_num", "rtx-4090", "guide rule", "GPU memory", "24564 MiB"):
        assert word in output


def test_plan_for_another_card_by_name(capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["plan", "-f", str(EXAMPLES / "ttsservice-tiny.yaml"), "--gpu", "a100-40gb", "--json"]) == 0
    (plan,) = json.loads(capsys.readouterr().out)["classes"]
    assert plan["device"]["product"] == "NVIDIA-A100-SXM4-40GB"
    assert {v["name"]: v["value"] for v in plan["values"]}["workers"] == 4


def test_plan_that_does_not_fit_has_exit_code_1(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    text = (EXAMPLES / "ttsservice-rtx4090.yaml").read_text()
    path = tmp_path / "big.yaml"
    path.write_text(text.replace("  hardware:\n", "  engine: {workers: 16}\n  hardware:\n"))
    assert main(["plan", "-f", str(path)]) == 1
    assert "OutOfMemory" in capsys.readouterr().out


def test_unknown_card_lists_the_known_ones(capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["plan", "-f", str(EXAMPLES / "ttsservice-tiny.yaml"), "--gpu", "voodoo"]) == 1
    assert "known: a10, a100-40gb" in capsys.readouterr().err


def test_wrong_manifest_is_shown_with_file_and_line(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "service.yaml"
    path.write_text((EXAMPLES / "ttsservice-tiny.yaml").read_text().replace("cpu: {}", "cpus: {}"))
    assert main(["run", "-f", str(path)]) == 2
    assert (
        "service.yaml: line 18: spec.hardware.classes[0].cpus: unknown field; did you mean cpu?"
        in capsys.readouterr().err
    )


def test_file_with_two_services_needs_a_choice(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    text = (EXAMPLES / "ttsservice-tiny.yaml").read_text()
    path = tmp_path / "two.yaml"
    other = text.replace("name: tiny\n", "name: other\n")
    path.write_text(f"{text}---\n{other}")
    assert main(["plan", "-f", str(path)]) == 2
    assert "several services (tiny, other); choose one with --service" in capsys.readouterr().err
    assert main(["plan", "-f", str(path), "--service", "other", "--json"]) == 0


def test_only_given_fields_are_noted_as_needing_a_cluster() -> None:
    assert cluster_notes(tiny_service()) == []
    (mixed,) = load_services(EXAMPLES / "ttsservice-mixed.yaml")
    noted = {note.split(":")[0] for note in cluster_notes(mixed)}
    assert {"metadata.namespace", "spec.replicas", "spec.network", "spec.hardware.distribution"} <= noted
    assert "spec.rollout" not in noted


@pytest.mark.parametrize("words", [["--help"], ["bench", "--help"], ["--version"]])
def test_help_and_version_answer(words: list[str], capsys) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert "ttsfleet" in capsys.readouterr().out


def test_version_is_a_command(capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("ttsfleet 0.")


@pytest.mark.parametrize("name", PLAYERS)
def test_player_arguments_name_rate_and_format(name: str) -> None:
    joined = " ".join(PLAYERS[name](24000))
    assert "24000" in joined
    assert "1" in joined


def test_player_hears_everything_before_it_ends(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    code = f"import sys; open({str(heard)!r}, 'wb').write(sys.stdin.buffer.read())"

    async def play() -> None:
        player = await Player.start_command(sys.executable, ["-c", code])
        for _ in range(3):
            await player.write(b"\x01\x00" * 100)
        await player.finish()
        await player.stop()

    asyncio.run(play())
    assert heard.read_bytes() == b"\x01\x00" * 300


def test_player_that_dies_is_reported() -> None:
    async def play() -> None:
        player = await Player.start_command(sys.executable, ["-c", "raise SystemExit(1)"])
        try:
            for _ in range(10_000):
                await player.write(b"\x00" * 65536)
        finally:
            await player.stop()

    with pytest.raises(SpeechError, match="ended while audio was coming"):
        asyncio.run(play())
