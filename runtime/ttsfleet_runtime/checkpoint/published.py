"""Published weights, checked: the state dict of a module with every key present, known and of the right shape.

Spellings that the reference accepts are brought to one: a `generator.` part in hift's names is dropped, and
`X.weight_g`/`X.weight_v` become `X.parametrizations.weight.original0/1`. Errors name keys as the file has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ttsfleet_runtime.checkpoint.directory import is_int8
from ttsfleet_runtime.checkpoint.keys import DIRECTION, GAIN, Shape
from ttsfleet_runtime.checkpoint.weight_files import load_int8_module, load_state_dict
from ttsfleet_runtime.errors import CheckpointError

_SHOWN = 5


def read_module(path: Path, module: str, expected: Mapping[str, Shape]) -> dict[str, Tensor]:
    """The state dict of `module` ("llm", "flow" or "hift") under canonical names, exactly the expected keys.

    Tensors are on the CPU, of the stored dtype, possibly strided views of a mapped file.
    Raises CheckpointError that names the file and the key, with expected and actual shape where it applies.
    """
    loaded = load_int8_module(path, module) if is_int8(path) else load_state_dict(path)
    found: dict[str, tuple[str, Tensor]] = {}
    for original, tensor in loaded.items():
        name = canonical_name(original) if module == "hift" else original
        if name in found:
            raise CheckpointError(f"{path}: keys {found[name][0]} and {original} mean the same tensor")
        found[name] = (original, tensor)
    _check(path, expected, found)
    return {name: found[name][1] for name in expected}


def canonical_name(key: str) -> str:
    """A vocoder key without `generator.` and with weight norm in its newer spelling."""
    key = key.replace("generator.", "")
    if key.endswith(".weight_g"):
        return key.removesuffix("weight_g") + GAIN
    if key.endswith(".weight_v"):
        return key.removesuffix("weight_v") + DIRECTION
    return key


def _check(path: Path, expected: Mapping[str, Shape], found: Mapping[str, tuple[str, Tensor]]) -> None:
    problems = [
        f"key {name} is missing (expected shape {list(shape)})"
        for name, shape in expected.items()
        if name not in found
    ]
    problems += [f"key {original} is unknown" for name, (original, _) in found.items() if name not in expected]
    problems += [
        f"key {original} has shape {list(tensor.shape)}, expected {list(expected[name])}"
        for name, (original, tensor) in found.items()
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(
            f"{path}: {'; '.join(problems[:_SHOWN])}{more}. The expected shapes follow from the directory's yaml "
            "and CosyVoice-BlankEN/config.json"
        )
