"""Which CPUs each stage gets where a pod has CPUs of its own (kubelet's static CPU manager). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ttsfleet_runtime.config.engine import EngineConfig
from ttsfleet_runtime.config.machine import Machine


def is_exclusive(config: EngineConfig, machine: Machine) -> bool:
    """Whether the CPUs that were to be this pod's alone are. A pod that shares sees all CPUs of the machine, or those
    that the exclusive ones have left: rarely as many as it asked for, and never on a machine of that size."""
    return config.exclusive_cpus == len(machine.cpus) < machine.online


def exclusive_order(machine: Machine, *, by_node: bool) -> tuple[int, ...]:
    """The usable CPUs by number, or NUMA node by node with the GPU's node last, where LLM and decode begin."""
    if not by_node:
        return machine.cpus
    node_of = {cpu: node for node, cpus in machine.numa_nodes.items() for cpu in cpus}

    def place(cpu: int) -> tuple[bool, int, int]:
        node = node_of.get(cpu, -1)
        return node == machine.gpu_node, node, cpu

    return tuple(sorted(machine.cpus, key=place))


def split_cpus(cpus: Sequence[int], shares: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Neighbouring CPUs for each stage, by its share and at least one; every CPU belongs to one stage.

    Args:
        cpus: at least one per stage, in the order in which they are given out.
        shares: threads that compute at the same time, by stage, each 1 or more.
    """
    spare, total = len(cpus) - len(shares), sum(shares.values())
    found, begin, passed = {}, 0, 0
    for number, (stage, share) in enumerate(shares.items(), start=1):
        passed += share
        end = number + spare * passed // total
        found[stage] = tuple(cpus[begin:end])
        begin = end
    return found
