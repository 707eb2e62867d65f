"""The network between the host and the nodes: a bridge in a network namespace of its own, with a cable to each.

There the host's packet filter does not see what nodes say to each other, and it ends with the process that holds the
namespace: with it go the cables, the host's address on its own, and the host's routes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from control_plane.errors import CommandFailed
from control_plane.processes import Processes
from control_plane.waiting import eventually
from real_nodes.commands import path_of
from real_nodes.layout import HOST_ADDRESS, HOST_LINK, SERVICE_RANGE, Place

NAME = "network"
BRIDGE = "nodes"


class Network:
    """The bridge, from `start` until the processes are stopped."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._pid = 0

    def start(self) -> None:
        """Makes the bridge and gives the host its address, at which the API server listens."""
        own = _namespace("self")
        unshare, sleep = path_of("unshare"), path_of("sleep")
        self._pid = self._processes.start(NAME, [unshare, "--net", "--", sleep, "infinity"])
        eventually(lambda: _namespace(self._pid) != own, "the network namespace of the bridge", every=0.01)
        _ip(
            f"link add {HOST_LINK} type veth peer name host netns {self._pid}",
            f"address add {HOST_ADDRESS}/24 dev {HOST_LINK}",
            f"link set {HOST_LINK} up",
        )
        _ip(
            f"link add {BRIDGE} type bridge",
            f"link set {BRIDGE} up",
            f"link set host master {BRIDGE} up",
            inside=self._pid,
        )

    def connect(self, place: Place, pid: int, places: Sequence[Place]) -> None:
        """Lays a cable from the bridge to the network namespace of a process, and the routes at both ends."""
        _ip(
            f"link add {place.name} type veth peer name eth0 netns {pid}",
            f"link set {place.name} master {BRIDGE} up",
            inside=self._pid,
        )
        others = [f"route add {other.pods} via {other.address}" for other in places if other != place]
        _ip(
            "link set lo up",
            f"address add {place.address}/24 dev eth0",
            "link set eth0 up",
            # What goes to a service is sent elsewhere by kube-proxy, but only when there is a way to its address.
            f"route add {SERVICE_RANGE} via {HOST_ADDRESS}",
            *others,
            inside=pid,
        )
        _ip(f"route replace {place.pods} via {place.address}")
        if place.number == 0:
            _ip(f"route replace {SERVICE_RANGE} via {place.address}")

    def wait_until_disconnected(self, place: Place) -> None:
        """The kernel removes the cable of a node some time after the last process of the node has ended."""
        eventually(
            lambda: place.name not in _links(inside=self._pid), f"the cable of {place.name} is gone", within=20
        )


def left() -> list[str]:
    """Our link on the host, when it is there."""
    return [link for link in _links() if link == HOST_LINK]


def remove() -> None:
    """Removes our link on the host, and with it the routes."""
    for link in left():
        subprocess.run(["ip", "link", "delete", link], capture_output=True, check=False)
    eventually(lambda: not left(), f"{HOST_LINK} is gone")


def _namespace(pid: int | str) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def _links(inside: int | None = None) -> list[str]:
    answer = _run(inside, "ip", "-json", "link")
    return [link["ifname"] for link in json.loads(answer)]


def _ip(*commands: str, inside: int | None = None) -> None:
    _run(inside, "ip", "-batch", "-", input="\n".join(commands))


def _run(inside: int | None, *command: str, input: str | None = None) -> str:  # noqa: A002 - as subprocess says
    """Runs a command in the network namespace of a process, or in ours."""
    enter = [path_of("nsenter"), f"--net=/proc/{inside}/ns/net"] if inside else []
    name, *arguments = command
    answer = subprocess.run(
        [*enter, path_of(name), *arguments], input=input, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise CommandFailed(f"{' '.join(command)} {input or ''}", answer.returncode, answer.stdout, answer.stderr)
    return answer.stdout
