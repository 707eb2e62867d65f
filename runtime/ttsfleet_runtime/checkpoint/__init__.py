"""Model directories: found, read exactly as published, checked, and turned into the form that every process maps.

`bundle` describes that form, `convert` makes it, `cached` finds it or has it made in a process of its own;
`published` reads the weights. Only `expand`, `published`, `weight_files`, `random_weights` and what they import
need torch: a router or an encoder may import everything else.
"""

from __future__ import annotations

from pathlib import Path

from ttsfleet_runtime.errors import CheckpointError

BUILTIN_PREFIX = "builtin:"
_VOICES_DIR = Path(__file__).resolve().parent.parent / "data" / "voices"


def builtin_models() -> list[str]:
    """Names of the models that ship with the runtime, e.g. ["tiny-en"]."""
    return sorted(path.name for path in _VOICES_DIR.iterdir() if path.is_dir())


def resolve_model_dir(model_dir: str | Path) -> Path:
    """Absolute directory of `builtin:<name>` or of a path. Raises CheckpointError when there is none."""
    text = str(model_dir)
    if text.startswith(BUILTIN_PREFIX):
        name = text.removeprefix(BUILTIN_PREFIX)
        if name not in builtin_models():
            raise CheckpointError(
                f"no built-in model {name!r}; there is {', '.join(builtin_models())}", param="model_dir"
            )
        return _VOICES_DIR / name
    path = Path(text).expanduser().absolute()
    if not path.is_dir():
        raise CheckpointError(
            f"model directory {path} does not exist; give a CosyVoice2 directory or builtin:tiny-en",
            param="model_dir",
        )
    return path
