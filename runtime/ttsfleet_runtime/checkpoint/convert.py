"""Make the compute-ready form of a model once: `convert`, and `python -m ttsfleet_runtime.checkpoint.convert`.

The bundle appears by rename, so it is whole or absent; a lock file lets one of several processes do the work while
the others wait. What is cached already is returned without importing torch, which costs seconds: keep the
imports of this module free of it.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn
from rich.progress import Progress as ProgressBar

from ttsfleet_runtime.checkpoint import resolve_model_dir
from ttsfleet_runtime.checkpoint.cached import DTYPES, DType, Progress, bundle_path, is_whole
from ttsfleet_runtime.checkpoint.digest import model_digest
from ttsfleet_runtime.checkpoint.directory import ModelDirectory, Styles, open_model_dir
from ttsfleet_runtime.errors import TTSFleetError


def convert(
    model_dir: Path,
    cache_dir: Path,
    *,
    dtype: DType = "fp32",
    styles: Styles | None = None,
    progress: Progress | None = None,
) -> Path:
    """The bundle directory of a model, made when it is not cached yet. `styles` as in `open_model_dir`.

    `dtype` is the LLM's; flow and vocoder are always stored in fp32. Safe to call from several processes at once.
    Raises CheckpointError when the directory is not a usable CosyVoice2 model.
    """
    directory = open_model_dir(resolve_model_dir(model_dir), styles)
    digest = model_digest(directory, cache_dir)
    path = bundle_path(directory, cache_dir, dtype, digest)
    if is_whole(path):
        return path
    with _lock(path):
        if not is_whole(path):
            _make(directory, path, dtype, digest, progress)
    return path


def _make(directory: ModelDirectory, path: Path, dtype: DType, digest: str, progress: Progress | None) -> None:
    from ttsfleet_runtime.checkpoint.bundle_files import write_bundle  # torch: only when there is work

    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        shutil.rmtree(leftover)  # of a process that died; the lock is ours
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        write_bundle(directory, temporary, dtype=dtype, digest=digest, progress=progress)
        if path.exists():
            shutil.rmtree(path)  # of another format, or damaged
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Exclusive among processes and threads; freed by the kernel when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments. Whoever calls `run` fills in `cache` when it is not given."""
    parser.add_argument("model_dir", help="a CosyVoice2 directory as published, or builtin:<name>")
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where bundles are kept ($TTSFLEET_CACHE_DIR, else ~/.cache/ttsfleet)",
    )
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="of the LLM's weights (fp32)")
    parser.add_argument(
        "--style",
        type=_style,
        action="append",
        dest="styles",
        metavar="NAME=PATH",
        help="a style and its LLM weights in the directory, in place of style_config.json; may be repeated",
    )
    parser.add_argument("--json-progress", action="store_true", help="progress as JSON lines on stdout")


def run(args: argparse.Namespace) -> int:
    """Convert and print the bundle's path as the last line of stdout. 2 when the model cannot be used."""
    cache_dir: Path = args.cache
    styles = dict(args.styles or ())
    try:
        if args.json_progress:
            path = convert(Path(args.model_dir), cache_dir, dtype=args.dtype, styles=styles, progress=_print_json)
        else:
            with _progress_bar() as progress:
                path = convert(Path(args.model_dir), cache_dir, dtype=args.dtype, styles=styles, progress=progress)
    except (TTSFleetError, OSError) as error:
        message = error.message if isinstance(error, TTSFleetError) else f"{cache_dir}: {error}"
        if args.json_progress:
            _write_line(json.dumps({"error": message}))
        else:
            sys.stderr.write(f"error: {message}\n")
        return 2
    _write_line(str(path))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ttsfleet-runtime convert", description=(__doc__ or "").split("\n")[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    if args.cache is None:
        parser.error("--cache DIR is missing")
    return run(args)


def _style(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, path


def _write_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _print_json(what: str, done_bytes: int, total_bytes: int) -> None:
    _write_line(json.dumps({"what": what, "done_bytes": done_bytes, "total_bytes": total_bytes}))


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    columns = (TextColumn("convert {task.description}"), BarColumn(), DownloadColumn())
    with ProgressBar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


if __name__ == "__main__":
    sys.exit(main())
