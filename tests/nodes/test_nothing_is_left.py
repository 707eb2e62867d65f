"""The machine after a cluster is as it was before, however the cluster ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from control_plane import scratch
from control_plane.errors import CommandFailed
from control_plane.waiting import eventually
from real_nodes import cgroups, leftovers
from real_nodes.cluster import RealCluster
from real_nodes.layout import LOCK, STATE
from real_nodes.lock import ClusterRunning
from real_nodes.node_init import KERNEL_WIDE
from real_nodes.pods import pod

pytestmark = [pytest.mark.real_nodes, pytest.mark.slow]

E2E = Path(__file__).resolve().parents[2] / "e2e"
PROGRAM = """
import signal
from real_nodes.cluster import RealCluster
with RealCluster.started(nodes=1):
    print("up", flush=True)
    signal.pause()
"""
NAMES_OF_PROCESSES = {"containerd", "containerd-shim", "kubelet", "kube-proxy", "runc", "coredns", "pod", "unshare"}
PLACES = ("/var/lib/kubelet", "/var/lib/containerd", "/var/lib/cni", "/etc/cni", "/opt/cni", "/run/containerd")
MORE_PLACES = (
    "/run/netns",
    "/run/runc",
    "/run/flannel",
    "/var/log/pods",
    "/var/log/containers",
    str(STATE),
    str(LOCK),
)


@dataclass(frozen=True)
class Machine:
    """What a cluster could change on the machine."""

    mounts: frozenset[str]
    network_namespaces: frozenset[str]
    links: str
    routes: str
    packet_filter: str
    groups: frozenset[str]
    processes: frozenset[str]
    kernel: tuple[str, ...]
    places: frozenset[str]

    @classmethod
    def now(cls) -> Machine:
        return cls(
            mounts=frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
            network_namespaces=frozenset(of_processes(lambda path: os.readlink(path / "ns" / "net"))),
            links=said("ip", "-o", "-br", "link"),
            routes=said("ip", "route") + said("ip", "rule"),
            packet_filter=said("nft", "list", "ruleset"),
            groups=frozenset(
                str(path) for one in cgroups.ROOT.glob("*") for path in (one, *one.glob("*")) if ours(path)
            ),
            processes=frozenset(
                name
                for name in of_processes(lambda path: (path / "comm").read_text().strip())
                if name in NAMES_OF_PROCESSES
            ),
            kernel=tuple(
                Path("/proc/sys", key).read_text() for key in (*KERNEL_WIDE, "net/ipv4/ip_forward", "kernel/hostname")
            ),
            places=frozenset(path for path in (*PLACES, *MORE_PLACES) if Path(path).exists()),
        )


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def ours(group: Path) -> bool:
    return group.is_dir() and any(word in group.name for word in ("ttsfleet", "kube", "k8s", "pod"))


def of_processes(look: Callable[[Path], str]) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield look(path)


@pytest.fixture
def before() -> Machine:
    """The machine without a cluster."""
    assert leftovers.found() == []
    return Machine.now()


@contextmanager
def other_process() -> Iterator[subprocess.Popen[str]]:
    """A process with a running cluster of one node."""
    command = [sys.executable, "-c", PROGRAM]
    environment = {**os.environ, "PYTHONPATH": str(E2E)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()


def test_a_cluster_that_was_used_leaves_the_machine_as_it_was(before: Machine) -> None:
    with RealCluster.started(nodes=2) as cluster:
        cluster.apply(pod("server", ["serve", ":8080"]), pod("eater", ["eat", "256"], memory="32Mi"))
        cluster.kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/server")
        cluster.enforce_network_policies().settle()
        cluster.node("a").kubelet.kill()
        cluster.node("b").kill()
        during = Machine.now()
        assert during.links != before.links
        assert during.groups > before.groups
        assert (during.mounts, during.packet_filter, during.kernel) == (
            before.mounts,
            before.packet_filter,
            before.kernel,
        )
    assert Machine.now() == before
    assert scratch.left() == []


def test_what_a_killed_process_leaves_ends_at_once_or_with_the_next_start(before: Machine) -> None:
    with other_process() as process:
        pid = process.pid
        process.kill()
    eventually(lambda: is_quiet(before), "its processes, mounts and links have ended")
    assert [Path(path) for path in leftovers.found()] == [*cgroups.left(), STATE]
    RealCluster(nodes=1).stop()
    assert Machine.now() == before
    assert not list(scratch.MEMORY.glob(f"{scratch.PREFIX}{pid}-*"))


def is_quiet(before: Machine) -> bool:
    now = Machine.now()
    return (now.processes, now.network_namespaces, now.mounts, now.links, now.routes) == (
        before.processes,
        before.network_namespaces,
        before.mounts,
        before.links,
        before.routes,
    )


def test_a_cluster_that_cannot_start_leaves_nothing(before: Machine, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no such file"), RealCluster.started(archives=[tmp_path / "absent.tar"]):
        pass
    assert Machine.now() == before
    assert scratch.left() == []


def test_a_terminated_process_leaves_nothing(before: Machine) -> None:
    with other_process() as process:
        process.terminate()
        assert process.wait(timeout=60) == -signal.SIGTERM
        assert Machine.now() == before


def test_a_second_cluster_is_refused_and_the_holder_named(before: Machine) -> None:
    with other_process() as process:
        with pytest.raises(ClusterRunning, match=f"process {process.pid} has a cluster"):
            RealCluster()
        process.terminate()
        process.wait(timeout=60)
    assert Machine.now() == before
