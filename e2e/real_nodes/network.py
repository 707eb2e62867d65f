"""The network between the host and the nodes: a bridge without a port to anywhere else, and a cable to each node.

The cables and the addresses in the nodes end with the nodes, the host's routes with the bridge.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from control_plane.errors import CommandFailed
from control_plane.waiting import eventually
from real_nodes.layout import BRIDGE, HOST_ADDRESS, LINK_PREFIX, SERVICE_RANGE, Place


def create_bridge() -> None:
    """The bridge that carries the host's address, at which the API server listens."""
    _ip(
        f"link add {BRIDGE} type bridge",
        f"address add {HOST_ADDRESS}/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
    )


def connect(place: Place, pid: int, places: Sequence[Place]) -> None:
    """Lays a cable between the bridge and the network namespace of a process, and the routes at both ends."""
    _ip(
        f"link add {place.link} type veth peer name eth0 netns {pid}",
        f"link set {place.link} master {BRIDGE} up",
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


def disconnect(place: Place) -> None:
    """Waits until the cable is gone, which the kernel does some time after the last process of the node."""
    eventually(lambda: place.link not in left(), f"the network of {place.name} is gone", within=20)


def left() -> list[str]:
    """The names of our links."""
    answer = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True)
    return [link["ifname"] for link in json.loads(answer.stdout) if link["ifname"].startswith(LINK_PREFIX)]


def remove() -> None:
    """Removes all our links, and with the bridge the routes."""
    for link in left():
        subprocess.run(["ip", "link", "delete", link], capture_output=True, check=False)


def _ip(*commands: str, inside: int | None = None) -> None:
    enter = ["nsenter", f"--net=/proc/{inside}/ns/net"] if inside else []
    answer = subprocess.run(
        [*enter, "ip", "-batch", "-"], input="\n".join(commands), capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise CommandFailed(f"ip {'; '.join(commands)}", answer.returncode, answer.stdout, answer.stderr)
