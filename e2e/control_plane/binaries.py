"""Which binaries the control plane and the nodes are made of, which versions are pinned, and where they are.

The versions are those of the go.mod files in e2e/cluster. The binaries live outside the tree, those of one module in
a folder named by the hash of everything that decides them: trees with the same pins share one build, and a change of
one module leaves what the others gave. Standard library only: it is read before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from control_plane.errors import BinariesMissing

CLUSTER_DIR = Path(__file__).resolve().parents[1] / "cluster"
STAGES = "kwok-stages.yaml"
BUILD_COMMAND = "make cluster-binaries"
NODE_BUILD_COMMAND = "make node-binaries"


@dataclass(frozen=True)
class Binary:
    """One binary: the folder of its Go module in e2e/cluster, its package, the module whose version it carries.

    A program of our own has the module "": its source is in the folder.
    `version_variables` are the Go variables that the version is linked into; "{version}" is v1.2.3, "{plain}" 1.2.3,
    "{major}" and "{minor}" its first numbers.
    """

    name: str
    folder: str
    package: str
    module: str
    version_variables: tuple[str, ...] = ()

    def version(self) -> str:
        """The pinned version of the module, as in v1.36.3."""
        if not self.module:
            return "v0.0.0"
        text = (CLUSTER_DIR / self.folder / "go.mod").read_text(encoding="utf-8")
        match = re.search(rf"^\s*(?:require )?{re.escape(self.module)} (v\S+)", text, re.MULTILINE)
        assert match, f"{self.folder}/go.mod does not require {self.module}"
        return match[1]

    def linker_flags(self) -> str:
        """The -ldflags: no symbols, and the version where the program looks for its own."""
        version = self.version()
        major, minor = version.removeprefix("v").split(".")[:2]
        values = {"version": version, "plain": version.removeprefix("v"), "major": major, "minor": minor}
        return " ".join(["-s -w", *(f"-X {variable.format(**values)}" for variable in self.version_variables)])


def _containerd(name: str) -> Binary:
    module = "github.com/containerd/containerd/v2"
    return Binary(name, "containerd", f"{module}/cmd/{name}", module, (f"{module}/version.Version={{version}}",))


def _kubernetes(name: str) -> Binary:
    """Without these versions the API server reports v0.0.0 and clients refuse it."""
    variables = tuple(
        f"k8s.io/{package}/version.{variable}"
        for package in ("component-base", "client-go/pkg")
        for variable in ("gitVersion={version}", "gitMajor={major}", "gitMinor={minor}", "gitTreeState=clean")
    )
    return Binary(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", "k8s.io/kubernetes", variables)


# In the order of building: what a control plane needs comes first, so that it can start while the rest is built.
BINARIES = (
    _kubernetes("kube-apiserver"),
    Binary("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    Binary("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", "sigs.k8s.io/kwok"),
    _kubernetes("kubectl"),
    Binary(
        "helm",
        "helm",
        "helm.sh/helm/v3/cmd/helm",
        "helm.sh/helm/v3",
        ("helm.sh/helm/v3/internal/version.version={version}",),
    ),
    Binary(
        "kubeconform",
        "kubeconform",
        "github.com/yannh/kubeconform/cmd/kubeconform",
        "github.com/yannh/kubeconform",
        ("main.version={version}",),
    ),
    Binary("coredns", "coredns", "github.com/coredns/coredns", "github.com/coredns/coredns"),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2"),
    _containerd("ctr"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    Binary("pod", "pod", ".", ""),
    Binary("device-plugin", "device-plugin", ".", ""),
)
CONTROL_PLANE = ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "kwok", "kubectl", STAGES)
NODES = ("containerd", "containerd-shim-runc-v2", "ctr", "kubelet", "kube-proxy", "coredns", "pod", "device-plugin")
# What one command builds: the control plane's tests do not wait for what only nodes need.
GROUPS = {
    "control-plane": (*CONTROL_PLANE, "helm", "kubeconform", "coredns"),
    "nodes": NODES,
}


def cache_root() -> Path:
    """The folder of all builds: $XDG_CACHE_HOME (or ~/.cache)/ttsfleet-e2e."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ttsfleet-e2e"


def fingerprint(module_folder: str) -> str:
    """The hash of all that decides a module's binaries: its pins and sources, how it is built, the machine's kind."""
    built = [binary for binary in BINARIES if binary.folder == module_folder]
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()} {built}".encode())
    for path in sorted((CLUSTER_DIR / module_folder).glob("*go*")):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def expected_path(name: str) -> Path:
    """Where a binary of this tree's pins is, built or not."""
    module_folder = next((binary.folder for binary in BINARIES if binary.name == name), "kwok")
    return cache_root() / "bin" / f"{module_folder}-{fingerprint(module_folder)}" / name


def missing(names: tuple[str, ...] = CONTROL_PLANE) -> list[str]:
    """The names that are not built yet."""
    return [name for name in names if not expected_path(name).exists()]


def path_of(name: str) -> Path:
    """The path of a built binary.

    Raises:
        BinariesMissing: it is not built.
    """
    path = expected_path(name)
    if not path.exists():
        command = BUILD_COMMAND if name in GROUPS["control-plane"] else NODE_BUILD_COMMAND
        raise BinariesMissing(f"{name} is not built (looked in {path.parent}); build it with `{command}`")
    return path
