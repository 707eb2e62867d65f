"""Which nodes belong to a class, how many replicas they hold, and why there are none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ttsfleet_operator.api.hardware import GPUSelector, HardwareClass
from ttsfleet_operator.api.workload import PodSpec, Toleration
from ttsfleet_operator.fleet.affinity import selector_terms, term_admits
from ttsfleet_operator.fleet.nodes import DeviceFacts, NodeFacts, Taint, label_source
from ttsfleet_operator.plan import Problem

_HARD_EFFECTS = ("NoSchedule", "NoExecute")
_GPU_TAINT = "nvidia.com/gpu"  # tolerated by every pod that asks for a device, as is the resource's own name
_PASSING_TAINTS = "node.kubernetes.io/"  # not ready, unschedulable: the facts say so already


@dataclass(frozen=True)
class ClassNodes:
    """The nodes of one class.

    devices: what a pod may get there, one entry per node
    capacity: replicas that ready, schedulable nodes hold (other tenants of the cards are not known)
    problem: why there is no device to plan for, or not every one can be used
    """

    devices: tuple[DeviceFacts, ...]
    capacity: int
    problem: Problem | None
    warnings: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.devices)


def nodes_of_class(
    hardware_class: HardwareClass, products: Sequence[str], pod: PodSpec | None, nodes: Sequence[NodeFacts]
) -> ClassNodes:
    """The nodes that the class's pods may be scheduled to. `products` is the plan's list of label values."""
    selector = hardware_class.gpu
    assert selector is not None, "a class without a device has no nodes of its own"
    pod = pod or PodSpec()
    terms = selector_terms(selector, products)
    offering = [node for node in nodes if selector.resource_name in node.devices]
    admitted = [
        node
        for node in offering
        if _selected(pod.node_selector, node.labels)
        and (not terms or any(term_admits(t, node.labels) for t in terms))
    ]
    tolerated = [node for node in admitted if not untolerated(node.taints, pod.tolerations, selector.resource_name)]
    good = [node for node in tolerated if node.problem is None]
    bad = sorted((node for node in tolerated if node.problem is not None), key=lambda node: node.name)
    devices = tuple(node.devices[selector.resource_name] for node in good)
    capacity = sum(
        device.count for node, device in zip(good, devices, strict=True) if node.ready and not node.unschedulable
    )
    problem = None
    if not good:
        problem = bad[0].problem if bad else _no_match(hardware_class.name, selector, pod, offering, admitted)
    elif unhealthy := [node.name for node in good if node.ready and node.devices[selector.resource_name].lost]:
        where = f"{selector.resource_name} of {_listed(unhealthy)}"
        problem = Problem("DeviceUnhealthy", f"class {hardware_class.name}: {where}: not every device is healthy")
    warnings = tuple(node.problem.message for node in bad if node.problem) if good else ()
    return ClassNodes(devices, capacity, problem, warnings)


def untolerated(taints: Iterable[Taint], tolerations: Sequence[Toleration], resource: str) -> list[Taint]:
    """The taints that keep the class's pods away from a node."""
    return [
        taint
        for taint in taints
        if taint.effect in _HARD_EFFECTS
        and not taint.key.startswith(_PASSING_TAINTS)
        and not (taint.effect == "NoSchedule" and taint.key in (_GPU_TAINT, resource))
        and not any(_tolerates(one, taint) for one in tolerations)
    ]


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", taint.key)
    return toleration.key == taint.key and toleration.value == taint.value


def _selected(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())


def _no_match(
    name: str, selector: GPUSelector, pod: PodSpec, offering: Sequence[NodeFacts], admitted: Sequence[NodeFacts]
) -> Problem:
    """What stands between the class and the nearest nodes, from the outside in."""
    resource = selector.resource_name
    if admitted:
        keys = {t.key for node in admitted for t in untolerated(node.taints, pod.tolerations, resource)}
        why = f"its nodes have the taint {_listed(keys)}; add a toleration to spec.pod.tolerations"
    elif not offering:
        why = f"no node offers {resource}; install the device plugin, or let nodes come: pods wait for them"
    else:
        why = _labels_apart(selector, pod, offering)
    return Problem("NoMatchingNode", f"class {name}: {why}")


def _labels_apart(selector: GPUSelector, pod: PodSpec, offering: Sequence[NodeFacts]) -> str:
    within = [node for node in offering if _selected(pod.node_selector, node.labels)]
    if not within:
        return f"no node with {selector.resource_name} has the labels of spec.pod.nodeSelector"
    if all(label_source(node.labels) is None for node in within):
        return (
            f"nodes offer {selector.resource_name} without a label that names the product; install GPU feature "
            "discovery, or label them with nvidia.com/gpu.product"
        )
    found = {
        f"{device.product} ({device.memory_mib} MiB)" if device.memory_mib else device.product
        for node in within
        if (device := node.devices[selector.resource_name]).product
    }
    wanted = ", ".join(selector.products) or "any product"
    memory = selector.memory_mib
    if memory is not None:
        wanted += f" of {memory.min or 0} to {memory.max or 'any number of'} MiB"
    return f"wanted is {wanted}; nodes have {_listed(found)}. Pods wait until such a node comes"


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:4]) + (", …" if len(ordered) > 4 else "")
