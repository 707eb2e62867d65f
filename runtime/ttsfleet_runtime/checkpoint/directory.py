"""What lies where in a published model directory, and which version it is. Reads names and JSON, no weights.

A directory is CosyVoice2's when it has `cosyvoice2.yaml`. The weights of a module are `<module>.pt`, or lie in one
`*.int8.safetensors` (the smaller form in which the built-in voice ships; its MODEL_CARD.md describes it).
`CosyVoice-BlankEN/model.safetensors` is an initialisation that the weights replace: nothing reads it. No torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ttsfleet_runtime.errors import CheckpointError

DEFAULT_STYLE = "cosyvoice"
TOKENIZER_DIR = "CosyVoice-BlankEN"
IMPLEMENTED_VERSIONS = (2,)
_YAML_NAMES = {2: "cosyvoice2.yaml", 3: "cosyvoice3.yaml"}
_TOKENIZER_FILES = ("config.json", "vocab.json", "merges.txt", "tokenizer_config.json")
STYLE_CONFIG = "style_config.json"
STYLE_NAME = re.compile(r"[^\W_][\w.-]{0,63}")

# Name -> path of its LLM weights, relative to the directory; the first is the default.
Styles: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class ModelDirectory:
    """The files of one CosyVoice2 directory. `llm` maps style -> weights; the first style is the default.

    `named`: the styles are the caller's, in place of those of style_config.json.
    """

    root: Path
    version: int
    yaml: Path
    llm: dict[str, Path]
    flow: Path
    hift: Path
    tokenizer_dir: Path
    speech_tokenizer_onnx: Path
    speaker_onnx: Path
    voices: Path | None
    named: bool = False

    def files(self) -> list[Path]:
        """Every file whose content matters, in a fixed order and once each."""
        paths = [self.yaml, *self.llm.values(), self.flow, self.hift]
        paths += [self.tokenizer_dir / name for name in _TOKENIZER_FILES]
        paths += [self.speech_tokenizer_onnx, self.speaker_onnx]
        optional = (self.voices, None if self.named else self.root / STYLE_CONFIG)
        paths += [path for path in optional if path is not None and path.exists()]
        return list(dict.fromkeys(paths))


def open_model_dir(root: Path, styles: Styles | None = None) -> ModelDirectory:
    """Find the files of a CosyVoice2 directory. `styles`, where given, stand in place of style_config.json.

    Raises CheckpointError for a directory of another version, a missing file or a wrong style_config.json.
    """
    version = detect_version(root)
    if version not in IMPLEMENTED_VERSIONS:
        raise CheckpointError(
            f"{root}: CosyVoice{version} is not implemented yet; give a CosyVoice2 directory", param="model_dir"
        )
    directory = ModelDirectory(
        root=root,
        version=version,
        yaml=root / _YAML_NAMES[version],
        llm=_named_weights(root, styles) if styles else _style_weights(root),
        flow=_weights(root, "flow"),
        hift=_weights(root, "hift"),
        tokenizer_dir=root / TOKENIZER_DIR,
        speech_tokenizer_onnx=root / "speech_tokenizer_v2.onnx",
        speaker_onnx=root / "campplus.onnx",
        voices=root / "spk2info.pt" if (root / "spk2info.pt").exists() else None,
        named=bool(styles),
    )
    for path in directory.files():
        if not path.is_file():
            raise CheckpointError(f"{path} is missing", param="model_dir")
    return directory


def detect_version(root: Path) -> int:
    """2 or 3, by the name of the yaml. Raises CheckpointError when there is none, or both."""
    found = [version for version, name in _YAML_NAMES.items() if (root / name).is_file()]
    if len(found) != 1:
        names = " or ".join(_YAML_NAMES.values())
        state = "both" if found else "neither"
        raise CheckpointError(f"{root}: needs {names} to tell the model's version, found {state}", param="model_dir")
    return found[0]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError when it is missing, damaged or not an object."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: the document is not an object")
    return document


def is_int8(path: Path) -> bool:
    return path.name.endswith(".int8.safetensors")


def _weights(root: Path, module: str) -> Path:
    """`<module>.pt`, else the directory's int8 file. The absent `.pt` is returned when there is neither."""
    published = root / f"{module}.pt"
    if published.exists():
        return published
    int8 = sorted(root.glob("*.int8.safetensors"))
    if len(int8) > 1:
        raise CheckpointError(f"{root}: {len(int8)} *.int8.safetensors files and no {module}.pt; leave one")
    return int8[0] if int8 else published


def _style_weights(root: Path) -> dict[str, Path]:
    """Style -> LLM weights from style_config.json; one style with `llm.pt` when there is no such file."""
    path = root / STYLE_CONFIG
    if not path.exists():
        return {DEFAULT_STYLE: _weights(root, "llm")}
    entries = read_json(path).get("lora_info")
    if not isinstance(entries, list) or not entries:
        raise CheckpointError(f"{path}: lora_info must be a list of at least one style")
    return dict(_checked_styles(path, entries))


def _named_weights(root: Path, styles: Styles) -> dict[str, Path]:
    """Style -> LLM weights from paths in the directory: of a file, or of a folder with `llm.pt`."""
    found = {}
    for name, place in styles.items():
        path = root / place
        weights = _weights(path, "llm") if path.is_dir() else path
        if not weights.is_file():
            raise CheckpointError(
                f"style {name}: {weights} is missing; name a file, or a folder with llm.pt", param="styles"
            )
        found[name] = weights
    return found


def _checked_styles(path: Path, entries: list[Any]) -> Iterator[tuple[str, Path]]:
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        where = f"{path}: lora_info[{index}]"
        if not isinstance(entry, dict):
            raise CheckpointError(f"{where} is not an object")
        name = entry.get("style_name")
        if name is None:
            raise CheckpointError(f'{where}: style_name is missing; for example "style_name": "calm"')
        if not isinstance(name, str) or not STYLE_NAME.fullmatch(name):
            raise CheckpointError(f"{where}.style_name is {name!r}; letters, digits and _ . - are allowed")
        if name in seen:
            raise CheckpointError(f"{where}.style_name {name!r} occurs twice")
        weights = entry.get("llm_path", entry.get("gpt_model_path"))
        if not isinstance(weights, str) or not weights:
            raise CheckpointError(f"{where}: llm_path is missing")
        seen.add(name)
        yield name, _weights(path.parent, "llm") if weights == "llm.pt" else path.parent / weights
