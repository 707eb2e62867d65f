"""`ttsfleet-runtime serve`: prepare the model, decide the plan, run the router.

This process never imports torch: a model that must be converted is converted by a child that ends.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import uvloop

from ttsfleet_runtime.checkpoint import resolve_model_dir
from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.config.engine import EngineConfig
from ttsfleet_runtime.config.machine import detect_machine
from ttsfleet_runtime.config.resolve import resolve, resolve_data_type
from ttsfleet_runtime.errors import CheckpointError
from ttsfleet_runtime.process import configure_logging
from ttsfleet_runtime.router.router import Router

logger = logging.getLogger(__name__)

_SHARED_MEMORY = Path("/dev/shm")


def run(config: EngineConfig, *, api_key: str | None, cache_dir: Path) -> int:
    """Serve until a signal; returns the exit status. Raises TTSFleetError for a bad model or configuration."""
    configure_logging("router")
    machine = detect_machine()
    bundle_dir = prepare_bundle(config, resolve_data_type(config, machine), cache_dir)
    model = read_model_info(bundle_dir)
    effective = resolve(config, machine, model)
    for note in effective.notes:
        logger.info("%s: asked %s, effective %s: %s", note.field, note.asked, note.effective, note.reason)
    plan = effective.plan
    if not plan.voices_dir:
        plan = plan.model_copy(update={"voices_dir": str(cache_dir / "voices")})
    run_dir = Path(tempfile.mkdtemp(prefix="ttsfleet-", dir=_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None))
    notes = [{k: str(v) for k, v in asdict(note).items()} for note in effective.notes]

    async def serve() -> int:
        router = Router(plan, model, bundle_dir=bundle_dir, run_dir=run_dir, notes=notes, api_key=api_key)
        return await router.serve()

    try:
        return uvloop.run(serve())
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


def prepare_bundle(config: EngineConfig, data_type: str, cache_dir: Path) -> Path:
    """The compute-ready form of the configured model; converted by a child process when it is not there yet."""
    model_dir = resolve_model_dir(config.model_dir)
    command = [
        sys.executable,
        "-m",
        "ttsfleet_runtime.checkpoint.convert",
        str(model_dir),
        "--cache",
        str(cache_dir / "bundles"),
        "--dtype",
        data_type,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        raise CheckpointError(lines[-1] if lines else f"{model_dir} could not be converted")
    return Path(result.stdout.strip().splitlines()[-1])
