"""The configuration files of containerd, kubelet, kube-proxy and CNI on one node. Pure: values in, text out.

Paths that begin with /var are the node's own (see node_init); all others are the same on the host and in the node.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from control_plane.certificates import KeyPair
from real_nodes.layout import CLUSTER_RANGE, DNS_ADDRESS, DOMAIN, POD_RANGE, Place

SANDBOX_IMAGE = "localhost/ttsfleet-e2e/pause:1"
CNI_PLUGINS = "/usr/lib/cni"


@dataclass(frozen=True)
class NodeFiles:
    """The files of one node, all in its folder."""

    folder: Path

    @property
    def containerd_socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def containerd(self) -> Path:
        return self.folder / "etc" / "containerd.toml"

    @property
    def kubelet(self) -> Path:
        return self.folder / "etc" / "kubelet.json"

    @property
    def kube_proxy(self) -> Path:
        return self.folder / "etc" / "kube-proxy.json"

    @property
    def resolv_conf(self) -> Path:
        return self.folder / "etc" / "resolv.conf"

    @property
    def cni(self) -> Path:
        return self.folder / "etc" / "cni"


def containerd(files: NodeFiles, root: str = "/var/lib/containerd", state: str = "/run/containerd") -> str:
    """containerd with runc and the cgroupfs driver. Names of images are resolved nowhere: there is no registry."""
    return f"""\
version = 3
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "{files.containerd_socket}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{SANDBOX_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{CNI_PLUGINS}"]
    conf_dir = "{files.cni}"
"""


def kubelet(place: Place, files: NodeFiles, authority: Path, serving: KeyPair) -> str:
    """A kubelet that beats every two seconds and takes what is set aside for it from nobody."""
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": place.address,
        "healthzBindAddress": "127.0.0.1",
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving.certificate),
        "tlsPrivateKeyFile": str(serving.key),
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(files.resolv_conf),
        "containerRuntimeEndpoint": f"unix://{files.containerd_socket}",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{place.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "serializeImagePulls": False,
        # Otherwise an image that came from an archive is refused under a second name, even with the policy Never.
        "imagePullCredentialsVerificationPolicy": "NeverVerify",
        "imageGCHighThresholdPercent": 100,
        # All nodes share the machine's disk and memory, so the pressure of one would be that of all.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 4,
        "allowedUnsafeSysctls": ["net.*"],
    }
    return json.dumps(settings, indent=1)


def kube_proxy(place: Place, kubeconfig: Path) -> str:
    """kube-proxy in its nftables mode; it leaves the host's connection tracking as it is."""
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_RANGE,
        "detectLocalMode": "ClusterCIDR",
        "hostnameOverride": place.name,
        "bindAddress": place.address,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return json.dumps(settings, indent=1)


def cni(place: Place) -> dict[str, str]:
    """The files of the CNI folder: a cable from the node to each pod, which knows a way to the cluster only.

    Without a bridge between them: what a pod says to another on its node is forwarded as everything else is, and the
    packet filter sees it, whether or not the kernel shows it bridged packets.
    """
    addresses = {
        "type": "host-local",
        "dataDir": "/var/lib/cni/addresses",
        "ranges": [[{"subnet": place.pods}]],
        "routes": [{"dst": CLUSTER_RANGE}],
    }
    cable = {"type": "ptp", "ipMasq": False, "ipam": addresses}
    port_map = {"type": "portmap", "capabilities": {"portMappings": True}}
    network = {"cniVersion": "1.0.0", "name": "ttsfleet-e2e", "plugins": [cable, port_map]}
    return {"10-pods.conflist": json.dumps(network, indent=1)}
