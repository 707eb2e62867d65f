"""Read one weights file into named tensors: torch zip archives, and the int8 form. No check of keys here.

`.pt`: a flat dict name -> tensor, loaded with `weights_only` and mapped, so pages are read when they are used;
tensors may be overlapping strided views. int8: one safetensors file for all modules, keys `<module>/<key>`,
I8 rows scaled by `<key>.scale`, and `aliases` in the metadata for tensors that are stored once.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ttsfleet_runtime.errors import CheckpointError

INT8_FORMAT = "cosyvoice2-int8-v1"
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def load_torch_file(path: Path) -> object:
    """Whatever a `.pt` file holds, tensors and plain containers only. Raises CheckpointError naming the file."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    try:
        # files from before torch 1.6 are no zip archives and cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: not a readable torch file of tensors; it may be truncated, a download stub, or hold "
            f"other objects ({type(error).__name__}: {reason})"
        ) from error


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """A flat dict of floating-point tensors. Raises CheckpointError naming the file and the key."""
    content = load_torch_file(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a dict of tensors")
    for key, value in content.items():
        if not isinstance(key, str):
            raise CheckpointError(f"{path}: key {key!r} is not a string")
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: key {key} holds a {type(value).__name__}, expected a tensor")
        if value.layout is not torch.strided or value.dtype not in _FLOATS:
            raise CheckpointError(f"{path}: key {key} is a {value.dtype} {value.layout}, expected floats")
    return dict(content)


def load_int8_module(path: Path, module: str) -> dict[str, Tensor]:
    """The state dict of one module of an int8 file, as float32 (or float16 where it is stored so).

    Raises CheckpointError naming the file and the key.
    """
    prefix = f"{module}/"
    try:
        with safe_open(path, "pt") as file:
            aliases = _aliases(path, file.metadata() or {})
            stored = {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from error
    tensors = {
        name.removeprefix(prefix): _dequantised(path, name, stored) for name in stored if not name.endswith(".scale")
    }
    for alias, original in aliases.items():
        if alias.startswith(prefix):
            source = original.removeprefix(prefix)
            if source not in tensors:
                raise CheckpointError(f"{path}: alias {alias} refers to {original}, which is missing")
            tensors[alias.removeprefix(prefix)] = tensors[source]
    return tensors


def _aliases(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    if metadata.get("format") != INT8_FORMAT:
        raise CheckpointError(f"{path}: format is {metadata.get('format')!r}, expected {INT8_FORMAT!r}")
    try:
        aliases = json.loads(metadata.get("aliases", "{}"))
    except ValueError as error:
        raise CheckpointError(f"{path}: metadata `aliases` is not JSON: {error}") from error
    if not isinstance(aliases, dict) or not all(isinstance(value, str) for value in aliases.values()):
        raise CheckpointError(f"{path}: metadata `aliases` is not an object of names")
    return aliases


def _dequantised(path: Path, name: str, stored: Mapping[str, Tensor]) -> Tensor:
    tensor = stored[name]
    if tensor.dtype in _FLOATS:
        return tensor
    if tensor.dtype is not torch.int8:
        raise CheckpointError(f"{path}: key {name} is {tensor.dtype}, expected int8 or floats")
    scale = stored.get(f"{name}.scale")
    if scale is None or scale.shape != tensor.shape[:1]:
        found = "missing" if scale is None else f"of shape {list(scale.shape)}"
        raise CheckpointError(f"{path}: key {name}.scale is {found}, expected shape {list(tensor.shape[:1])}")
    return tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
