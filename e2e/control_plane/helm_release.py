"""The chart on a control plane: helm and kubectl on one release."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from control_plane import binaries
from control_plane.cluster import Cluster
from control_plane.errors import CommandFailed

Manifest: TypeAlias = dict[str, Any]


class HelmRelease:
    """A release of a chart in its namespace, which must exist. `folder` is for what helm writes beside it."""

    def __init__(self, cluster: Cluster, folder: Path, name: str, namespace: str) -> None:
        self.cluster = cluster
        self.name = name
        self.namespace = namespace
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(cluster.kubeconfig),
            "HELM_CACHE_HOME": str(folder / "cache"),
            "HELM_CONFIG_HOME": str(folder / "config"),
            "HELM_DATA_HOME": str(folder / "data"),
        }

    def helm(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        """Runs helm and returns what it printed.

        Raises:
            CommandFailed: it ended with an error; `stderr` is what it said.
        """
        command = [str(binaries.path_of("helm")), *arguments, *(["--values", "-"] if values else [])]
        answer = subprocess.run(
            command,
            input=json.dumps(values or {}),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if answer.returncode:
            raise CommandFailed(" ".join(command), answer.returncode, answer.stdout, answer.stderr)
        return answer.stdout

    def upgrade(self, chart: Path, values: Mapping[str, Any] | None = None) -> list[Manifest]:
        """Installs or upgrades with exactly these values; returns what the release consists of."""
        place = ["-n", self.namespace, "--reset-values"]
        self.helm("upgrade", "--install", self.name, str(chart), *place, values=values)
        return self.objects()

    def uninstall(self) -> None:
        """Removes the release and waits for its objects to go."""
        self.helm("uninstall", self.name, "-n", self.namespace, "--wait")

    def objects(self) -> list[Manifest]:
        """What the release consists of, as the chart rendered it."""
        text = self.helm("get", "manifest", self.name, "-n", self.namespace)
        return [one for one in yaml.safe_load_all(text) if one]

    def live(self, manifest: Manifest) -> Manifest:
        """The object as the API server holds it."""
        metadata = manifest["metadata"]
        group, _, version = manifest["apiVersion"].rpartition("/")
        kind = f"{manifest['kind']}.{version}.{group}" if group else manifest["kind"]
        found: Manifest = self.cluster.get(kind, metadata["name"], metadata.get("namespace"))
        return found


def install_chart(cluster: Cluster, chart: Path, folder: Path, namespace: str) -> HelmRelease:
    """The chart with its defaults under Pod Security `restricted`; beside it the namespace `speech`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "speech"}},
    )
    release = HelmRelease(cluster, folder, "ttsfleet", namespace)
    release.upgrade(chart)
    cluster.wait_for_definitions()
    return release


def operator_settings(release: HelmRelease) -> dict[str, str]:
    """What the chart's Deployment gives the operator, as `OperatorProcess` takes it: names without their prefix."""
    deployment = next(one for one in release.objects() if one["kind"] == "Deployment")
    variables: list[Manifest] = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    given = {one["name"]: one["value"] for one in variables if "value" in one}
    prefix = "TTSFLEET_"
    assert all(name.startswith(prefix) for name in given), given
    return {name.removeprefix(prefix): value for name, value in given.items()} | {"NAMESPACE": release.namespace}
