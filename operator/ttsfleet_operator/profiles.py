"""The sizing table: which engine values suit which device. Data and look-up; the decisions are in `plan`.

`profiles.yaml` is package data that chart, command and operator read. Labels are matched loosely on purpose:
feature discovery writes `NVIDIA-GeForce-RTX-4090`, the driver `NVIDIA GeForce RTX 4090`, GKE `nvidia-l4`, and
time-slicing appends `-SHARED`. Of two rows for one product the nearest memory wins: ECC takes about 6 % off.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import StringConstraints, ValidationError

from ttsfleet_operator.api.base import DNS_1123
from ttsfleet_operator.api.documents import read_documents
from ttsfleet_operator.api.gpu_profile import GPUProfileSpec, parse_gpu_profile
from ttsfleet_operator.errors import PlanError, ProfileError

CPU_PROFILE = "cpu"
FP8_CAPABILITY = (8, 9)
BF16_CAPABILITY = (8, 0)
TIE_SHARE = 0.07  # rows whose memory differs by less mean the same card: ECC alone takes about 6 %
TENSORRT_RTX_CAPABILITIES = frozenset({(8, 0), (8, 6), (8, 9), (12, 0), (12, 1)})


class Profile(GPUProfileSpec):
    """One row: a device and the engine values that suit it. `memory_mib` 0 = not a device."""

    name: Annotated[str, StringConstraints(pattern=DNS_1123, max_length=63)]

    def covers(self, product: str) -> bool:
        wanted = normalised(product)
        return wanted in {normalised(name) for name in (*self.products, *self.aliases, self.name)}


@dataclass(frozen=True)
class ProfileTable:
    """All rows, highest priority first, then by name."""

    rows: tuple[Profile, ...]

    def named(self, name: str) -> Profile:
        """The row called `name`. Raises PlanError with the nearest names."""
        for row in self.rows:
            if row.name == name:
                return row
        names = [row.name for row in self.rows]
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise PlanError(f"there is no profile {name!r}; did you mean {' or '.join(close)}?")

    def variants(self, product: str) -> list[Profile]:
        """The rows of a product, smallest memory first; several where one product is sold with several sizes."""
        return sorted((row for row in self.rows if row.covers(product)), key=lambda row: row.memory_mib)

    def match(self, product: str, memory_mib: int | None = None) -> Profile | None:
        """The row of a device: of several the nearest in memory; without a memory, the smallest.

        Rows about as near as the nearest are a tie, which priority decides, then the name.
        """
        variants = self.variants(product)
        if not variants:
            return None
        if memory_mib is None:
            return smallest(variants)
        nearest = min(abs(row.memory_mib - memory_mib) for row in variants)
        tied = [row for row in variants if abs(row.memory_mib - memory_mib) <= nearest + memory_mib * TIE_SHARE]
        return min(tied, key=lambda row: (-row.priority, abs(row.memory_mib - memory_mib), row.name))

    def extended(self, rows: list[Profile]) -> ProfileTable:
        """This table with rows added; one of the same name replaces ours."""
        replaced = {row.name: row for row in (*self.rows, *rows)}
        return ProfileTable(tuple(sorted(replaced.values(), key=lambda row: (-row.priority, row.name))))


def smallest(variants: list[Profile]) -> Profile:
    """The row with the least memory; of about equal ones the one with the highest priority."""
    least = min(row.memory_mib for row in variants)
    tied = [row for row in variants if row.memory_mib <= least * (1 + TIE_SHARE)]
    return min(tied, key=lambda row: (-row.priority, row.memory_mib, row.name))


@functools.lru_cache(maxsize=4096)
def normalised(product: str) -> str:
    """A product label without what differs between sources: case, blanks, vendor words, `-SHARED`."""
    text = "-".join(product.strip().lower().replace("_", "-").split())
    text = text.removesuffix("-shared")
    for word in ("nvidia-", "geforce-", "tesla-"):
        text = text.removeprefix(word)
    return text


def generic_profile(memory_mib: int, capability: tuple[int, int]) -> Profile:
    """A row for a device that the table does not know, from its memory and compute capability alone."""
    gibibytes = memory_mib / 1024
    workers, decoders = (1, 1) if gibibytes < 20 else (2, 2) if gibibytes < 36 else (4, 3)
    fp8 = capability >= FP8_CAPABILITY
    engine = {
        "workers": workers,
        "decode_process_num": decoders,
        "data_type": "bf16" if capability >= BF16_CAPABILITY else "fp16",
        "quant_type": "triton-fp8w8a8-b128" if fp8 else "triton_int8weight",
        "load_trt": capability in TENSORRT_RTX_CAPABILITIES,
        "gpt_paral_num": 100 if gibibytes >= 20 else 32,
        "max_total_token_num": 65536 if gibibytes >= 20 else 32768,
    }
    return Profile.model_validate(
        {
            "name": "generic",
            "memoryMiB": memory_mib,
            "computeCapability": f"{capability[0]}.{capability[1]}",
            "engine": engine,
        }
    )


@dataclass(frozen=True)
class ProfileObject:
    """A TTSGPUProfile as read: its row, or why it has none (an object that is older than a rule of its schema)."""

    name: str
    row: Profile | None
    error: str = ""


def read_profile_object(raw: Mapping[str, Any]) -> ProfileObject:
    """The row of a TTSGPUProfile as the API gives it. Never raises: a wrong row is left out of the table."""
    name = str((raw.get("metadata") or {}).get("name", ""))
    try:
        parsed = parse_gpu_profile({key: value for key, value in raw.items() if key != "status"})
        return ProfileObject(name, Profile.model_validate_json(json.dumps(parsed.row())))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return ProfileObject(name, None, f"TTSGPUProfile {name}: {where}: {first['msg']}")


@functools.cache
def builtin_profiles() -> ProfileTable:
    """The table that ships with the package."""
    return read_profiles(importlib.resources.files("ttsfleet_operator").joinpath("profiles.yaml").read_text())


def read_profiles(text: str) -> ProfileTable:
    """A table from YAML. Raises ProfileError that names the row and field."""
    documents = read_documents(text, "profiles")
    data = documents[0].data if documents else None
    rows = data.get("profiles") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise ProfileError("a table of profiles must be a mapping with a list `profiles`")
    parsed: list[Profile] = []
    for index, row in enumerate(rows):
        try:
            parsed.append(Profile.model_validate_json(json.dumps(row)))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ProfileError(f"profiles[{index}].{where}: {first['msg']}") from None
    names = [row.name for row in parsed]
    if len(set(names)) != len(names):
        raise ProfileError(f"profile names must differ; found {sorted(names)}")
    return ProfileTable(()).extended(parsed)
