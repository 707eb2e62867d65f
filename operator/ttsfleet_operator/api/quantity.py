"""Kubernetes quantities: their syntax in a TTSService, and their value for comparisons."""

from __future__ import annotations

import re
from decimal import Decimal

CORES = r"^[0-9]{1,9}(\.[0-9]{1,3}|m)?$"
BYTES = r"^[0-9]{1,15}(\.[0-9]{1,9})?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
POSITIVE_BYTES = r"^0{0,9}[1-9][0-9]{0,14}(\.[0-9]{1,9})?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

_FACTORS = {"": Decimal(1), "m": Decimal("0.001")}
_FACTORS |= {unit: Decimal(1000) ** power for power, unit in enumerate("kMGTP", start=1)}
_FACTORS |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTP", start=1)}


def quantity_value(text: str) -> Decimal:
    """The number that a quantity stands for: `500m` is 0.5, `1Ki` is 1024. Raises ValueError for another text."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)", text)
    if match is None or match[2] not in _FACTORS:
        raise ValueError(f"{text!r} is not a quantity such as 8, 500m, 16Gi")
    return Decimal(match[1]) * _FACTORS[match[2]]
