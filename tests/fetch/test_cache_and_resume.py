"""One volume, many starts: what was fetched and verified is not fetched again, whatever ended the process before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ttsfleet_runtime.fetch.failures import Failure, FetchError

LARGE = "llm.pt"


def leftovers(program: Any) -> set[str]:
    return {path.name for path in program.model_dir.parent.iterdir()} - {program.model_dir.name}


def test_model_is_in_place_and_its_digest_is_the_termination_message(
    hub: Any, program: Any, model: Any, model_digest: Any
) -> None:
    result = program.run(hub.source)
    assert (result.code, result.message) == (0, f"sha256:{model_digest}"), result.log
    assert result.output == f"sha256:{model_digest}\n"
    assert program.files == model
    assert leftovers(program) == {f".{program.model_dir.name}.lock"}


def test_second_start_asks_nobody(hub: Any, program: Any, model_digest: Any) -> None:
    program.fetch(hub.source)
    hub.origin.seen.clear()
    result = program.run(hub.source)
    assert (result.code, result.message) == (0, f"sha256:{model_digest}")
    assert hub.origin.seen == []


def test_start_with_the_model_in_place_loads_no_http_and_no_torch(hub: Any, program: Any) -> None:
    program.fetch(hub.source)
    command = program.command(program.write(hub.source))
    command[1:3] = ["-X", "importtime", *command[1:3]]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {
        line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time")
    }
    assert "ttsfleet_runtime.fetch.pipeline" in loaded
    assert not loaded & {"httpx", "botocore", "rich", "torch", "numpy", "pydantic"}


def test_killed_in_the_middle_the_next_start_fetches_only_the_rest(
    hub: Any, program: Any, model: Any, model_digest: Any
) -> None:
    route, size = hub.route(LARGE), len(model[LARGE])
    hub.origin.replies[route] = [hub.origin.stop_at(size // 2)]
    process = program.start(hub.source)
    assert hub.origin.holding.wait(30)
    program.wait_for_part(size // 2)
    process.kill()
    process.communicate()
    assert not program.model_dir.exists()
    before = {seen.path for seen in hub.origin.seen}
    hub.origin.seen.clear()
    hub.origin.sent.clear()
    result = program.run(hub.source)
    assert (result.code, result.message) == (0, f"sha256:{model_digest}"), result.log
    assert hub.origin.sent[route] == size - size // 2
    assert hub.origin.requests_of(route)[0].headers["range"] == f"bytes={size // 2}-"
    again = {seen.path for seen in hub.origin.seen} & before
    assert again == {f"/api/models/{hub.repo}/revision/main?blobs=true", route}
    assert program.files == model


def test_sigterm_ends_at_once_and_leaves_what_was_fetched(hub: Any, program: Any, model: Any) -> None:
    size = len(model[LARGE])
    hub.origin.replies[hub.route(LARGE)] = [hub.origin.stop_at(size // 2)]
    process = program.start(hub.source, "--stall-seconds", "50")
    assert hub.origin.holding.wait(30)
    program.wait_for_part(size // 2)
    process.send_signal(signal.SIGTERM)
    assert program.finish(process).code == 143
    assert program.part_sizes() == [size // 2]
    assert program.run(hub.source).code == 0


def test_two_at_once_fetch_it_once(hub: Any, program: Any, model: Any, model_digest: Any) -> None:
    size = len(model[LARGE])

    def slowly(handler: Any) -> None:
        hub.origin.holding.set()
        assert hub.origin.released.wait(30)
        handler.serve()

    hub.origin.replies[hub.route(LARGE)] = [slowly]
    first = program.start(hub.source)
    assert hub.origin.holding.wait(30)
    second = program.start(hub.source)
    assert second.stderr is not None
    assert "another process fetches" in second.stderr.readline()
    hub.origin.released.set()
    results = [program.finish(process) for process in (first, second)]
    assert [(result.code, result.output) for result in results] == [(0, f"sha256:{model_digest}\n")] * 2
    assert hub.origin.sent[hub.route(LARGE)] == size


def test_lock_of_one_that_does_not_finish_is_waited_for_only_so_long(hub: Any, program: Any, model: Any) -> None:
    hub.origin.replies[hub.route(LARGE)] = [hub.origin.stop_at(0)]
    first = program.start(hub.source, "--stall-seconds", "50")
    assert hub.origin.holding.wait(30)
    result = program.run(hub.source, "--lock-seconds", "0.2")
    assert result.code == Failure.LOCK_TIMEOUT
    assert result.message == "another process holds the lock of the model's directory and does not finish"
    first.kill()
    first.communicate()
    assert program.run(hub.source).code == 0


def test_connection_that_breaks_is_resumed_within_one_start(hub: Any, program: Any, model: Any) -> None:
    route, size = hub.route(LARGE), len(model[LARGE])
    hub.origin.replies[route] = [
        lambda handler: handler.serve(until=size // 4),
        lambda handler: handler.serve(until=size // 2),
    ]
    program.fetch(hub.source)
    assert hub.origin.sent[route] == size
    assert program.files == model


def test_server_without_ranges_sends_it_again_in_whole(hub: Any, program: Any, model: Any) -> None:
    route, size = hub.route(LARGE), len(model[LARGE])
    hub.origin.replies[route] = [
        lambda handler: handler.serve(until=size // 4),
        lambda handler: handler.serve(ranges=False),
    ]
    program.fetch(hub.source)
    assert hub.origin.sent[route] == size + size // 4
    assert program.files == model


def test_pieces_of_two_contents_are_noticed_and_fetched_in_whole(hub: Any, program: Any, model: Any) -> None:
    route, size = hub.route(LARGE), len(model[LARGE])
    right, wrong = model[LARGE], bytes(size)

    def of_another(handler: Any) -> None:
        hub.origin.files[route] = wrong
        handler.serve(until=size // 2)
        hub.origin.files[route] = right

    hub.origin.replies[route] = [of_another]
    program.fetch(hub.source)
    assert program.files == model
    assert hub.origin.sent[route] == 2 * size


def test_wrong_content_in_pieces_is_given_up_after_one_more_try(hub: Any, program: Any, model: Any) -> None:
    route, size = hub.route(LARGE), len(model[LARGE])
    hub.origin.files[route] = bytes(size)
    hub.origin.replies[route] = [lambda handler: handler.serve(until=size // 2), lambda handler: handler.serve()] * 9
    with pytest.raises(FetchError) as caught:
        program.fetch(hub.source)
    assert caught.value.failure is Failure.CHECKSUM_MISMATCH
    assert hub.origin.sent[route] == 2 * size


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(
            lambda path: path.write_bytes(b"x" * path.stat().st_size), id="another content of the same size"
        ),
        pytest.param(lambda path: path.write_bytes(b""), id="emptied"),
        pytest.param(lambda path: path.unlink(), id="deleted"),
    ],
)
def test_damaged_file_alone_is_fetched_again(damage: Any, hub: Any, program: Any, model: Any) -> None:
    program.fetch(hub.source)
    damage(program.model_dir / "styles/news/llm.pt")
    hub.origin.sent.clear()
    program.fetch(hub.source)
    assert program.files == model
    assert dict(hub.origin.sent) == {
        hub.route("styles/news/llm.pt"): len(model["styles/news/llm.pt"]),
        f"/api/models/{hub.repo}/revision/main": hub.origin.sent[f"/api/models/{hub.repo}/revision/main"],
    }
    assert leftovers(program) == {f".{program.model_dir.name}.lock"}


def test_damage_that_keeps_size_and_time_is_found_with_a_pin(
    hub: Any, program: Any, model: Any, model_digest: Any
) -> None:
    program.fetch(hub.source)
    path = program.model_dir / LARGE
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert program.fetch(hub.source) == model_digest
    assert program.files != model
    assert program.fetch(hub.source, manifest_sha256=model_digest) == model_digest
    assert program.files == model


def test_foreign_file_in_the_directory_goes(hub: Any, program: Any, model: Any) -> None:
    program.fetch(hub.source)
    (program.model_dir / "styles" / "extra.pt").write_bytes(b"who put this here?")
    hub.origin.sent.clear()
    program.fetch(hub.source)
    assert program.files == model
    assert set(hub.origin.sent) == {f"/api/models/{hub.repo}/revision/main"}


def test_copy_of_the_volume_is_read_once_and_then_known(hub: Any, program: Any, model_digest: Any) -> None:
    program.fetch(hub.source)
    for path in program.model_dir.rglob("*.pt"):
        os.utime(path, ns=(1, 1))
    hub.origin.seen.clear()
    assert program.fetch(hub.source) == model_digest
    assert hub.origin.seen == []
    noted = json.loads((program.model_dir / ".ttsfleet-model.json").read_text())
    assert {file["mtime_ns"] for file in noted["files"] if file["path"].endswith(".pt")} == {1}


def test_what_a_process_left_behind_its_last_rename_goes(hub: Any, program: Any) -> None:
    program.fetch(hub.source)
    for end in ("partial", "old"):
        left = program.model_dir.with_name(f".{program.model_dir.name}.{end}") / "model"
        left.mkdir(parents=True)
        (left / "llm.pt").write_bytes(b"x")
    program.fetch(hub.source)
    assert leftovers(program) == {f".{program.model_dir.name}.lock"}


def test_pin_that_differs_is_refused_and_fetches_nothing_again(hub: Any, program: Any, model: Any) -> None:
    program.fetch(hub.source)
    hub.origin.sent.clear()
    with pytest.raises(FetchError, match="as manifest_sha256 asks") as caught:
        program.fetch(hub.source, manifest_sha256="0" * 64)
    assert caught.value.failure is Failure.CHECKSUM_MISMATCH
    assert program.files == model
    assert set(hub.origin.sent) == {f"/api/models/{hub.repo}/revision/main"}


def test_branch_that_moved_is_fetched_when_the_pin_says_so(hub: Any, program: Any, model: Any) -> None:
    program.fetch(hub.source)
    hub.files["styles/news/llm.pt"] = b"evening" * 1000
    hub.publish()
    hub.origin.sent.clear()
    pin = digest_of(model | {"styles/news/llm.pt": b"evening" * 1000})
    assert program.fetch(hub.source, manifest_sha256=pin) == pin
    assert program.files["styles/news/llm.pt"] == b"evening" * 1000
    assert hub.origin.sent[hub.route(LARGE)] == 0


def test_pin_of_a_first_fetch_that_differs_publishes_nothing(hub: Any, program: Any, model_digest: Any) -> None:
    result = program.run(hub.source, manifest_sha256="0" * 64)
    assert result.code == Failure.CHECKSUM_MISMATCH
    assert not program.model_dir.exists()
    hub.origin.sent.clear()
    assert program.run(hub.source, manifest_sha256=model_digest).code == 0
    assert hub.origin.sent[hub.route(LARGE)] == 0


@pytest.mark.parametrize("what", ["a directory that somebody filled", "the model of another source"])
def test_directory_that_is_not_of_this_fetch_is_left_alone(what: Any, hub: Any, program: Any) -> None:
    if what == "the model of another source":
        program.fetch(hub.source)
    else:
        program.model_dir.mkdir(parents=True)
        (program.model_dir / "llm.pt").write_bytes(b"mine")
    before = program.files
    with pytest.raises(FetchError, match="another model_dir") as caught:
        program.fetch(hub.source | {"repo": "owner/other"})
    assert caught.value.failure is Failure.INVALID_SOURCE
    assert program.files == before


def test_full_disk_is_told_and_heals(hub: Any, program: Any, model: Any, small_disk: Path) -> None:
    program.model_dir = small_disk / "voice-1"
    blocker = small_disk / "blocker"
    blocker.write_bytes(bytes(3_300_000))
    result = program.run(hub.source)
    assert (result.code, result.message) == (Failure.NO_SPACE, "the model's volume is full")
    assert hub.origin.sent[hub.route(LARGE)] == 0  # seen ahead by the sizes in the list
    blocker.unlink()
    assert program.run(hub.source).code == 0
    assert program.files == model


def test_disk_that_fills_up_meanwhile_is_told_and_heals(hub: Any, program: Any, model: Any, small_disk: Path) -> None:
    program.model_dir = small_disk / "voice-1"
    blocker = small_disk / "blocker"
    route = hub.route(LARGE)

    def fill(handler: Any) -> None:
        with contextlib.suppress(OSError), blocker.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        handler.serve()

    hub.origin.replies[route] = [fill]
    assert program.run(hub.source).code == Failure.NO_SPACE
    blocker.unlink()
    assert program.run(hub.source).code == 0
    assert program.files == model


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 4 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root; run it as root")
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "ttsfleet-test", str(place)], capture_output=True)
    if made.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here ({made.stderr.decode().strip()}); run it where mounts are allowed")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def digest_of(files: dict[str, bytes]) -> str:
    lines = [f"{hashlib.sha256(data).hexdigest()} {len(data)} {path}\n" for path, data in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
