"""What `plan` and `render` know of a cluster: nodes and profiles from a file, from GPU names, or from the API server.

Without any of them nothing is known of nodes, and classes are sized by the sizing table. Nothing is written anywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ttsfleet_operator.api.gpu_profile import PROFILE_KIND
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.errors import PlanError, TTSFleetError, UsageError
from ttsfleet_operator.fleet.nodes import NodeFacts, read_node
from ttsfleet_operator.fleet.plan import FleetPlan, plan_fleet
from ttsfleet_operator.fleet.settings import FleetSettings, References, referenced_keys
from ttsfleet_operator.manifests.pod_template import pod_template
from ttsfleet_operator.operator_settings import read_settings
from ttsfleet_operator.profiles import Profile, ProfileTable, builtin_profiles, read_profile_object

Raw = Mapping[str, Any]
UNREAD = "not-read"  # stands for the content of a ConfigMap that this command does not look at


@dataclass(frozen=True)
class ClusterView:
    """What was asked for or found. `nodes` None = nothing is known of nodes."""

    nodes: tuple[NodeFacts, ...] | None
    table: ProfileTable
    settings: FleetSettings
    notes: tuple[str, ...] = field(default=())


def add_cluster_arguments(parser: argparse.ArgumentParser, *, gpus: bool = True) -> argparse._MutuallyExclusiveGroup:
    """`--nodes`, `--kubeconfig` and, unless the command has its own, `--gpu`; at most one of the group, which is
    returned."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--nodes",
        type=Path,
        metavar="FILE",
        help="nodes as `kubectl get nodes -o yaml` prints them, and TTSGPUProfiles",
    )
    group.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="read nodes and TTSGPUProfiles of this cluster"
    )
    if gpus:
        group.add_argument(
            "--gpu", nargs="+", default=[], metavar="NAME", help="GPUs that the cluster has, e.g. rtx-4090 NVIDIA-L4"
        )
    return group


def cluster_view(arguments: argparse.Namespace) -> ClusterView:
    """What the arguments give. Raises UsageError or PlanError for what cannot be read or is not known."""
    settings = read_settings(os.environ).fleet
    table = builtin_profiles()
    if arguments.nodes is not None:
        return _view(_objects_of_file(arguments.nodes), table, settings)
    if arguments.kubeconfig is not None:
        return asyncio.run(_view_of_cluster(arguments.kubeconfig, table, settings))
    names = getattr(arguments, "gpu", [])
    if names:
        nodes = tuple(read_node(node_with(table, name, number)) for number, name in enumerate(names, start=1))
        return ClusterView(nodes, table, settings)
    note = "no nodes were given: classes are sized by the sizing table"
    return ClusterView(None, table, settings, (note,))


def decide(service: TTSService, view: ClusterView) -> FleetPlan:
    """The operator's plan of `service` for its first pods. Referenced ConfigMaps count as present."""
    references = References(dict.fromkeys(referenced_keys(service), UNREAD))
    return plan_fleet(service, view.table, view.nodes, {}, view.settings, references, pod_template)


def node_with(table: ProfileTable, name: str, number: int) -> dict[str, Any]:
    """A Node object with one GPU of the sizing table, labelled as feature discovery would. Raises PlanError."""
    row = table.match(name)
    if row is None or not row.products:
        known = ", ".join(one.name for one in table.rows if one.products)
        raise PlanError(f"GPU {name!r} is not in the sizing table; known: {known}")
    major, minor = row.capability
    labels = {
        "nvidia.com/gpu.product": row.products[0],
        "nvidia.com/gpu.memory": str(row.memory_mib),
        "nvidia.com/gpu.compute.major": str(major),
        "nvidia.com/gpu.compute.minor": str(minor),
        "nvidia.com/gpu.count": "1",
    }
    devices = {"nvidia.com/gpu": "1"}
    ready = [{"type": "Ready", "status": "True"}]
    return {
        "kind": "Node",
        "metadata": {"name": f"{row.name}-{number}", "labels": labels},
        "status": {"allocatable": devices, "capacity": devices, "conditions": ready},
    }


def _objects_of_file(path: Path) -> list[Raw]:
    try:
        documents = list(yaml.load_all(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--nodes {path}: {getattr(error, 'strerror', None) or 'is not text'}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"--nodes {path}: is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    objects: list[Raw] = []
    for document in documents:
        if not isinstance(document, dict):
            continue
        items = document.get("items")
        objects += [item for item in items if isinstance(item, dict)] if isinstance(items, list) else [document]
    if not any(one.get("kind", "Node") == "Node" for one in objects):
        raise UsageError(f"--nodes {path}: holds no Node; write it with `kubectl get nodes -o yaml`")
    return objects


def _view(objects: Sequence[Raw], table: ProfileTable, settings: FleetSettings) -> ClusterView:
    nodes = tuple(read_node(one) for one in objects if one.get("kind", "Node") == "Node")
    rows: list[Profile] = []
    notes = []
    for one in objects:
        if one.get("kind") == PROFILE_KIND:
            found = read_profile_object(one)
            if found.row is not None:
                rows.append(found.row)
            else:
                notes.append(f"ignored: {found.error}")
    return ClusterView(nodes, table.extended(rows), settings, tuple(notes))


async def _view_of_cluster(kubeconfig: Path, table: ProfileTable, settings: FleetSettings) -> ClusterView:
    """Nodes, profiles and whether there are ServiceMonitors, from the API server. Imports the client only here."""
    from dataclasses import replace

    from kubernetes.aio.config.config_exception import ConfigException

    from ttsfleet_operator.cluster.api_errors import APIError
    from ttsfleet_operator.cluster.client import connect
    from ttsfleet_operator.cluster.kinds import GPU_PROFILES, NODES, SERVICE_MONITORS

    try:
        client = await connect(str(kubeconfig), user_agent="ttsfleet")
    except (ConfigException, OSError) as error:
        raise UsageError(f"--kubeconfig {kubeconfig}: {error}") from error
    try:
        objects: list[Raw] = list(await client.list_all(NODES))
        if await client.serves(GPU_PROFILES):
            objects += await client.list_all(GPU_PROFILES)
        monitors = await client.serves(SERVICE_MONITORS)
    except APIError as error:
        raise TTSFleetError(f"--kubeconfig {kubeconfig}: the API server answered: {error}") from error
    finally:
        await client.close()
    return _view(objects, table, replace(settings, service_monitors=monitors))
