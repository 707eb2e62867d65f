"""Run directories: removed at the end, and by the next router when theirs was killed."""

import subprocess
import sys
from pathlib import Path

from ttsfleet_runtime.router.run_dir import remove_abandoned, run_directory

_HOLD_AND_DIE = """
import os, sys
from pathlib import Path
from ttsfleet_runtime.router.run_dir import run_directory
with run_directory(Path(sys.argv[1])) as directory:
    print(directory, flush=True)
    os._exit(9)
"""


def test_a_run_directory_is_gone_after_its_router(tmp_path: Path) -> None:
    with run_directory(tmp_path) as directory:
        (directory / "file").write_text("x")
        assert directory.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_router_left_is_removed_by_the_next(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _HOLD_AND_DIE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    left = Path(result.stdout.strip())
    assert left.is_dir()
    with run_directory(tmp_path) as directory:
        assert not left.exists()
        assert directory.is_dir()


def test_the_directory_of_a_living_router_is_left_alone(tmp_path: Path) -> None:
    with run_directory(tmp_path) as directory:
        assert remove_abandoned(tmp_path) == []
        assert directory.is_dir()


def test_directories_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ttsfleet-notes").mkdir()
    assert remove_abandoned(tmp_path) == []
