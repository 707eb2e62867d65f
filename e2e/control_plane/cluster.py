"""A cluster that tests use through kubectl: the part that is the same on our own control plane and on a given one."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import textwrap
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from control_plane import binaries
from control_plane.errors import ClusterRefused, CommandFailed
from control_plane.waiting import eventually

ALLOWED_CONTEXTS = "kind-*,k3d-*,minikube"


class Cluster:
    """A cluster behind a kubeconfig. `discovery_cache` is the folder in which kubectl keeps what a cluster serves."""

    def __init__(self, kubeconfig: Path, discovery_cache: Path) -> None:
        self._kubeconfig = kubeconfig
        self._discovery_cache = discovery_cache

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of an administrator."""
        return self._kubeconfig

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - the word that subprocess uses
        kubeconfig: Path | None = None,
        timeout: float = 120,
    ) -> str:
        """Runs kubectl (as the administrator unless a kubeconfig is given) and returns what it printed.

        Raises:
            CommandFailed: it ended with an error; `stderr` is what it said.
        """
        # A discovery cache of its own: the user's would carry what an earlier cluster at the same port knew.
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "KUBECACHEDIR": str(self._discovery_cache),
        }
        answer = subprocess.run(
            [binaries.path_of("kubectl"), *arguments],
            input=input,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if answer.returncode:
            command = textwrap.shorten(f"kubectl {' '.join(arguments)}", 300, placeholder=" …")
            raise CommandFailed(command, answer.returncode, answer.stdout, answer.stderr)
        return answer.stdout

    def get(self, kind: str, name: str | None = None, namespace: str | None = None, selector: str = "") -> Any:
        """An object as a dict when a name is given, else the list of objects of that kind."""
        arguments = ["get", kind, "-o", "json", *([name] if name else [])]
        arguments += ["-n", namespace] if namespace else [] if name else ["-A"]
        arguments += ["-l", selector] if selector else []
        answer = json.loads(self.kubectl(*arguments))
        return answer if name else answer["items"]

    def find(self, kind: str, name: str, namespace: str | None = None) -> Any | None:
        """An object as a dict, or None when it does not exist."""
        try:
            return self.get(kind, name, namespace)
        except CommandFailed as error:
            if "(NotFound)" in error.stderr:
                return None
            raise

    def apply(self, *objects: Mapping[str, Any], kubeconfig: Path | None = None) -> str:
        """Applies objects on the server's side as the field manager `kubectl`."""
        manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        return self.kubectl("apply", "--server-side", "-f", "-", input=manifest, kubeconfig=kubeconfig)

    def wait_for_definitions(self) -> None:
        """Waits until every CRD is served. `kubectl wait` ends with an error on one that has no status yet."""

        def established() -> bool:
            return all(
                any(
                    (condition["type"], condition["status"]) == ("Established", "True")
                    for condition in (crd.get("status") or {}).get("conditions") or ()
                )
                for crd in self.get("crd")
            )

        eventually(established, "CRDs are established")

    @contextmanager
    def namespace(self, prefix: str = "test", labels: Mapping[str, str] | None = None) -> Iterator[str]:
        """A fresh namespace with its default service account, deleted at the end (without waiting for it)."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        metadata = {"name": name, "labels": dict(labels or {})}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        try:
            eventually(
                lambda: self.find("serviceaccount", "default", name),
                f"the default service account of {name}",
                every=0.1,
            )
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


class GivenCluster(Cluster):
    """The cluster of E2E_KUBECONFIG. What needs a control plane of our own is refused by the fixtures."""

    def __init__(self, kubeconfig: Path, allowed_contexts: Sequence[str]) -> None:
        """Raises:
        ClusterRefused: the current context is not one that tests may change.
        """
        super().__init__(kubeconfig, binaries.cache_root() / "kubectl")
        context = self._current_context()
        if not any(fnmatch.fnmatchcase(context, pattern) for pattern in allowed_contexts):
            raise ClusterRefused(
                f"the tests create and delete things in the cluster, and the current context of {kubeconfig} is "
                f"{context!r}; allowed are {', '.join(allowed_contexts)}. Choose another context, or allow this one: "
                f"E2E_ALLOWED_CONTEXTS={context}"
            )

    def _current_context(self) -> str:
        if not self.kubeconfig.is_file():
            raise ClusterRefused(f"E2E_KUBECONFIG={self.kubeconfig}: no such file")
        try:
            return self.kubectl("config", "current-context").strip()
        except CommandFailed as error:
            raise ClusterRefused(
                f"E2E_KUBECONFIG={self.kubeconfig} has no current context: {error.stderr}"
            ) from error


def given_cluster(environment: Mapping[str, str]) -> GivenCluster | None:
    """The cluster that E2E_KUBECONFIG names, or None; E2E_ALLOWED_CONTEXTS lists the contexts allowed."""
    if not (path := environment.get("E2E_KUBECONFIG")):
        return None
    allowed = environment.get("E2E_ALLOWED_CONTEXTS") or ALLOWED_CONTEXTS
    return GivenCluster(Path(path).resolve(), [pattern.strip() for pattern in allowed.split(",") if pattern.strip()])
