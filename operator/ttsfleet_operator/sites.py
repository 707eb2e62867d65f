"""Where a class would run: a device that was seen, or the one that its profile stands for. Pure.

A site is all that the plan knows of hardware. On a machine it comes from detection, in a cluster from node labels,
and without either from the sizing table (`assumed`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ttsfleet_operator.api.hardware import GPUSelector, HardwareClass
from ttsfleet_operator.api.quantity import quantity_value
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.errors import PlanError
from ttsfleet_operator.machine import GPUDevice, Machine
from ttsfleet_operator.plan_rules import ASSUMED_CORES
from ttsfleet_operator.profiles import CPU_PROFILE, Profile, ProfileTable, generic_profile, normalised, smallest

ECC_SHARE = 0.07  # ECC on GDDR6 takes about 6 % off what the driver reports
MAX_MEMORY_MIB = 1 << 30
_NO_PRODUCT = "no-product"  # of a class whose products are no possible labels: not the same as any product
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Site:
    """Device and cores for one pod or one machine. `device_index` counts the machine's GPUs.

    Of several devices that a pod may get, memory and capability are the smallest.
    """

    product: str
    memory_mib: int
    capability: tuple[int, int]
    cores: int
    profile: Profile
    assumed: bool = False
    device_index: int = 0
    capabilities: frozenset[tuple[int, int]] = frozenset()  # of every device meant, where there are several
    notes: tuple[str, ...] = ()  # what a person should know about how this site was found

    @property
    def all_capabilities(self) -> frozenset[tuple[int, int]]:
        return self.capabilities or frozenset({self.capability})

    @property
    def on_gpu(self) -> bool:
        return self.profile.name != CPU_PROFILE

    @property
    def device(self) -> str:
        """The value of `device` in engine.yaml."""
        return f"cuda:{self.device_index}" if self.on_gpu else "cpu"


def requested_cores(service: TTSService) -> int | None:
    """Whole cores of `spec.resources.requests.cpu`, at least 1; None when absent."""
    requests = service.spec.resources.requests if service.spec.resources else None
    if requests is None or requests.cpu is None:
        return None
    return max(1, int(quantity_value(requests.cpu)))


def memory_limit_mib(service: TTSService) -> int:
    """Whole MiB of `spec.resources.limits.memory`; 0 when absent."""
    limits = service.spec.resources.limits if service.spec.resources else None
    return int(quantity_value(limits.memory)) >> 20 if limits is not None and limits.memory is not None else 0


def site_of_machine(
    service: TTSService, hardware_class: HardwareClass, table: ProfileTable, machine: Machine
) -> Site | None:
    """The site of a class on this machine; None when the class asks for a GPU that is not here."""
    asked = requested_cores(service)
    cores = machine.cores if asked is None else min(machine.cores, asked)
    if hardware_class.gpu is None:
        return cpu_site(table, cores, machine.memory_mib)
    for device in machine.gpus:
        if selects(hardware_class.gpu, device.product, device.memory_mib, table):
            return gpu_site(table, device, cores)
    return None


def site_of_profile(service: TTSService, hardware_class: HardwareClass, table: ProfileTable) -> Site:
    """The site that a class would get in a cluster of which nothing is known: its first product's smallest variant.

    Raises PlanError when the class names neither a known product nor a profile nor a memory.
    """
    cores = requested_cores(service) or ASSUMED_CORES
    if hardware_class.gpu is None:
        return cpu_site(table, cores, 0)
    profile = _assumed_profile(hardware_class, hardware_class.gpu, table)
    return Site(
        product=profile.products[0] if profile.products else profile.name,
        memory_mib=profile.memory_mib,
        capability=profile.capability,
        cores=cores,
        profile=profile,
        assumed=True,
    )


def site_of_product(table: ProfileTable, product: str, cores: int = ASSUMED_CORES) -> Site:
    """The site of a GPU by name, e.g. `rtx-4090` or a product label. Raises PlanError for an unknown one."""
    profile = table.match(product)
    if profile is None:
        known = ", ".join(row.name for row in table.rows)
        raise PlanError(f"GPU {product!r} is not in the sizing table; known: {known}")
    return Site(
        product=profile.products[0] if profile.products else profile.name,
        memory_mib=profile.memory_mib,
        capability=profile.capability,
        cores=cores,
        profile=profile,
        assumed=True,
    )


def cpu_site(table: ProfileTable, cores: int, memory_mib: int) -> Site:
    """The CPU class; memory 0 = unknown, then 16 GiB (the guide's container) is assumed."""
    return Site(
        product="this CPU" if memory_mib else "a CPU node",
        memory_mib=memory_mib or 16384,
        capability=(0, 0),
        cores=cores,
        profile=table.named(CPU_PROFILE),
        assumed=not memory_mib,
    )


def gpu_site(table: ProfileTable, device: GPUDevice, cores: int) -> Site:
    """A device that was seen. One that the table does not know is sized by memory and capability."""
    profile = table.match(device.product, device.memory_mib)
    return Site(
        product=device.product,
        memory_mib=device.memory_mib,
        capability=device.capability,
        cores=cores,
        profile=profile or generic_profile(device.memory_mib, device.capability),
        device_index=device.index,
    )


def selects(selector: GPUSelector, product: str, memory_mib: int, table: ProfileTable) -> bool:
    """Whether a device belongs to the class: its product (any spelling of it) and its memory."""
    low, high = memory_bounds(selector)
    if not low <= memory_mib <= high:
        return False
    wanted = {normalised(value) for value in label_values(selector, table)}
    return not wanted or normalised(product) in wanted


def memory_bounds(selector: GPUSelector) -> tuple[int, int]:
    """The memory in MiB, both included, that a device of the class may report. ECC may take its share off `min`."""
    wanted = selector.memory_mib
    low = max(1, int(wanted.min * (1 - ECC_SHARE))) if wanted is not None and wanted.min is not None else 0
    high = wanted.max if wanted is not None and wanted.max is not None else MAX_MEMORY_MIB
    return low, high


def label_values(selector: GPUSelector, table: ProfileTable) -> tuple[str, ...]:
    """Every value of a product label that belongs to the class, in the class's order; empty = any product.

    A product means itself and what other platforms call its row; a row's name or alias means all products of the
    row. Rows whose memory the class excludes are left out.
    """
    values: list[str] = []
    for wanted in selector.products:
        values.append(as_label_value(wanted))
        low, high = memory_bounds(selector)
        for row in table.variants(wanted):
            if low <= row.memory_mib <= high:
                values += [*_products_meant(wanted, row), *row.aliases]
    spelled = [name for value in values for name in (value, value.removesuffix("-SHARED") + "-SHARED")]
    given = tuple(dict.fromkeys(value for value in spelled if _LABEL_VALUE.fullmatch(value)))
    return given or ((_NO_PRODUCT,) if selector.products else ())


def as_label_value(product: str) -> str:
    """A product's name as GPU feature discovery writes it: without special characters, words joined by `-`."""
    return "-".join(re.sub(r"[^-_.A-Za-z0-9 ]", "", product).split())


def _products_meant(wanted: str, row: Profile) -> tuple[str, ...]:
    same = tuple(product for product in row.products if normalised(product) == normalised(wanted))
    return row.products if wanted.lower() in (row.name, *row.aliases) else same or row.products


def _assumed_profile(hardware_class: HardwareClass, selector: GPUSelector, table: ProfileTable) -> Profile:
    if hardware_class.profile:
        return table.named(hardware_class.profile)
    low, high = memory_bounds(selector)
    for product in selector.products:
        variants = [row for row in table.variants(product) if low <= row.memory_mib <= high]
        if variants:
            return smallest(variants)
    if selector.memory_mib is not None and selector.memory_mib.min is not None:
        return generic_profile(selector.memory_mib.min, (8, 0))
    wanted = ", ".join(selector.products) or "any GPU"
    raise PlanError(
        f"class {hardware_class.name}: {wanted} is not in the sizing table, so there is nothing to size by; "
        "give gpu.memoryMiB.min or profile"
    )
