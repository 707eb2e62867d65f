"""Which binaries the control plane is made of, which versions are pinned, and where they are once built.

The versions are those of the go.mod files in e2e/cluster. The binaries live outside the tree in a folder named by the
hash of everything that decides them, so that trees with the same pins share one build. Standard library only: it is
read before anything is installed.
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


@dataclass(frozen=True)
class Binary:
    """One binary: the folder of its Go module in e2e/cluster, its package, the module whose version it carries.

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
)
CONTROL_PLANE = ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "kwok", "kubectl", STAGES)


def cache_root() -> Path:
    """The folder of all builds: $XDG_CACHE_HOME (or ~/.cache)/ttsfleet-e2e."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ttsfleet-e2e"


def fingerprint() -> str:
    """The hash of all that decides the binaries: the pinned modules, how they are built, the machine's kind."""
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()} {BINARIES}".encode())
    for path in sorted(CLUSTER_DIR.glob("*/go.*")):
        digest.update(f"\0{path.relative_to(CLUSTER_DIR)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def folder() -> Path:
    """Where the binaries of this tree's pins are, built or not."""
    return cache_root() / fingerprint() / "bin"


def missing(names: tuple[str, ...] = CONTROL_PLANE) -> list[str]:
    """The names that are not built yet."""
    return [name for name in names if not (folder() / name).exists()]


def path_of(name: str) -> Path:
    """The path of a built binary.

    Raises:
        BinariesMissing: it is not built.
    """
    path = folder() / name
    if not path.exists():
        raise BinariesMissing(f"{name} is not built (looked in {path.parent}); build it with `{BUILD_COMMAND}`")
    return path
