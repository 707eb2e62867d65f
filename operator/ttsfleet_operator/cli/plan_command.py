"""`ttsfleet plan`: what each class of a TTSService becomes, with the origin of every value. Starts nothing."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ttsfleet_operator.api.hardware import GPUSelector, HardwareClass
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.cli.fleet_inputs import add_cluster_arguments, cluster_view, decide
from ttsfleet_operator.cli.options import add_manifest_arguments, read_service
from ttsfleet_operator.cluster_notes import cluster_notes
from ttsfleet_operator.fleet.plan import ClassDecision, FleetPlan
from ttsfleet_operator.machine import Machine, detect_machine
from ttsfleet_operator.plan import ClassPlan, Origin, plan_class
from ttsfleet_operator.profiles import ProfileTable, builtin_profiles
from ttsfleet_operator.sites import Site, requested_cores, site_of_machine, site_of_product, site_of_profile

_STYLES = {
    Origin.SPEC: "cyan",
    Origin.CLASS: "cyan",
    Origin.RESOURCES: "cyan",
    Origin.PROFILE: "",
    Origin.GUIDE: "dim",
    Origin.MEMORY: "yellow",
    Origin.DEVICE: "yellow",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_manifest_arguments(parser)
    device = add_cluster_arguments(parser, gpus=False)
    device.add_argument("--gpu", default="", help="plan for this GPU, e.g. rtx-4090 or NVIDIA-L4")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def execute(arguments: argparse.Namespace) -> int:
    """Print the plans. Exit code 1 when one of them cannot run as asked."""
    service = read_service(arguments)
    if arguments.nodes is not None or arguments.kubeconfig is not None:
        return _plan_for_cluster(decide(service, cluster_view(arguments)), arguments.json)
    plans = make_plans(service, builtin_profiles(), detect_machine(), arguments.gpu)
    if arguments.json:
        print(json.dumps(plans_as_json(service, plans, cluster_notes(service)), indent=1))
    else:
        print_plans(plans, cluster_notes(service), Console())
    return 1 if any(plan.problem is not None for plan in plans) else 0


def _plan_for_cluster(fleet: FleetPlan, as_json: bool) -> int:
    """As the operator would decide on the nodes that were given. Exit code 1 when a class cannot run."""
    plans = [decision.plan for decision in fleet.classes if decision.plan is not None]
    notes = [note for decision in fleet.classes for note in _decision_notes(decision)]
    if fleet.problem is not None:
        notes.append(f"{fleet.problem.reason}: {fleet.problem.message}")
    if as_json:
        report = plans_as_json(fleet.service, plans, notes)
        report["replicas"] = {decision.name: decision.desired for decision in fleet.classes}
        report["nodes"] = {decision.name: decision.matching_nodes for decision in fleet.classes}
        print(json.dumps(report, indent=1))
    else:
        print_plans(plans, notes, Console())
    return 1 if any(decision.bundle is None for decision in fleet.classes) else 0


def _decision_notes(decision: ClassDecision) -> list[str]:
    """Replicas and nodes of a class in a sentence, and what the plan of the class does not say itself."""
    nodes = "" if decision.matching_nodes is None else f", matching nodes {decision.matching_nodes}"
    notes = [f"class {decision.name}: replicas {decision.desired}{nodes}"]
    known = decision.plan.problem if decision.plan is not None else None
    if decision.problem is not None and decision.problem != known:
        notes.append(f"{decision.problem.reason}: {decision.problem.message}")
    return notes


def make_plans(service: TTSService, table: ProfileTable, machine: Machine, gpu: str) -> list[ClassPlan]:
    """One plan per class: for a named GPU, else for this machine's device, else for the profile's.

    With `gpu`, CPU classes are left out, unless nothing else is there.
    """
    classes = service.spec.hardware.classes
    if gpu:
        wanted = tuple(one for one in classes if one.gpu is not None)
        classes = wanted or (HardwareClass(name=table_name(gpu), gpu=GPUSelector()),)
    return [plan_class(service, one, table, _site(service, one, table, machine, gpu)) for one in classes]


def table_name(gpu: str) -> str:
    """A class name made of a GPU's: lower case, at most 20 characters."""
    return "-".join(gpu.lower().replace("_", "-").split())[:20].strip("-")


def _site(
    service: TTSService, hardware_class: HardwareClass, table: ProfileTable, machine: Machine, gpu: str
) -> Site:
    if gpu:
        cores = requested_cores(service)
        return site_of_product(table, gpu, cores) if cores else site_of_product(table, gpu)
    here = site_of_machine(service, hardware_class, table, machine)
    return here or site_of_profile(service, hardware_class, table)


def plans_as_json(service: TTSService, plans: list[ClassPlan], notes: list[str]) -> dict[str, Any]:
    return {
        "service": service.name,
        "classes": [_plan_as_json(plan) for plan in plans],
        "notes": notes,
    }


def _plan_as_json(plan: ClassPlan) -> dict[str, Any]:
    return {
        "name": plan.class_name,
        "profile": plan.profile.name,
        "device": {
            "kind": "gpu" if plan.site.on_gpu else "cpu",
            "product": plan.site.product,
            "memoryMiB": plan.site.memory_mib,
            "assumed": plan.site.assumed,
            "cores": plan.site.cores,
        },
        "values": [asdict(value) for value in plan.values],
        "memory": {
            "estimatedMiB": plan.memory.total_mib,
            "usableMiB": plan.memory.usable_mib,
            "deviceMiB": plan.memory.device_mib,
            "parts": dict(plan.memory.parts),
        },
        "problem": None if plan.problem is None else asdict(plan.problem),
        "warnings": list(plan.warnings),
    }


def print_plans(plans: list[ClassPlan], notes: list[str], console: Console) -> None:
    for plan in plans:
        console.print(_table(plan))
        memory = plan.memory
        parts = ", ".join(f"{name} {size}" for name, size in memory.parts if size)
        what = "GPU memory" if plan.site.on_gpu else "Memory"
        console.print(
            f"{what}: [bold]{memory.total_mib} MiB[/bold] estimated of {memory.usable_mib} usable "
            f"({memory.device_mib} in all): {parts}",
            highlight=False,
            soft_wrap=True,
        )
        for warning in plan.warnings:
            console.print(f"[yellow]warning[/yellow]: {warning}", highlight=False, soft_wrap=True)
        if plan.problem is not None:
            console.print(
                f"[red]{plan.problem.reason}[/red]: {plan.problem.message}", highlight=False, soft_wrap=True
            )
        console.print()
    for note in notes:
        console.print(f"[dim]note[/dim]: {note}", highlight=False, soft_wrap=True)


def _table(plan: ClassPlan) -> Table:
    device = f"{plan.site.product}, {plan.site.cores} cores"
    table = Table(
        title=f"Class {plan.class_name}: {device}, profile {plan.profile.name}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in ("parameter", "value", "origin"):
        table.add_column(column, no_wrap=True)
    table.add_column("reason", overflow="fold")
    for value in plan.values:
        shown = str(value.value).lower() if isinstance(value.value, bool) else str(value.value)
        table.add_row(value.name, shown, value.origin.value, value.reason, style=_STYLES[value.origin])
    return table
