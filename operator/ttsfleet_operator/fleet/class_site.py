"""The site of a class in a cluster: one device to size for, of all that its nodes have. Pure.

A class has one plan, so it is sized for the weakest device that its pods may get: the least memory and the lowest
compute capability of all matching nodes, with the profile of the device with the least memory. A shared card counts
as its part: memory divided by the number of replicas. MPS enforces that part; time-slicing does not, and then a
plan that takes more would starve its neighbours, which are most likely pods of the same class. A MIG slice is sized
by its own memory, not by its card's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ttsfleet_operator.api.hardware import HardwareClass
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.errors import PlanError
from ttsfleet_operator.fleet.nodes import DeviceFacts
from ttsfleet_operator.plan_rules import ASSUMED_CORES
from ttsfleet_operator.profiles import Profile, ProfileTable, generic_profile
from ttsfleet_operator.sites import Site, requested_cores, site_of_profile

_LEAST_CAPABILITY = (7, 5)  # assumed of a card that neither labels nor the table describe


@dataclass(frozen=True, order=True)
class _Sized:
    """A device with what labels leave out filled in from the table. Ordered by what makes it weaker."""

    memory_mib: int
    capability: tuple[int, int]
    product: str
    replicas: int
    sharing: str
    assumed: bool

    def __str__(self) -> str:
        return f"{self.product or 'unnamed GPU'} ({self.memory_mib} MiB)"


def site_of_devices(
    service: TTSService, hardware_class: HardwareClass, table: ProfileTable, devices: Sequence[DeviceFacts]
) -> Site:
    """The site of a GPU class; without devices that of its profile or product. Raises PlanError where nothing says
    how large a device is."""
    if not devices:
        return site_of_profile(service, hardware_class, table)
    named = table.named(hardware_class.profile) if hardware_class.profile else None
    kinds = {replace(device, count=1) for device in set(devices)}
    sized = sorted({_sized(device, hardware_class, table, named) for device in kinds})
    weakest = sized[0]
    profile = named or _profile(weakest, table)
    capabilities = frozenset(one.capability for one in sized)
    return Site(
        product=weakest.product or profile.name,
        memory_mib=weakest.memory_mib,
        capability=min(capabilities),
        cores=requested_cores(service) or ASSUMED_CORES,
        profile=profile,
        assumed=weakest.assumed,
        capabilities=capabilities,
        notes=_notes(weakest, sized),
    )


def _sized(device: DeviceFacts, hardware_class: HardwareClass, table: ProfileTable, named: Profile | None) -> _Sized:
    row = table.match(device.product, device.memory_mib)
    card = table.match(device.product.split("-MIG-")[0]) if row is None and device.is_slice else row
    memory = device.memory_mib
    if memory is None:
        memory = _assumed_memory(device, hardware_class, row or named)
    known = card or named
    return _Sized(
        memory_mib=memory // device.replicas,
        capability=device.capability or (known.capability if known is not None else _LEAST_CAPABILITY),
        product=device.product,
        replicas=device.replicas,
        sharing=device.sharing,
        assumed=device.memory_mib is None,
    )


def _assumed_memory(device: DeviceFacts, hardware_class: HardwareClass, row: Profile | None) -> int:
    if row is not None and row.memory_mib:
        return row.memory_mib
    wanted = hardware_class.gpu.memory_mib if hardware_class.gpu is not None else None
    if wanted is not None and wanted.min is not None:
        return wanted.min
    product = device.product or "a GPU without a product label"
    raise PlanError(
        f"class {hardware_class.name}: the nodes do not say how much memory {product} has (label "
        "nvidia.com/gpu.memory is absent) and the sizing table does not know it; give gpu.memoryMiB.min or profile"
    )


def _profile(device: _Sized, table: ProfileTable) -> Profile:
    card_mib = device.memory_mib * device.replicas
    return table.match(device.product, card_mib) or generic_profile(device.memory_mib, device.capability)


def _notes(weakest: _Sized, sized: Sequence[_Sized]) -> tuple[str, ...]:
    notes = []
    products = dict.fromkeys(str(one) for one in sized)
    if len(products) > 1:
        notes.append(
            f"the nodes of this class differ: {', '.join(list(products)[:4])}; sized for the smallest, {weakest}. A "
            "class per product uses each fully"
        )
    if weakest.replicas > 1:
        ends = "" if weakest.sharing == "mps" else "; time-slicing does not keep others from taking more"
        notes.append(
            f"{weakest.product} is shared by {weakest.replicas} ({weakest.sharing}): sized for {weakest.memory_mib} "
            f"MiB, its part of the card{ends}"
        )
    if weakest.assumed:
        notes.append(
            f"the nodes do not say how much memory {weakest.product or 'the GPU'} has: {weakest.memory_mib} MiB are "
            "assumed"
        )
    return tuple(notes)
