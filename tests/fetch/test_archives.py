"""What an archive may hold, and that one which may not be unpacked leaves nothing behind."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ttsfleet_runtime.fetch.archive import unpack
from ttsfleet_runtime.fetch.config import Limits
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.manifest import hash_tree
from ttsfleet_runtime.fetch.progress import LogProgress


@dataclass
class Archive:
    """Entries in order: path, content or link target, kind."""

    entries: list[tuple[str, str, str]] = field(default_factory=list)

    def file(self, path: str, content: str = "x") -> Archive:
        return Archive([*self.entries, (path, content, "file")])

    def folder(self, path: str) -> Archive:
        return Archive([*self.entries, (path, "", "folder")])

    def link(self, path: str, target: str, kind: str = "symbolic") -> Archive:
        return Archive([*self.entries, (path, target, kind)])

    def tar(self, mode: str = "w") -> bytes:
        kinds = {
            "file": tarfile.REGTYPE,
            "folder": tarfile.DIRTYPE,
            "symbolic": tarfile.SYMTYPE,
            "hard": tarfile.LNKTYPE,
            "device": tarfile.CHRTYPE,
            "fifo": tarfile.FIFOTYPE,
        }
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
            for path, content, kind in self.entries:
                info = tarfile.TarInfo(path)
                info.type = kinds[kind]
                info.linkname = content if kind in ("symbolic", "hard") else ""
                info.size = len(content) if kind == "file" else 0
                archive.addfile(info, io.BytesIO(content.encode()))
        return buffer.getvalue()

    def zip(self) -> bytes:
        kinds = {"file": stat.S_IFREG, "folder": stat.S_IFDIR, "symbolic": stat.S_IFLNK, "fifo": stat.S_IFIFO}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content, kind in self.entries:
                info = zipfile.ZipInfo(path)
                info.external_attr = (kinds[kind] | 0o644) << 16
                archive.writestr(info, content)
        return buffer.getvalue()


FORMATS: list[Callable[[Archive], bytes]] = [
    lambda archive: archive.tar(),
    lambda archive: archive.tar("w:gz"),
    lambda archive: archive.zip(),
]
in_each_format = pytest.mark.parametrize("pack", FORMATS, ids=["tar", "tar.gz", "zip"])


def unpacked(content: bytes, folder: Path, limits: Limits | None = None) -> dict[str, str]:
    (folder / "archive").write_bytes(content)
    root = folder / "model"
    root.mkdir()
    files = unpack(folder / "archive", root, "sha256:tag", limits or Limits(), LogProgress())
    on_disk = {(file.path, file.sha256, file.size) for file in hash_tree(root)}
    assert {(file.path, file.sha256, file.size) for file in files} == on_disk
    assert not [path for path in root.rglob("*") if path.is_symlink()]
    return {file.path: (root / file.path).read_text() for file in files}


@in_each_format
@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        pytest.param(Archive().file("a", "1").file("b/c", "2"), {"a": "1", "b/c": "2"}, id="files as they are"),
        pytest.param(
            Archive().folder("top/").file("top/a", "1").file("top/b/c", "2"),
            {"a": "1", "b/c": "2"},
            id="a folder around everything",
        ),
        pytest.param(Archive().folder("./").file("./top/a", "1"), {"a": "1"}, id="a dot before everything"),
        pytest.param(
            Archive().file("top/a", "1").file(".hidden/b").file("top/.c").file("__MACOSX/top/._a"),
            {"a": "1"},
            id="hidden files are left out",
        ),
        pytest.param(
            Archive().file("top/a", "1").link("top/s/b", "../a").link("top/c", "s/b"),
            {"a": "1", "s/b": "1", "c": "1"},
            id="links become what they lead to",
        ),
    ],
)
def test_archive_gives_its_files(pack: Any, archive: Archive, expected: dict[str, str], tmp_path: Path) -> None:
    assert unpacked(pack(archive), tmp_path) == expected


def test_hard_links_of_a_tar_become_files(tmp_path: Path) -> None:
    content = Archive().file("top/a", "1").link("top/b/c", "top/a", "hard").tar()
    assert unpacked(content, tmp_path) == {"a": "1", "b/c": "1"}


@in_each_format
@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(Archive().file("a").file("/etc/passwd"), id="an absolute path"),
        pytest.param(Archive().file("a").file("../b"), id="a path that leaves"),
        pytest.param(Archive().file("a").file("b/../../c"), id="a path that leaves in the middle"),
        pytest.param(Archive().file("a").folder("../b/"), id="a folder that leaves"),
        pytest.param(Archive().file("a").file("..\\b"), id="a path of another system"),
        pytest.param(Archive().file("a").file("b\nc"), id="a line break in a name"),
        pytest.param(Archive().file("a").link("b", "/etc/passwd"), id="a link to an absolute path"),
        pytest.param(Archive().file("a").link("b", "../../etc/passwd"), id="a link that leaves"),
        pytest.param(Archive().file("a").link("b", "c"), id="a link to nothing"),
        pytest.param(Archive().file("a/x").link("b", "a"), id="a link to a folder"),
        pytest.param(Archive().file("a").link("b", "c").link("c", "b"), id="links in a circle"),
        pytest.param(Archive().link("b", "c").file("b/x"), id="a file behind a link"),
        pytest.param(Archive().file("a").file("a/b"), id="a file that is a folder"),
        pytest.param(Archive().file("a").file("./a"), id="one path twice"),
        pytest.param(Archive().file("a").link("b", "", "fifo"), id="a pipe"),
    ],
)
def test_archive_that_is_refused_is_not_begun(pack: Any, archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught:
        unpacked(pack(archive), tmp_path)
    assert caught.value.failure is Failure.UNSAFE_CONTENT
    assert list((tmp_path / "model").iterdir()) == []


def test_device_of_a_tar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="neither a file"):
        unpacked(Archive().file("a").link("null", "", "device").tar(), tmp_path)


@in_each_format
def test_archive_with_more_bytes_or_files_than_accepted_is_refused(pack: Any, tmp_path: Path) -> None:
    archive = Archive().file("a", "0" * 1_000_000).file("b", "")
    for number, limits in enumerate((Limits(max_bytes=999_999), Limits(max_files=1))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(FetchError, match="accepted"):
            unpacked(pack(archive), folder, limits)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"<html>not found</html>", id="a page"),
        pytest.param(Archive().file("a", "x" * 2000).tar("w:gz")[:60], id="a gzip file that was cut off"),
        pytest.param(b"\x1f\x8bnonsense and more of it", id="what only begins like gzip"),
        pytest.param(Archive().file("a").zip()[:-10], id="a zip file that was cut off"),
        pytest.param(Archive().file("a", "x" * 2000).tar()[:1500], id="a tar file that was cut off"),
        pytest.param(Archive().tar(), id="an empty archive"),
    ],
)
def test_what_is_no_archive_is_the_specs_fault(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught:
        unpacked(content, tmp_path)
    assert caught.value.failure is Failure.INVALID_SOURCE
