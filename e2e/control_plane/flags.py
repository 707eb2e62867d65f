"""The command lines of the control plane's processes. Pure: paths and ports in, arguments out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from control_plane.certificates import KeyPair
from control_plane.gpu_nodes import PLAYED_BY_KWOK

# Without real nodes nothing answers at the addresses of services, pods and nodes; they only have to be valid.
# 198.18.0.0/15 is set aside for benchmarks and routed nowhere.
SERVICE_RANGE = "198.19.0.0/16"
API_SERVICE_ADDRESS = "198.19.0.1"
POD_RANGE = "198.18.0.0/16"
ADVERTISED_ADDRESS = "198.18.255.1"
NODE_ADDRESS = "198.18.255.2"


@dataclass(frozen=True)
class Files:
    """Everything that the processes read and write."""

    folder: Path
    authority: KeyPair
    front_proxy_authority: KeyPair
    front_proxy: KeyPair
    api_server: KeyPair
    kubelet_client: KeyPair
    etcd: KeyPair
    service_accounts: KeyPair
    audit_policy: Path
    audit_log: Path


@dataclass(frozen=True)
class Reach:
    """Where the API server listens, and how long a node may be silent before it counts as lost.

    Nodes that are played do not beat while a test is short of processor time, so they are given an hour. Real ones
    need an address that is not loopback, which they cannot reach.
    """

    address: str = "127.0.0.1"
    node_grace: str = "1h"

    @property
    def has_real_nodes(self) -> bool:
        return self.address != "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """The ports of the API server (at its address) and of etcd (on 127.0.0.1)."""

    api_server: int
    etcd: int
    etcd_peer: int


def etcd(files: Files, ports: Ports) -> list[str]:
    """A single member that never syncs its disk: what it holds is thrown away."""
    return [
        "--name=e2e",
        f"--data-dir={files.folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls=https://127.0.0.1:{ports.etcd}",
        f"--advertise-client-urls=https://127.0.0.1:{ports.etcd}",
        f"--listen-peer-urls=http://127.0.0.1:{ports.etcd_peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{ports.etcd_peer}",
        f"--initial-cluster=e2e=http://127.0.0.1:{ports.etcd_peer}",
        f"--cert-file={files.etcd.certificate}",
        f"--key-file={files.etcd.key}",
        "--client-cert-auth",
        f"--trusted-ca-file={files.authority.certificate}",
        "--quota-backend-bytes=4294967296",
        "--log-level=warn",
    ]


def api_server(files: Files, ports: Ports, reach: Reach) -> list[str]:
    """Loopback cannot be advertised: without real nodes another address is given and never written."""
    return [
        f"--bind-address={reach.address}",
        f"--secure-port={ports.api_server}",
        f"--advertise-address={reach.address if reach.has_real_nodes else ADVERTISED_ADDRESS}",
        f"--endpoint-reconciler-type={'lease' if reach.has_real_nodes else 'none'}",
        f"--etcd-servers=https://127.0.0.1:{ports.etcd}",
        f"--etcd-cafile={files.authority.certificate}",
        f"--etcd-certfile={files.etcd.certificate}",
        f"--etcd-keyfile={files.etcd.key}",
        f"--client-ca-file={files.authority.certificate}",
        f"--tls-cert-file={files.api_server.certificate}",
        f"--tls-private-key-file={files.api_server.key}",
        f"--cert-dir={files.folder}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--anonymous-auth=true",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={files.service_accounts.certificate}",
        f"--service-account-signing-key-file={files.service_accounts.key}",
        f"--requestheader-client-ca-file={files.front_proxy_authority.certificate}",
        "--requestheader-allowed-names=front-proxy",
        f"--kubelet-certificate-authority={files.authority.certificate}",
        f"--kubelet-client-certificate={files.kubelet_client.certificate}",
        f"--kubelet-client-key={files.kubelet_client.key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={files.front_proxy.certificate}",
        f"--proxy-client-key-file={files.front_proxy.key}",
        "--enable-aggregator-routing=true",
        "--profiling=false",
        f"--audit-policy-file={files.audit_policy}",
        f"--audit-log-path={files.audit_log}",
        # Blocking: what was answered is in the log. One file: the reader follows it by its offset.
        "--audit-log-mode=blocking",
        "--audit-log-maxsize=1000000",
    ]


def controller_manager(files: Files, kubeconfig: Path, reach: Reach) -> list[str]:
    """All controllers, with limits that do not slow a test of a thousand objects and an HPA that looks often."""
    return [
        *_of_a_component(kubeconfig),
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={files.service_accounts.key}",
        f"--root-ca-file={files.authority.certificate}",
        f"--cluster-signing-cert-file={files.authority.certificate}",
        f"--cluster-signing-key-file={files.authority.key}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--concurrent-deployment-syncs=20",
        "--concurrent-replicaset-syncs=20",
        "--horizontal-pod-autoscaler-sync-period=1s",
        "--horizontal-pod-autoscaler-downscale-stabilization=1s",
        "--node-monitor-period=1s",
        f"--node-monitor-grace-period={reach.node_grace}",
    ]


def scheduler(kubeconfig: Path) -> list[str]:
    """The default profile."""
    return _of_a_component(kubeconfig)


def _of_a_component(kubeconfig: Path) -> list[str]:
    """A client of the API server that serves nothing, has no standby and is not slowed down."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--secure-port=0",
        "--leader-elect=false",
        "--kube-api-qps=1000",
        "--kube-api-burst=2000",
    ]


def kwok(kubeconfig: Path, stages: Path) -> list[str]:
    """The published stages, for the nodes that carry the annotation."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--config={stages}",
        f"--manage-nodes-with-annotation-selector={PLAYED_BY_KWOK}=fake",
        "--manage-all-nodes=false",
        f"--cidr={POD_RANGE}",
        f"--node-ip={NODE_ADDRESS}",
        "--node-lease-duration-seconds=0",
    ]
