"""`ttsfleet status`: explains a TTSService of a cluster: how it is, why, and what to do. Changes nothing."""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ttsfleet_operator.cli.cluster_access import ClusterAccess, ClusterError, open_cluster
from ttsfleet_operator.cluster.api_errors import ForbiddenError, NotFoundError
from ttsfleet_operator.cluster.kinds import PODS, SERVICES_OF_USERS
from ttsfleet_operator.labels import SERVICE_LABEL
from ttsfleet_operator.status.explain import Explanation, explain
from ttsfleet_operator.status.wire import Raw

_COLOURS = {"Ready": "green", "Suspended": "blue", "Progressing": "yellow", "Stalled": "red", "Unknown": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", default="", help="the TTSService; without it all of the namespace are listed"
    )
    parser.add_argument("-n", "--namespace", default="", help="namespace (default: the context's)")
    parser.add_argument("--kubeconfig", default="", help="file (default: $KUBECONFIG, else ~/.kube/config)")
    parser.add_argument("--context", default="", help="context of the kubeconfig (default: the current one)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def execute(arguments: argparse.Namespace) -> int:
    """Print the explanation. Exit code 1 when a service is neither ready nor suspended."""
    found = asyncio.run(_read(arguments))
    if arguments.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    elif arguments.name:
        print_explanation(found[0], Console())
    else:
        print_list(found, Console())
    return 0 if all(one.well for one in found) else 1


async def _read(arguments: argparse.Namespace) -> list[Explanation]:
    async with open_cluster(arguments.kubeconfig, arguments.context, arguments.namespace) as access:
        now = datetime.now(UTC)
        if arguments.name:
            resource = await _service(access, arguments.name)
            return [explain(resource, await _pods(access, arguments.name), now=now)]
        try:
            resources = await access.client.list_all(SERVICES_OF_USERS, access.namespace)
        except NotFoundError as error:
            raise ClusterError("the cluster has no TTSServices: ttsfleet is not installed there") from error
        return [explain(one, now=now) for one in resources]


async def _service(access: ClusterAccess, name: str) -> Raw:
    try:
        return await access.client.get(SERVICES_OF_USERS, access.namespace, name)
    except NotFoundError as error:
        where = f"namespace {access.namespace}"
        raise ClusterError(f"there is no TTSService {name} in {where}; is it another namespace (-n)?") from error


async def _pods(access: ClusterAccess, name: str) -> list[Raw]:
    """The service's pods; none where the user may not list them."""
    try:
        return list(await access.client.list_all(PODS, access.namespace, f"{SERVICE_LABEL}={name}"))
    except ForbiddenError:
        return []


def print_explanation(found: Explanation, console: Console) -> None:
    """One service as panels and tables."""
    colour = _COLOURS[found.state]
    lines = [Text(found.summary)]
    if found.url:
        lines.append(Text(f"{found.url}   model {found.model}" if found.model else found.url, style="dim"))
    title = f"[bold]{found.namespace}/{found.name}[/bold]: [{colour}]{found.state}[/{colour}]"
    console.print(Panel(Group(*lines), title=title, title_align="left", border_style=colour, box=box.ROUNDED))
    parts: list[RenderableType] = []
    if found.classes:
        parts.append(_classes(found))
    if found.conditions:
        parts.append(_conditions(found))
    if any(pod.state != "Ready" for pod in found.pods):
        parts.append(_pods_table(found))
    for part in parts:
        console.print(part)
    for one in found.advice:
        console.print(Text.assemble((one.reason, "bold red"), f": {one.message}"), soft_wrap=True)
        console.print(Text.assemble("  → ", one.remedy), soft_wrap=True)
    for warning in found.warnings:
        console.print(Text.assemble(("warning", "yellow"), f": {warning}"), soft_wrap=True)
    for note in found.notes:
        console.print(Text.assemble(("note", "dim"), f": {note}"), soft_wrap=True)


def print_list(found: list[Explanation], console: Console) -> None:
    """All services of a namespace, one line each."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("service", "state", "classes"):
        table.add_column(column, no_wrap=True)
    table.add_column("summary", overflow="fold")
    for one in found:
        classes = ", ".join(f"{each.name} {each.replicas}" for each in one.classes)
        table.add_row(one.name, Text(one.state, style=_COLOURS[one.state]), classes, Text(one.summary))
    console.print(table if found else "no TTSService in this namespace")


def _classes(found: Explanation) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("class", "ready"):
        table.add_column(column, no_wrap=True)
    for column in ("profile", "plan", "memory", "plan hash", "problem"):
        table.add_column(column, overflow="fold")
    for one in found.classes:
        plan_hash = f"{one.hash} ({one.pending} pending)" if one.pending else one.hash
        table.add_row(
            one.name, one.replicas, one.profile, one.plan, one.memory, plan_hash, Text(one.problem, style="red")
        )
    return table


def _conditions(found: Explanation) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("condition", "status", "reason", "age"):
        table.add_column(column, no_wrap=True)
    table.add_column("message", overflow="fold")
    for one in found.conditions:
        bad = one.type in ("Stalled", "Degraded") or one.status == "False"
        table.add_row(one.type, Text(one.status, style="red" if bad else ""), one.reason, one.age, Text(one.message))
    return table


def _pods_table(found: Explanation) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("pod", "class", "node", "state"):
        table.add_column(column, overflow="fold")
    for one in found.pods:
        table.add_row(one.name, one.class_name, one.node, one.state)
    return table
