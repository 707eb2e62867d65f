"""The parts of the nodes that need neither root nor a cluster."""

from __future__ import annotations

import ipaddress
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from control_plane import binaries, flags
from real_nodes import cgroups, layout, requirements
from real_nodes.images import write_archive
from real_nodes.layout import Place, places
from real_nodes.lock import ClusterRunning, Lock

ALL = places(layout.MAX_NODES)
LONGEST_LINK_NAME = 15


def test_no_two_nodes_share_a_name_an_address_or_a_group() -> None:
    for share in (lambda one: one.name, lambda one: one.address, lambda one: one.pods, lambda one: one.cgroup):
        assert len({share(place) for place in ALL}) == len(ALL)
    assert all(len(place.name) <= LONGEST_LINK_NAME for place in ALL)
    assert len(layout.HOST_LINK) <= LONGEST_LINK_NAME


def test_zones_take_turns() -> None:
    assert [place.zone for place in places(3)] == ["zone-a", "zone-b", "zone-a"]


@pytest.mark.parametrize("place", ALL, ids=lambda place: place.name)
def test_pods_are_in_the_range_of_pods_and_nodes_are_not(place: Place) -> None:
    pods, cluster = ipaddress.ip_network(layout.POD_RANGE), ipaddress.ip_network(layout.CLUSTER_RANGE)
    own = ipaddress.ip_network(place.pods)
    assert own.subnet_of(pods)
    assert own.subnet_of(cluster)
    for address in (place.address, layout.HOST_ADDRESS, flags.NODE_ADDRESS):
        assert ipaddress.ip_address(address) in cluster
        assert ipaddress.ip_address(address) not in pods


def test_services_are_in_the_cluster_and_apart_from_pods() -> None:
    services = ipaddress.ip_network(layout.SERVICE_RANGE)
    assert services.subnet_of(ipaddress.ip_network(layout.CLUSTER_RANGE))
    assert not services.overlaps(ipaddress.ip_network(layout.POD_RANGE))
    assert all(ipaddress.ip_address(one) in services for one in (layout.DNS_ADDRESS, flags.API_SERVICE_ADDRESS))


def test_the_same_files_give_the_same_image(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"program")
    archives = [write_archive(tmp_path / f"{n}.tar", "localhost/x:1", {"x": program}, ["/x"]) for n in range(2)]
    assert archives[0].read_bytes() == archives[1].read_bytes()


def test_an_image_is_an_oci_layout_with_its_name(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"program")
    with tarfile.open(write_archive(tmp_path / "x.tar", "localhost/x:1", {"x": program}, ["/x", "serve"])) as archive:

        def read(name: str) -> dict[str, Any]:
            file = archive.extractfile(name)
            assert file
            content: dict[str, Any] = json.load(file)
            return content

        assert read("oci-layout") == {"imageLayoutVersion": "1.0.0"}
        entry = read("index.json")["manifests"][0]
        assert entry["annotations"] == {"io.containerd.image.name": "localhost/x:1"}
        manifest = read(f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}")
        config = read(f"blobs/sha256/{manifest['config']['digest'].removeprefix('sha256:')}")
        assert config["config"]["Entrypoint"] == ["/x", "serve"]
        assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]


def test_a_lock_names_its_holder_and_is_gone_when_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = Lock(path), Lock(path)
    first.acquire()
    with pytest.raises(ClusterRunning, match=f"process {os.getpid()} has a cluster"):
        second.acquire()
    first.release()
    first.release()
    assert not path.exists()
    second.acquire()
    second.release()


def test_a_lock_that_a_killed_process_left_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("1234567\n")
    lock = Lock(path)
    lock.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        requirements, "PACKAGES", {"no-such-command": "its-package", "/no/such/file": "other-package"}
    )
    assert requirements.missing_packages() == ["its-package", "other-package"]
    expected = "not installed: its-package, other-package; install with `make node-packages` or your package manager"
    assert expected in requirements.obstacles()


MOUNTS = """\
overlay / overlay rw 0 0
proc /proc proc rw 0 0
/dev/sda /var/lib ext4 rw 0 0
tmpfs /var/lib/in-memory ext4 rw 0 0
tmpfs /var/lib/in-memory tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/srv/nodes", "overlay", id="the root"),
        pytest.param("/var/lib/nodes", "ext4", id="a disk below it"),
        pytest.param("/var/library", "overlay", id="a name that begins alike"),
        pytest.param("/var/lib/in-memory/nodes", "tmpfs", id="the later of two at one place"),
    ],
)
def test_the_file_system_of_a_folder_is_found(path: str, expected: str) -> None:
    assert requirements.file_system_of(Path(path), MOUNTS) == expected


def test_with_version_2_a_group_hands_its_controllers_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "ttsfleet-e2e-a"
    group.mkdir()
    for folder in (tmp_path, group):
        (folder / "cgroup.controllers").write_text("cpuset cpu memory pids rdma\n")
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    assert cgroups.version() == 2
    cgroups.create(group.name)
    for folder in (tmp_path, group):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpuset +cpu +memory +pids"


def test_every_group_of_binaries_can_be_built() -> None:
    known = {binary.name for binary in binaries.BINARIES} | {binaries.STAGES}
    assert {name for group in binaries.GROUPS.values() for name in group} == known


@pytest.mark.parametrize("binary", binaries.BINARIES, ids=lambda binary: binary.name)
def test_a_binary_has_a_pinned_version(binary: binaries.Binary) -> None:
    assert binary.version().startswith("v")
