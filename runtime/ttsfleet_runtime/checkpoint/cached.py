"""The bundle cache: where the compute-ready form of a model lies, and having it made in a process of its own.

No torch: the router calls `ensure_bundle`, which runs `python -m ttsfleet_runtime.checkpoint.convert` only when
nothing is cached. The directory's name covers the content digest, the bundle format and the model's path, because
bundle.json points at the tokenizer and ONNX files, which stay where they were published.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from ttsfleet_runtime.checkpoint import resolve_model_dir
from ttsfleet_runtime.checkpoint.bundle import BUNDLE_FORMAT, read_model_info
from ttsfleet_runtime.checkpoint.digest import model_digest
from ttsfleet_runtime.checkpoint.directory import ModelDirectory, Styles, open_model_dir
from ttsfleet_runtime.errors import CheckpointError

DType = Literal["fp32", "fp16", "bf16"]
DTYPES: tuple[DType, ...] = get_args(DType)
# what is being written, bytes done, bytes in all
Progress = Callable[[str, int, int], None]


def bundle_path(directory: ModelDirectory, cache_dir: Path, dtype: DType, digest: str) -> Path:
    """Where the bundle of this model lies or will lie."""
    place = f"{digest}|{directory.root}|{BUNDLE_FORMAT}"
    return cache_dir / f"{hashlib.sha256(place.encode()).hexdigest()[:24]}-{dtype}"


def is_whole(bundle_dir: Path) -> bool:
    """True for a bundle of this format with all its files. Bundles appear by rename, so this is only a check
    against formats of other releases and against files that someone deleted."""
    try:
        info = read_model_info(bundle_dir)
    except CheckpointError:
        return False
    names = [f"llm.{style}" for style in info.styles] + ["flow", "hift", "voices"]
    return all((bundle_dir / f"{name}.safetensors").is_file() for name in names)


def find_bundle(model_dir: str | Path, cache_dir: Path, *, dtype: DType, styles: Styles | None = None) -> Path | None:
    """The cached bundle, or None when it must be made. Raises CheckpointError for an unusable directory."""
    directory = open_model_dir(resolve_model_dir(model_dir), styles)
    path = bundle_path(directory, cache_dir, dtype, model_digest(directory, cache_dir))
    return path if is_whole(path) else None


def ensure_bundle(
    model_dir: str | Path,
    cache_dir: Path,
    *,
    dtype: DType,
    styles: Styles | None = None,
    progress: Progress | None = None,
) -> Path:
    """The bundle's directory, made by a subprocess when there is none yet. Blocks until it is there.

    Several processes may call this at once for one model: one converts, the others wait for it.
    Raises CheckpointError with the converter's message when the model cannot be converted.
    """
    found = find_bundle(model_dir, cache_dir, dtype=dtype, styles=styles)
    if found is not None:
        return found
    command = [sys.executable, "-m", "ttsfleet_runtime.checkpoint.convert", str(model_dir)]
    command += ["--cache", str(cache_dir), "--dtype", dtype, "--json-progress"]
    command += [f"--style={name}={path}" for name, path in (styles or {}).items()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        tail: deque[str] = deque(maxlen=20)
        try:
            for line in process.stdout:
                if not _report(line, progress):
                    tail.append(line.rstrip("\n"))
        except BaseException:
            process.terminate()
            raise
    made = find_bundle(model_dir, cache_dir, dtype=dtype, styles=styles)
    if process.returncode == 0 and made is not None:
        return made
    raise CheckpointError(
        f"converting {model_dir} failed (exit status {process.returncode}): " + "\n".join(tail),
        param="model_dir",
    )


def _report(line: str, progress: Progress | None) -> bool:
    """Pass on a progress line; raises on the converter's error line. False for any other output."""
    if not line.startswith("{"):
        return False
    event = json.loads(line)
    if "error" in event:
        raise CheckpointError(event["error"], param="model_dir")
    if progress is not None:
        progress(event["what"], event["done_bytes"], event["total_bytes"])
    return True
