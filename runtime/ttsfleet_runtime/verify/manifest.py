"""MANIFEST.json of a folder of golden cases, and the cases it lists. Reads files; decides and runs nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open

from ttsfleet_runtime.errors import ConfigError
from ttsfleet_runtime.verify.registry import Case

MANIFEST = "MANIFEST.json"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One case as the manifest describes it; `schema` in the manifest says what the fields mean.

    tolerance: dtype -> output (or `*`, or `float`) -> limits; compare: output -> which part of it counts.
    """

    name: str
    file: str
    fn: str
    version: int | None = None
    model: str | None = None
    meta: dict[str, Any] | None = None
    tolerance: dict[str, dict[str, dict[str, Any]]] = {}
    compare: dict[str, str] = {}
    informative: bool = False
    sha256: str = ""


class _Manifest(msgspec.Struct):
    cases: list[Entry]


def read_manifest(goldens_dir: Path) -> list[Entry]:
    """The cases in the manifest's order. Raises ConfigError when it is missing or damaged."""
    path = goldens_dir / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Manifest).cases
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"{path}: {error}; --goldens must be a folder with a {MANIFEST}", param="goldens"
        ) from error


def read_case(goldens_dir: Path, entry: Entry) -> Case:
    """Load a case's file. Raises ConfigError when it is missing, damaged or not the one the manifest means."""
    path = goldens_dir / entry.file
    try:
        content = path.read_bytes()
        if entry.sha256 and hashlib.sha256(content).hexdigest() != entry.sha256:
            raise ConfigError(f"{path}: the file is not the one that the manifest lists (SHA-256 differs)")
        if path.suffix == ".json":
            return _case(entry, {}, {}, {}, json.loads(content))
        with safe_open(path, "np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
        inputs, outputs = _split(tensors)
        return _case(entry, json.loads(header.get("meta", "{}")), inputs, outputs, None)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _split(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and outputs by name. A file without prefixes is a table: all of it is output."""
    inputs = {name.removeprefix("in."): value for name, value in tensors.items() if name.startswith("in.")}
    outputs = {name.removeprefix("out."): value for name, value in tensors.items() if not name.startswith("in.")}
    return inputs, outputs


def _case(
    entry: Entry,
    header: Mapping[str, Any] | None,
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    document: Any,
) -> Case:
    """The header's meta is complete; the manifest's may be shortened."""
    meta = {**(entry.meta or {}), **(header or {})}
    return Case(entry.name, entry.fn, entry.version, meta, inputs, outputs, document)
