"""A control plane of our own: started in seconds, used through its kubeconfigs, and gone at the end.

`with ControlPlane.started() as plane:` (or `start` and `stop`). Everything that it writes is in one temporary folder
that carries our pid; folders whose process is dead are removed by the next start.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import ssl
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from control_plane import audit, binaries, certificates, flags, gpu_nodes, scratch
from control_plane.audit import AuditEvent
from control_plane.cluster import Cluster
from control_plane.errors import BinariesMissing, StartFailed
from control_plane.processes import Processes, free_ports
from control_plane.proxy import Proxy
from control_plane.waiting import eventually

ROOM_IN_MEMORY_BYTES = 2 * 1024**3
ON_LOOPBACK = flags.Reach()
_RUNNING: list[ControlPlane] = []


class ControlPlane(Cluster):
    """etcd, API server, controller manager, scheduler and kwok, on 127.0.0.1; the API server where `reach` says."""

    def __init__(self, reach: flags.Reach = ON_LOOPBACK) -> None:
        """Makes the certificates; nothing runs yet.

        Raises:
            BinariesMissing: with the command that builds them.
        """
        if absent := binaries.missing():
            raise BinariesMissing(
                f"not built: {', '.join(absent)} (looked in {binaries.cache_root()}); "
                f"build with `{binaries.BUILD_COMMAND}`"
            )
        self.folder = _new_folder()
        self._ports = flags.Ports(*free_ports(3))
        self._authority = certificates.Authority(self.folder, "authority")
        self._reach = reach
        self._files = _make_files(self.folder, self._authority, reach)
        self.processes = Processes(self.folder)
        self._proxies: list[Proxy] = []
        self._identities = 0
        super().__init__(self.kubeconfig_for("e2e-admin", ["system:masters"]), self.folder / "kubectl")

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[ControlPlane]:
        """A running control plane that is stopped at the end."""
        plane = cls()
        plane.start()
        try:
            yield plane
        finally:
            plane.stop()

    def start(self) -> None:
        """Starts all processes and waits until the API server is ready and the controllers work.

        Raises:
            StartFailed: one ended or was not ready in time; the end of its log is in the message. Nothing is left.
        """
        _RUNNING.append(self)
        _stop_on_sigterm()
        try:
            self.processes.start("etcd", [binaries.path_of("etcd"), *flags.etcd(self._files, self._ports)])
            self._start_api_server()
            manager = self.kubeconfig_for("system:kube-controller-manager")
            self._start("kube-controller-manager", flags.controller_manager(self._files, manager, self._reach))
            self._start("kube-scheduler", flags.scheduler(self.kubeconfig_for("system:kube-scheduler")))
            kwok = self.kubeconfig_for("kwok", ["system:masters"])
            self._start("kwok", flags.kwok(kwok, binaries.path_of(binaries.STAGES)))
            self._wait_until(
                lambda: self._get("/api/v1/namespaces/default/serviceaccounts/default") is not None,
                "the controller manager",
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends everything and removes the folder. It can be called twice."""
        for proxy in self._proxies:
            proxy.stop()
        self._proxies.clear()
        self.processes.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self in _RUNNING:
            _RUNNING.remove(self)

    def restart_api_server(self) -> None:
        """Kills the API server and starts it again at the same address; returns when it is ready.

        Kills, since an orderly end takes more than ten seconds with open watches.
        """
        self.kill_api_server()
        self._start_api_server()

    def kill_api_server(self) -> None:
        """Kills the API server: connections are refused until `restart_api_server`."""
        self.processes.kill("kube-apiserver")

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return f"https://{self._reach.address}:{self._ports.api_server}"

    @property
    def authority(self) -> Path:
        """The certificate that the API server's is signed by (PEM)."""
        return self._files.authority.certificate

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig whose client certificate names the user and groups; RBAC decides what it may do."""
        client = self._identity(user, groups)
        path = client.certificate.with_suffix(".kubeconfig")
        return certificates.write_kubeconfig(path, self.server, self.authority, client)

    def certificate_for(self, user: str, groups: Sequence[str], hosts: Sequence[str]) -> certificates.KeyPair:
        """A certificate that names the user and groups and serves the hosts (names or addresses)."""
        return self._identity(user, groups, hosts)

    def kubeconfig_for_service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig for the user and groups of a service account, which need not exist yet."""
        return self.kubeconfig_for(*service_account_identity(namespace, name))

    def proxy(self, user: str, groups: Sequence[str] = ()) -> Proxy:
        """A proxy in front of the API server that speaks to it as the given user; started, and stopped with us."""
        proxy = Proxy(
            folder=self.folder,
            upstream=(self._reach.address, self._ports.api_server),
            authority=self.authority,
            serving=self._files.api_server,
            client=self._identity(user, groups),
        )
        self._proxies.append(proxy)
        return proxy

    def audit_mark(self) -> int:
        """Where the audit log ends now: `audit(since=…)` begins there."""
        return self._files.audit_log.stat().st_size

    def audit(self, **filters: Any) -> Iterator[AuditEvent]:
        """The events of the audit log; the filters are those of `audit.read_events`."""
        return audit.read_events(self._files.audit_log, **filters)

    def nodes(
        self, gpu: str | None = None, count: int = 1, *, prefix: str | None = None, **settings: Any
    ) -> list[str]:
        """Creates nodes and waits until they are ready; returns their names.

        Args:
            gpu: a name of `gpu_nodes.GPUS`, or None for nodes without a GPU.
            prefix: of the names, which end in a number; the GPU's name by default.
            settings: those of `gpu_nodes.node` (gpus, zone, labels, allocatable, taints, by_hand).
        """
        prefix = prefix or f"node-{gpu or 'cpu'}"
        kind = gpu_nodes.GPUS[gpu] if gpu else None
        names = [f"{prefix}-{number}" for number in range(count)]
        objects = [gpu_nodes.node(name, gpu=kind, **settings) for name in names]
        self.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        # `kubectl wait` looks at one node after the other, which takes minutes for hundreds.
        eventually(
            lambda: set(names) <= self._ready_nodes(), f"{count} ready nodes", within=60 + count / 10, every=0.2
        )
        return names

    def delete_nodes(self, names: Sequence[str]) -> None:
        """Deletes nodes and at once the pods on them, which nobody would end otherwise."""
        if names:
            self.kubectl("delete", "node", "--ignore-not-found", "--wait=false", *names)
        by_namespace: dict[str, list[str]] = {}
        for pod in self.get("pods"):
            if pod["spec"].get("nodeName") in names:
                by_namespace.setdefault(pod["metadata"]["namespace"], []).append(pod["metadata"]["name"])
        for namespace, pods in by_namespace.items():
            force = ["--grace-period=0", "--force", "--wait=false", "--ignore-not-found"]
            self.kubectl("delete", "pod", "-n", namespace, *force, *pods)

    def _ready_nodes(self) -> set[str]:
        lines = '{range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
        pairs = (line.split() for line in self.kubectl("get", "nodes", "-o", f"jsonpath={lines}").splitlines())
        return {pair[0] for pair in pairs if pair[1:] == ["True"]}

    def _start(self, name: str, arguments: list[str]) -> None:
        self.processes.start(name, [binaries.path_of(name), *arguments])

    def _start_api_server(self) -> None:
        self._start("kube-apiserver", flags.api_server(self._files, self._ports, self._reach))
        self._wait_until(lambda: self._get("/readyz") == b"ok", "the API server")

    def _wait_until(self, check: Any, what: str) -> None:
        def running_and_ready() -> bool:
            self.processes.require_running()
            return bool(check())

        try:
            eventually(running_and_ready, what, within=60)
        except StartFailed:
            raise
        except Exception as error:
            raise StartFailed(f"{error}\n{self.processes.last_lines('kube-apiserver')}") from error

    def _get(self, path: str) -> bytes | None:
        """The answer to a request as the administrator, or None when there is none (yet)."""
        try:
            with urllib.request.urlopen(f"{self.server}{path}", context=self._tls, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            return None

    @property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.folder / "identity-1.crt", self.folder / "identity-1.key")
        return context

    def _identity(self, user: str, groups: Sequence[str], hosts: Sequence[str] = ()) -> certificates.KeyPair:
        self._identities += 1
        return self._authority.issue(f"identity-{self._identities}", user, groups, hosts=hosts)


