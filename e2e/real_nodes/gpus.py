"""GPUs that a real node says it has: a device plugin of ours for its kubelet, and the labels that describe them.

Kubelet, scheduler and operator see what they would see of real devices; nothing of them is in the container but
NVIDIA_VISIBLE_DEVICES. The plugin is a process of the node and ends with it; after a start of the node, attach anew.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from control_plane import binaries
from control_plane.gpu_nodes import Gpu, gpu_labels
from control_plane.waiting import eventually
from real_nodes.cluster import RealCluster

GPU = "nvidia.com/gpu"
PLUGINS = "/var/lib/kubelet/device-plugins"


class Gpus:
    """The devices of one resource on one node; each is healthy or not. Made by `attached`."""

    def __init__(self, cluster: RealCluster, letter: str, gpu: Gpu, count: int, resource: str) -> None:
        self._cluster = cluster
        self.node = cluster.node(letter)
        self.resource = resource
        self._labels: dict[str, str] = {}
        self._gpu = gpu
        self._health = {f"GPU-{letter}-{number}": True for number in range(count)}
        self._name = "device-plugin-" + resource.replace("/", "-").replace(".", "-")

    def attach(self) -> None:
        """Labels the node and starts the plugin; returns when the node has the devices to give."""
        self._write()
        self.relabel(gpu_labels(self._gpu, len(self._health)))
        command = [str(binaries.path_of("device-plugin")), PLUGINS, self.resource, str(self._file)]
        self.node.order({"start": self._name, "command": command, "log": str(self.log)})
        self.wait_allocatable(len(self._health))

    def detach(self) -> None:
        """Takes the labels away and ends the plugin; the kubelet then gives no device any more."""
        if self._name in self.node.running():
            self.node.order({"signal": self._name, "number": int(signal.SIGKILL)})
            eventually(lambda: self._name not in self.node.running(), "the device plugin has ended", every=0.02)
        self.relabel({})
        self.wait_allocatable(0)

    def relabel(self, labels: Mapping[str, str]) -> None:
        """The labels that describe the devices, instead of those before."""
        gone = [f"{key}-" for key in self._labels.keys() - labels.keys()]
        pairs = [f"{key}={value}" for key, value in labels.items()]
        if gone or pairs:
            self._cluster.kubectl("label", "node", self.node.name, "--overwrite", *gone, *pairs)
        self._labels = dict(labels)

    def set_healthy(self, number: int, healthy: bool) -> None:
        """Makes a device healthy or not."""
        self._health[self.ids[number]] = healthy
        self._write()

    @property
    def ids(self) -> list[str]:
        return list(self._health)

    @property
    def log(self) -> Path:
        return self.node.folder / f"{self._name}.log"

    def wait_allocatable(self, count: int, within: float = 30) -> None:
        """Returns when the Node object says that so many devices can be given."""
        what = f"{self.node.name} can give {count} {self.resource}"
        eventually(lambda: self.amounts()["allocatable"] == count, what, within, every=0.1)

    def amounts(self) -> dict[str, int]:
        """Capacity and allocatable devices, as the Node object has them."""
        status = self._cluster.get("node", self.node.name)["status"]
        return {kind: int(status[kind].get(self.resource, 0)) for kind in ("capacity", "allocatable")}

    @property
    def _file(self) -> Path:
        return self.node.folder / f"{self._name}.devices"

    def _write(self) -> None:
        lines = [f"{name} {'Healthy' if healthy else 'Unhealthy'}\n" for name, healthy in self._health.items()]
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text("".join(lines), encoding="utf-8")
        unfinished.rename(self._file)


@contextmanager
def attached(cluster: RealCluster, letter: str, gpu: Gpu, count: int = 1, resource: str = GPU) -> Iterator[Gpus]:
    """The node with `count` of these GPUs, until the end of the block."""
    gpus = Gpus(cluster, letter, gpu, count, resource)
    try:
        gpus.attach()
        yield gpus
    finally:
        gpus.detach()
