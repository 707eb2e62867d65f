"""The API key as a file that is rotated while the server runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ttsfleet_runtime.errors import ConfigError
from ttsfleet_runtime.server.key_file import KeyFile


def write(path: Path, text: str) -> None:
    """As a mounted Secret changes: by a rename."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


@pytest.mark.parametrize("text", ["\n", "schlüssel", "two\nlines"], ids=["empty", "not ASCII", "two lines"])
def test_a_key_that_no_client_could_send_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    write(path, text)
    with pytest.raises(ConfigError, match="one line of printable ASCII"):
        KeyFile(path)


def test_a_rotated_key_acts_without_a_restart(tmp_path: Path, start_server: Any) -> None:
    path = tmp_path / "key"
    write(path, "  sk-1\n")
    with start_server(api_key=KeyFile(path).current).http() as client:

        def status(key: str) -> int:
            return int(client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code)

        assert (status("sk-1"), status("sk-2")) == (200, 401)
        write(path, "sk-2")
        assert (status("sk-1"), status("sk-2")) == (401, 200)


def test_a_file_that_is_gone_or_empty_keeps_the_last_key_and_lets_nobody_else_in(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write(path, "sk-1")
    file = KeyFile(path)
    write(path, "\n")
    assert file.current() == "sk-1"
    path.unlink()
    assert file.current() == "sk-1"
    write(path, "sk-2")
    assert file.current() == "sk-2"
