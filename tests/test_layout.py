"""The tree keeps the rules that tools and interpreters depend on, and stays small and portable."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = ("operator", "runtime", "kernels")
MAX_TREE_BYTES = 44 * 2**20
MAX_FILE_BYTES = 20 * 2**20
MAX_GOLDENS_BYTES = 14 * 2**20
UNCLEAR_NAMES = {"utils", "common", "helper", "helpers", "misc"}
REGISTRY_HOSTS = ("pypi" + ".org", "pythonhosted" + ".org", "registry.npmjs" + ".org", "crates" + ".io")
MACHINE_PATH = re.compile("(?<![\\w.$~}])/(?:" + "|".join(("wo" + "rk", "ro" + "ot", "ho" + "me")) + r")/[\w.]")


def tracked_files() -> list[Path]:
    """Files of the tree as committed or about to be: tracked ones that exist."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout: what is tracked cannot be told")
    return tracked_files()


def texts(paths: list[Path]) -> list[tuple[Path, str]]:
    found = []
    for path in paths:
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            found.append((path.relative_to(ROOT), content.decode(errors="replace")))
    return found


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_no_module_lies_directly_in_a_distribution_folder(folder: str) -> None:
    assert sorted((ROOT / folder).glob("*.py")) == []


def test_standard_operator_module_is_not_shadowed() -> None:
    code = "import operator, sys; print(operator.__file__)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not Path(answer.stdout.strip()).is_relative_to(ROOT)


def test_tests_are_no_packages(tracked: list[Path]) -> None:
    packages = [path for path in tracked if path.name == "__init__.py" and path.is_relative_to(ROOT / "tests")]
    assert packages == []


def test_tests_lie_outside_of_the_distributions(tracked: list[Path]) -> None:
    inside = [
        path for path in tracked if path.name.startswith("test_") and path.relative_to(ROOT).parts[0] != "tests"
    ]
    assert [path for path in inside if path.suffix == ".py" and path.relative_to(ROOT).parts[0] != "e2e"] == []


def test_no_module_is_named_like_a_standard_one_or_says_nothing(tracked: list[Path]) -> None:
    modules = [
        path
        for path in tracked
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in DISTRIBUTIONS and path.stem != "__main__"
    ]
    bad = [path for path in modules if path.stem in sys.stdlib_module_names - {"__init__"}]
    bad += [path for path in modules if {path.stem, path.parent.name} & UNCLEAR_NAMES]
    assert bad == []


def test_tracked_tree_stays_small(tracked: list[Path]) -> None:
    sizes = {path.relative_to(ROOT): path.stat().st_size for path in tracked}
    assert sum(sizes.values()) < MAX_TREE_BYTES
    assert [path for path, size in sizes.items() if size > MAX_FILE_BYTES] == []


def test_golden_cases_stay_small(tracked: list[Path]) -> None:
    goldens = [path for path in tracked if path.is_relative_to(ROOT / "tests" / "goldens")]
    assert sum(path.stat().st_size for path in goldens) <= MAX_GOLDENS_BYTES


def test_no_file_names_a_package_registry(tracked: list[Path]) -> None:
    assert [(str(path), host) for path, text in texts(tracked) for host in REGISTRY_HOSTS if host in text] == []


def test_no_file_holds_a_path_of_one_machine(tracked: list[Path]) -> None:
    found = [(str(path), match[0]) for path, text in texts(tracked) if (match := MACHINE_PATH.search(text))]
    assert found == []


def test_every_locked_package_carries_a_hash() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        entries = re.split(r"\n(?=[A-Za-z0-9])", path.read_text())
        unhashed = [entry.splitlines()[0] for entry in entries if "==" in entry and "--hash=sha256:" not in entry]
        assert unhashed == [], path.name


def test_smaller_locks_are_contained_in_the_developers_lock() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[A-Za-z0-9_.-]+==\S+", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    assert pins("run.txt") <= pins("dev.txt")
    assert "torch==2.11.0" in pins("run.txt")
    assert "triton==3.6.0" in pins("run.txt")
