"""What the Dockerfiles promise: read as a builder reads them, without building."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from ttsfleet_operator.engine_config import API_PORT, MANAGEMENT_PORT
from ttsfleet_operator.operator_settings import read_settings
from ttsfleet_operator.pod_layout import USER_ID

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "ttsfleet"
LABELS = {"title", "description", "licenses", "version", "revision", "base.name"}
HOST = re.compile(r"\b[a-z][a-z0-9+.-]*://([^\s/'\":]+)")


@dataclass(frozen=True)
class Instruction:
    word: str
    text: str


@dataclass(frozen=True)
class Dockerfile:
    """The instructions of a file with continued lines joined, and of its last stage."""

    name: str
    instructions: tuple[Instruction, ...]

    def of(self, word: str) -> list[str]:
        return [one.text for one in self.instructions if one.word == word]

    def final(self, word: str) -> list[str]:
        last = max(index for index, one in enumerate(self.instructions) if one.word == "FROM")
        return [one.text for one in self.instructions[last:] if one.word == word]

    def commands(self) -> Iterator[str]:
        """Each shell command of the RUN instructions."""
        for text in self.of("RUN"):
            yield from (command.strip() for command in re.split(r"&&|;|\bthen\b|\belse\b", text))


def read(name: str) -> Dockerfile:
    lines = [line for line in (ROOT / name).read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return Dockerfile(name, tuple(Instruction(*line.split(maxsplit=1)) for line in joined))


@pytest.fixture(params=["Dockerfile.operator", "Dockerfile.runtime"])
def dockerfile(request: pytest.FixtureRequest) -> Dockerfile:
    return read(request.param)


def test_user_is_a_number_that_is_not_root_and_the_last_word(dockerfile: Dockerfile) -> None:
    (user,) = dockerfile.final("USER")
    uid, gid = user.split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    order = [one.word for one in dockerfile.instructions]
    assert {"RUN", "COPY"} & set(order[order.index("USER") :]) == set()


def test_users_are_those_of_the_pods() -> None:
    security = re.search(r"runAsUser: (\d+)\n\s+runAsGroup: (\d+)", (CHART / "templates/deployment.yaml").read_text())
    assert security is not None
    assert read("Dockerfile.operator").final("USER") == [f"{security[1]}:{security[2]}"]
    assert read("Dockerfile.runtime").final("USER") == [f"{USER_ID}:{USER_ID}"]


def test_ports_are_those_that_the_programs_listen_on() -> None:
    settings = read_settings({"POD_NAME": "a"})
    assert read("Dockerfile.operator").final("EXPOSE") == [f"{settings.metrics.port} {settings.health.port}"]
    assert read("Dockerfile.runtime").final("EXPOSE") == [f"{API_PORT} {MANAGEMENT_PORT}"]


def test_commands_of_a_container_are_lists_so_that_signals_reach_the_program(dockerfile: Dockerfile) -> None:
    (entrypoint,) = dockerfile.final("ENTRYPOINT")
    health = dockerfile.final("HEALTHCHECK")[0].partition("CMD")[2]
    for text in (entrypoint, health, *dockerfile.final("CMD")):
        words = json.loads(text)
        assert isinstance(words, list)
        assert all(isinstance(word, str) for word in words)


def test_entrypoint_is_a_program_of_the_distribution(dockerfile: Dockerfile) -> None:
    folder = dockerfile.name.removeprefix("Dockerfile.")
    scripts = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(dockerfile.final("ENTRYPOINT")[0])[0] in scripts


def test_version_is_the_release(dockerfile: Dockerfile) -> None:
    folder = dockerfile.name.removeprefix("Dockerfile.")
    release = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]["version"]
    assert f"VERSION={release}" in dockerfile.final("ARG")
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == release


def test_every_stage_begins_with_the_one_base_that_an_argument_names(dockerfile: Dockerfile) -> None:
    (default,) = [text for text in dockerfile.of("ARG") if text.startswith("PYTHON_IMAGE=")]
    assert dockerfile.instructions[0] == Instruction("ARG", default)
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+-slim-[a-z]+", default)
    stages = {"${PYTHON_IMAGE}"}
    for text in dockerfile.of("FROM"):
        image, _, name = text.partition(" AS ")
        assert image in stages
        stages.add(name)


def test_packages_come_from_lock_files_with_hashes_or_are_our_own(dockerfile: Dockerfile) -> None:
    calls = re.compile(r"(pip(?: --python \S+)? install\b|^install\b)(?P<options>.*)")
    installs = [match["options"] for command in dockerfile.commands() if (match := calls.search(command))]
    assert len(installs) >= 3
    for options in installs:
        ours = options.endswith(("--no-deps wheels/*.whl", "--prefix /opt/ours wheels/*.whl"))
        locked = "--require-hashes" in options and "--requirement" in options
        function = options.endswith('"$@"')
        cpu_build = options.split() == ["--index-url", '"$TORCH_INDEX"', '"torch==$torch+cpu"']
        assert ours or locked or function or cpu_build, options
    locks = re.findall(r"--requirement (?:requirements|\$locks)/(\S+?)[; ]", " ".join(dockerfile.of("RUN")) + " ")
    assert {"image.txt", f"{dockerfile.name.removeprefix('Dockerfile.')}.txt"} <= set(locks)
    for lock in locks:
        assert (ROOT / "requirements" / lock).read_text().startswith("# Written by `make lock`")


def test_nothing_is_added_from_elsewhere(dockerfile: Dockerfile) -> None:
    assert dockerfile.of("ADD") == []
    text = " ".join(one.text for one in dockerfile.instructions)
    assert ":latest" not in text
    assert set(HOST.findall(text)) <= {"127.0.0.1"}
    assert not re.search(r"\b(curl|wget|git clone)\b", text)


def test_no_argument_or_variable_asks_for_a_secret(dockerfile: Dockerfile) -> None:
    text = " ".join([*dockerfile.of("ARG"), *dockerfile.of("ENV")])
    assert not re.search(r"TOKEN|PASSWORD|SECRET|KEY", text)


def test_image_says_what_it_is(dockerfile: Dockerfile) -> None:
    (labels,) = dockerfile.final("LABEL")
    assert set(re.findall(r"org\.opencontainers\.image\.([\w.]+)=", labels)) == LABELS
    assert {"PYTHON_IMAGE", "REVISION=\"\""} <= set(dockerfile.final("ARG"))  # fmt: skip


def test_no_build_tool_stays(dockerfile: Dockerfile) -> None:
    kept = [text for text in dockerfile.final("COPY") if text.startswith("--from=")]
    assert {text.split()[1] for text in kept} <= {"/opt/ttsfleet", "/opt/ours"}
    assert any("pip uninstall --yes --quiet setuptools wheel pip" in text for text in dockerfile.final("RUN"))
    assert "python -m venv --without-pip /opt/ttsfleet" in " ".join(dockerfile.of("RUN"))
    compilers = [command for command in dockerfile.commands() if "apt-get install" in command]
    assert len(compilers) == (1 if dockerfile.name == "Dockerfile.runtime" else 0)
    assert all('[ "$VARIANT" = cuda ]' in text for text in dockerfile.of("RUN") if "apt-get" in text)


def test_list_of_contents_names_the_system_too(dockerfile: Dockerfile) -> None:
    written = [command for command in dockerfile.commands() if "sbom.cdx.json" in command]
    assert ["cyclonedx-py" in command for command in written] == [True, False]
    assert written[1].startswith("python tools/system_components.py ")


def test_context_holds_what_is_copied_and_little_else(dockerfile: Dockerfile) -> None:
    first, *others = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert first == "*"
    admitted = [line.removeprefix("!") for line in others if line.startswith("!")]
    for text in dockerfile.of("COPY"):
        if not text.startswith("--from="):
            for source in text.split()[:-1]:
                assert (ROOT / source).exists()
                assert any(fnmatch(source, pattern) or source.startswith(f"{pattern}/") for pattern in admitted), (
                    source
                )