def service_account_identity(namespace: str, name: str) -> tuple[str, list[str]]:
    """The user and the groups by which the API server knows a service account."""
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    return f"system:serviceaccount:{namespace}:{name}", groups


def _make_files(folder: Path, authority: certificates.Authority, reach: flags.Reach) -> flags.Files:
    front_proxy = certificates.Authority(folder, "front-proxy-authority")
    names = ["localhost", "kubernetes", "kubernetes.default.svc"]
    addresses = ["127.0.0.1", flags.ADVERTISED_ADDRESS, flags.API_SERVICE_ADDRESS, reach.address]
    policy = folder / "audit-policy.json"
    policy.write_text(json.dumps(audit.POLICY), encoding="utf-8")
    log = folder / "audit.log"
    log.touch()
    return flags.Files(
        folder=folder,
        authority=authority.files,
        front_proxy_authority=front_proxy.files,
        front_proxy=front_proxy.issue("front-proxy", "front-proxy"),
        api_server=authority.issue("api-server", "kube-apiserver", hosts=[*names, *dict.fromkeys(addresses)]),
        kubelet_client=authority.issue("kubelet-client", "kube-apiserver", ["system:masters"]),
        etcd=authority.issue("etcd", "etcd", hosts=["localhost", "127.0.0.1"]),
        service_accounts=certificates.write_signing_key(folder, "service-accounts"),
        audit_policy=policy,
        audit_log=log,
    )


def _new_folder() -> Path:
    """A temporary folder with our pid in its name: in memory where there is room, since etcd writes much."""
    memory = scratch.MEMORY
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM_IN_MEMORY_BYTES
    scratch.remove_abandoned()
    return Path(tempfile.mkdtemp(prefix=scratch.prefix(), dir=memory if roomy else None))


@atexit.register
def _stop_all() -> None:
    for plane in tuple(_RUNNING):
        plane.stop()


def _stop_on_sigterm() -> None:
    """SIGTERM ends Python without running `finally` or atexit. A handler that somebody has set stays theirs."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    ):
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        _stop_all()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    signal.signal(signal.SIGTERM, stop)
