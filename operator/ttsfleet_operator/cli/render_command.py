"""`ttsfleet render`: what the operator would apply, a compose file, or the operator itself. Applies nothing."""

from __future__ import annotations

import argparse
import sys

from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.cli.fleet_inputs import ClusterView, add_cluster_arguments, cluster_view, decide
from ttsfleet_operator.cli.install_rendering import install_manifests
from ttsfleet_operator.cli.options import add_manifest_arguments, read_service
from ttsfleet_operator.errors import PlanError, UsageError
from ttsfleet_operator.fleet.plan import FleetPlan
from ttsfleet_operator.fleet.settings import referenced_keys
from ttsfleet_operator.manifests.compose import render_compose
from ttsfleet_operator.manifests.fleet_objects import render_fleet
from ttsfleet_operator.manifests.yaml_text import dump_yaml
from ttsfleet_operator.plan import ClassPlan
from ttsfleet_operator.pod_layout import FETCHED_SOURCES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_manifest_arguments(parser, required=False)
    parser.add_argument("--install", action="store_true", help="print the installation of the operator instead")
    add_cluster_arguments(parser)
    parser.add_argument("--compose", action="store_true", help="print a compose file for one machine instead")
    parser.add_argument("--class", dest="class_name", default="", help="with --compose: which hardware class")


def execute(arguments: argparse.Namespace) -> int:
    """Print YAML. Exit code 1 when a class cannot run as asked; what is wrong goes to stderr."""
    if arguments.install:
        if arguments.file is not None:
            raise UsageError("--install prints the operator, and -f a service: give one of them")
        sys.stdout.write(install_manifests())
        return 0
    if arguments.file is None:
        raise UsageError("give a TTSService with -f, or --install")
    if arguments.class_name and not arguments.compose:
        raise UsageError("--class goes with --compose: the operator renders every class")
    service = read_service(arguments)
    view = cluster_view(arguments)
    plan = decide(service, view)
    if arguments.compose:
        sys.stdout.write(render_compose(service, _plan_of_class(plan, arguments.class_name), view.settings))
        return 0
    sys.stdout.write(render_text(plan, view))
    for decision in plan.classes:
        if decision.problem is not None:
            print(f"class {decision.name}: {decision.problem.reason}: {decision.problem.message}", file=sys.stderr)
    if plan.problem is not None:
        print(f"{plan.problem.reason}: {plan.problem.message}", file=sys.stderr)
    return 1 if any(decision.bundle is None for decision in plan.classes) else 0


def render_text(plan: FleetPlan, view: ClusterView) -> str:
    """The children as YAML documents in apply order, with notes in the heading."""
    notes = [
        f"What the operator would apply for {plan.service.namespace}/{plan.service.name}.",
        *view.notes,
        *_omissions(plan.service),
    ]
    heading = "".join(f"# {note}\n" for note in notes)
    return heading + "".join(f"---\n{dump_yaml(child)}" for child in render_fleet(plan, view.settings))


def _omissions(service: TTSService) -> list[str]:
    """What the operator would add and a file cannot know."""
    notes = []
    if not service.metadata.uid:
        notes.append("Left out: ownerReferences, which need the uid of the TTSService in a cluster.")
    if service.spec.model.source.kind in FETCHED_SOURCES:
        notes.append(
            "Not read: the addresses of the API server, which the NetworkPolicy leaves out of the pods' reach."
        )
    keys = ", ".join(str(key) for key in referenced_keys(service))
    if keys:
        notes.append(f"Not read: ConfigMap {keys}; annotations that hold a hash of it will differ.")
    return notes


def _plan_of_class(plan: FleetPlan, class_name: str) -> ClassPlan:
    """The plan of the class that is named, else of the first. Raises UsageError or PlanError."""
    names = [decision.name for decision in plan.classes]
    wanted = class_name or names[0]
    for decision in plan.classes:
        if decision.name == wanted:
            if decision.plan is None or decision.bundle is None:
                reason = decision.problem.message if decision.problem is not None else "there is no plan"
                raise PlanError(f"class {wanted} cannot run as asked: {reason}")
            return decision.plan
    raise UsageError(f"--class {class_name}: {plan.service.name} has the classes {', '.join(names)}")
