"""Which CPUs the stages get where a pod has CPUs of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttsfleet_runtime.config.engine import EngineConfig
from ttsfleet_runtime.config.exclusive import exclusive_order, is_exclusive, split_cpus
from ttsfleet_runtime.config.machine import Machine, detect_machine

NODES = {0: (0, 1, 4, 5), 1: (2, 3, 6, 7)}


def machine(*cpus: int, online: int = 8, gpu_node: int | None = None) -> Machine:
    return Machine(
        cores=len(cpus), memory_bytes=1 << 34, cpus=cpus, online=online, numa_nodes=NODES, gpu_node=gpu_node
    )


@pytest.mark.parametrize(
    ("asked", "seen", "exclusive"),
    [
        pytest.param(4, machine(0, 1, 2, 3), True, id="as many as asked, of more"),
        pytest.param(4, machine(0, 1, 2, 3, 4, 5), False, id="the shared pool"),
        pytest.param(4, machine(0, 1, 2, 3, online=4), False, id="the whole machine"),
        pytest.param(4, machine(0, 1, 2, 3, online=0), False, id="a machine that does not tell"),
        pytest.param(None, machine(0, 1, 2, 3), False, id="nothing asked"),
    ],
)
def test_cpus_are_exclusive_only_when_their_number_says_so(asked: int | None, seen: Machine, exclusive: bool) -> None:
    assert is_exclusive(EngineConfig(exclusive_cpus=asked), seen) is exclusive


@pytest.mark.parametrize(
    ("by_node", "gpu_node", "order"),
    [
        pytest.param(False, 0, (1, 2, 4, 7), id="by number"),
        pytest.param(True, None, (1, 4, 2, 7), id="by node"),
        pytest.param(True, 0, (2, 7, 1, 4), id="the GPU's node last"),
    ],
)
def test_cpus_are_given_out_in_order(by_node: bool, gpu_node: int | None, order: tuple[int, ...]) -> None:
    assert exclusive_order(machine(1, 2, 4, 7, gpu_node=gpu_node), by_node=by_node) == order


@pytest.mark.parametrize(
    ("count", "shares", "sizes"),
    [
        pytest.param(4, (2, 2, 2), (1, 1, 2), id="one each, the rest to the last"),
        pytest.param(8, (4, 4, 4), (2, 3, 3), id="equal shares"),
        pytest.param(16, (1, 8, 8), (1, 7, 8), id="one encoder among many threads"),
        pytest.param(3, (9, 1, 1), (1, 1, 1), id="no fewer than one"),
    ],
)
def test_every_cpu_belongs_to_one_stage(count: int, shares: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    found = split_cpus(range(count), dict(zip(("encode", "llm", "decode"), shares, strict=True)))
    assert tuple(len(found[stage]) for stage in ("encode", "llm", "decode")) == sizes
    assert [cpu for cpus in found.values() for cpu in cpus] == list(range(count))


def test_the_node_of_the_gpu_is_that_of_its_pci_address(tmp_path: Path) -> None:
    (tmp_path / "proc/driver/nvidia/gpus/0000:3B:00.0").mkdir(parents=True)
    device = tmp_path / "sys/bus/pci/devices/0000:3b:00.0"
    device.mkdir(parents=True)
    (device / "numa_node").write_text("1\n")
    (tmp_path / "sys/devices/system/cpu").mkdir(parents=True)
    (tmp_path / "sys/devices/system/cpu/online").write_text("0-5,8\n")
    found = detect_machine("cpu", tmp_path)
    assert (found.gpu_node, found.online) == (1, 7)
    (device / "numa_node").write_text("-1\n")
    assert detect_machine("cpu", tmp_path).gpu_node is None
