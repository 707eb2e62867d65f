"""One real node: containerd, kubelet and kube-proxy in namespaces of their own, each killed and started at will."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane import binaries
from control_plane.certificates import KeyPair
from control_plane.errors import CommandFailed, NeverHappened, StartFailed
from control_plane.processes import Processes
from control_plane.waiting import eventually
from real_nodes import cgroups, configuration
from real_nodes.commands import path_of
from real_nodes.configuration import NodeFiles
from real_nodes.layout import DNS_ADDRESS, Place
from real_nodes.network import Network

INIT = Path(__file__).with_name("node_init.py")
NAMESPACES = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private"]
START_SECONDS = 30


@dataclass(frozen=True)
class Credentials:
    """What a node shows to the API server, and the API server to it."""

    authority: Path
    kubelet: Path
    kube_proxy: Path
    serving: KeyPair


class NodeProcess:
    """One of the processes of a node."""

    def __init__(self, node: RealNode, name: str, arguments: Sequence[str | Path]) -> None:
        self._node = node
        self.name = name
        self._arguments = arguments

    @property
    def is_running(self) -> bool:
        return self.name in self._node.running()

    @property
    def log(self) -> Path:
        """Its stdout and stderr."""
        return self._node.folder / f"{self.name}.log"

    def start(self) -> None:
        """Starts it; it must not be running."""
        assert not self.is_running, f"{self.name} of {self._node.name} is running"
        command = [str(binaries.path_of(self.name)), *map(str, self._arguments)]
        self._node.order({"start": self.name, "command": command, "log": str(self.log)})

    def kill(self) -> None:
        """SIGKILL; returns when it is gone. What it started (containers, for containerd) goes on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that does not help."""
        try:
            self._end(signal.SIGTERM)
        except NeverHappened:
            self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kills and starts it."""
        self.kill()
        self.start()

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-count:])

    def _end(self, number: signal.Signals) -> None:
        self._node.order({"signal": self.name, "number": int(number)})
        eventually(lambda: not self.is_running, f"{self.name} of {self._node.name} has ended", within=20, every=0.02)


