"""Names and addresses of a cluster of real nodes. Pure, and constant: so there is one cluster at a time on a machine.

Everything that the cluster makes on the host carries one of these names, by which the next start finds what a run
that was killed has left. 198.18.0.0/15 is set aside for benchmarks and routed nowhere; nodes have no default route.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from control_plane import flags

# Where nodes keep their disks, removed at the end: on a file system that overlayfs can write on.
STATE = Path(os.environ.get("E2E_NODES_FOLDER") or "/var/lib").absolute() / "ttsfleet-e2e"
LOCK = Path("/run/ttsfleet-e2e-nodes.lock")
CGROUP_PREFIX = "ttsfleet-e2e-"
HOST_LINK = "ttsfleet-nodes"

HOST_ADDRESS = "198.18.255.1"
CLUSTER_RANGE = "198.18.0.0/15"
SERVICE_RANGE = flags.SERVICE_RANGE
# Without the addresses of host and nodes: kube-proxy hides the sender of all that comes from outside this range, so
# that the host reaches services. kwok gives pods of its nodes addresses from the beginning of the range.
POD_RANGE = "198.18.0.0/17"
DNS_ADDRESS = "198.19.0.10"
DOMAIN = "cluster.local"
ZONES = ("zone-a", "zone-b")
MAX_NODES = 9


@dataclass(frozen=True)
class Place:
    """What a node is called and where it is; `number` counts from 0."""

    number: int

    @property
    def letter(self) -> str:
        return "abcdefghi"[self.number]

    @property
    def name(self) -> str:
        """The name of the Node object, the host name, and the name of its folder."""
        return f"node-{self.letter}"

    @property
    def address(self) -> str:
        return f"198.18.255.{11 + self.number}"

    @property
    def pods(self) -> str:
        return f"198.18.{101 + self.number}.0/24"

    @property
    def zone(self) -> str:
        return ZONES[self.number % len(ZONES)]

    @property
    def cgroup(self) -> str:
        return f"{CGROUP_PREFIX}{self.letter}"

    @property
    def folder(self) -> Path:
        return STATE / self.name


def places(count: int) -> tuple[Place, ...]:
    """The places of the first `count` nodes."""
    assert 1 <= count <= MAX_NODES, f"{count} nodes; 1 to {MAX_NODES} are possible"
    return tuple(Place(number) for number in range(count))