class RealNode:
    """A node: made by `RealCluster`, started at once, and killed and started again by tests."""

    def __init__(
        self, place: Place, places: Sequence[Place], processes: Processes, network: Network, credentials: Credentials
    ) -> None:
        self.place = place
        self.name = place.name
        self.folder = place.folder
        self.files = NodeFiles(place.folder)
        self._places = places
        self._processes = processes
        self._network = network
        self.boot_id = ""
        self.containerd = NodeProcess(self, "containerd", ["--config", self.files.containerd])
        self.kubelet = NodeProcess(self, "kubelet", self._kubelet_arguments(credentials))
        self.kube_proxy = NodeProcess(self, "kube-proxy", ["--config", self.files.kube_proxy, "--v=1"])
        self._write_files(credentials)

    def start(self) -> None:
        """Starts the node with what is on its disk; returns when its processes run, before it is Ready.

        Raises:
            StartFailed: with the end of the log of what did not start.
        """
        self.boot_id = str(uuid.uuid4())
        cgroups.create(self.place.cgroup)
        for path in (self._pid_file, self._socket, self.files.containerd_socket):
            path.unlink(missing_ok=True)
        settings = self.folder / "node.json"
        settings.write_text(json.dumps(self._init_settings()), encoding="utf-8")
        init = [sys.executable, "-I", "-S", str(INIT), str(settings)]
        self._processes.start(self.name, [path_of("unshare"), *NAMESPACES, "--", *init])
        self._wait(self._socket, self._processes.last_lines)
        self._network.connect(self.place, self.pid, self._places)
        self.containerd.start()
        self._wait(self.files.containerd_socket, lambda _: self.containerd.last_lines())
        self.kubelet.start()
        self.kube_proxy.start()

    def kill(self) -> None:
        """The node is lost, with all that runs on it; its disk is kept. Returns when nothing of it runs."""
        pid = self.pid
        self._processes.kill(self.name)
        eventually(lambda: has_ended(pid), f"{self.name} has ended", within=20, every=0.02)
        self._network.wait_until_disconnected(self.place)

    def stop(self) -> None:
        """Stops kubelet and containerd in order, then the node."""
        for process in (self.kubelet, self.kube_proxy, self.containerd):
            process.stop()
        self.kill()

    def restart(self) -> None:
        """The node is lost and comes back, as after a reset."""
        self.kill()
        self.start()

    def exec(self, *command: str, input: str | None = None, timeout: float = 60) -> str:  # noqa: A002 - as subprocess says
        """Runs a command in the node's namespaces, as root, and returns what it printed.

        Raises:
            CommandFailed: it ended with an error.
        """
        enter = [path_of("nsenter"), f"--target={self.pid}", "--net", "--mount", "--uts", "--ipc", "--pid", "--"]
        answer = subprocess.run(
            [*enter, *command], input=input, capture_output=True, text=True, timeout=timeout, check=False
        )
        if answer.returncode:
            raise CommandFailed(
                f"on {self.name}: {' '.join(command)}", answer.returncode, answer.stdout, answer.stderr
            )
        return answer.stdout

    def import_image(self, archive: Path) -> None:
        """Takes the images of an archive (docker or OCI layout)."""
        ctr = [str(binaries.path_of("ctr")), "--address", str(self.files.containerd_socket), "--namespace", "k8s.io"]
        answer = subprocess.run([*ctr, "images", "import", str(archive)], capture_output=True, text=True, check=False)
        if answer.returncode:
            raise CommandFailed(f"import {archive} on {self.name}", answer.returncode, answer.stdout, answer.stderr)

    @property
    def pid(self) -> int:
        """The node's first process, as the host counts."""
        return int(self._pid_file.read_text())

    @property
    def host_path_of_var(self) -> Path:
        """Where the node's /var is on the host."""
        return self.folder / "var"

    def running(self) -> list[str]:
        """The names of the node's processes that run."""
        answer: list[str] = self.order({"state": True})["running"]
        return answer

    def order(self, request: dict[str, Any]) -> dict[str, Any]:
        """Has the node's first process do something; see node_init."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self._socket))
            with connection.makefile("rw") as stream:
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                answer: dict[str, Any] = json.loads(stream.readline())
        if "error" in answer:
            raise StartFailed(f"{self.name}: {answer['error']}")
        return answer

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    @property
    def _socket(self) -> Path:
        return self.folder / "init.sock"

    def _wait(self, path: Path, last_lines: Any) -> None:
        def there() -> bool:
            self._processes.require_running()
            return path.exists()

        try:
            eventually(there, f"{path} appears", within=START_SECONDS, every=0.02)
        except Exception as error:
            raise StartFailed(f"{self.name}: {error}\n{last_lines(self.name)}") from error

    def _init_settings(self) -> dict[str, Any]:
        machine = uuid.uuid5(uuid.NAMESPACE_DNS, self.name)
        return {
            "name": self.name,
            "folder": str(self.folder),
            "pid": str(self._pid_file),
            "socket": str(self._socket),
            "readable": sorted({str(binaries.path_of(name).parent) for name in binaries.NODES}),
            "identity": {"/etc/machine-id": machine.hex, "/proc/sys/kernel/random/boot_id": self.boot_id},
        }

    def _kubelet_arguments(self, credentials: Credentials) -> list[str]:
        labels = f"topology.kubernetes.io/zone={self.place.zone},topology.kubernetes.io/region=e2e"
        return [
            f"--config={self.files.kubelet}",
            f"--kubeconfig={self.folder / 'etc' / credentials.kubelet.name}",
            f"--hostname-override={self.name}",
            f"--node-ip={self.place.address}",
            f"--node-labels={labels}",
            "--v=2",
        ]

    def _write_files(self, credentials: Credentials) -> None:
        etc = self.folder / "etc"
        self.files.cni.mkdir(parents=True)
        pair = credentials.serving
        for path in (credentials.authority, credentials.kubelet, credentials.kube_proxy, pair.certificate, pair.key):
            shutil.copy(path, etc)
        serving = KeyPair(etc / pair.certificate.name, etc / pair.key.name)
        authority = etc / credentials.authority.name
        self.files.containerd.write_text(configuration.containerd(self.files), encoding="utf-8")
        self.files.kubelet.write_text(
            configuration.kubelet(self.place, self.files, authority, serving), encoding="utf-8"
        )
        self.files.kube_proxy.write_text(
            configuration.kube_proxy(self.place, etc / credentials.kube_proxy.name), encoding="utf-8"
        )
        # Pods that ask for the node's resolver (dnsPolicy Default) get the cluster's: there is no other.
        self.files.resolv_conf.write_text(f"nameserver {DNS_ADDRESS}\n", encoding="utf-8")
        for name, text in configuration.cni(self.place).items():
            (self.files.cni / name).write_text(text, encoding="utf-8")


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that nobody reaps: the first process of a machine may not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
