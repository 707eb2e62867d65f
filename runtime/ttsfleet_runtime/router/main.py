"""`ttsfleet-runtime serve`: prepare the model, decide the plan, run the router.

This process never imports torch: a model that must be converted is converted by a child that ends.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path

import uvloop

from ttsfleet_runtime.checkpoint.bundle import ModelInfo, read_model_info
from ttsfleet_runtime.checkpoint.cached import ensure_bundle
from ttsfleet_runtime.config.engine import EngineConfig, styles_of
from ttsfleet_runtime.config.machine import detect_machine
from ttsfleet_runtime.config.report import note_as_line
from ttsfleet_runtime.config.resolve import Effective, choose_data_type, resolve
from ttsfleet_runtime.process import configure_logging
from ttsfleet_runtime.process_limits import raise_soft_limits
from ttsfleet_runtime.router.router import Router
from ttsfleet_runtime.router.run_dir import run_directory

logger = logging.getLogger(__name__)


def run(config: EngineConfig, api_key: str | None, api_key_file: Path | None = None) -> int:
    """Serve until a signal; returns the exit status.

    `api_key_file`: where `api_key` was read, when it was a file; it is looked at again while the server runs.
    `config` has its locations filled in (`config.locations`). Raises TTSFleetError for a model or a configuration
    that cannot be served.
    """
    configure_logging("router")
    assert config.model_dir is not None
    assert config.cache_dir is not None
    limit_notes = raise_soft_limits()
    machine = detect_machine(config.device or "auto")
    data_type, _ = choose_data_type(config, machine)
    styles = styles_of(config)
    bundle_dir = ensure_bundle(config.model_dir, Path(config.cache_dir), dtype=data_type, styles=styles)
    model = read_model_info(bundle_dir)
    resolved = resolve(config, machine, model)
    effective = replace(resolved, notes=(*resolved.notes, *limit_notes))
    for note in effective.notes:
        logger.info("%s", note_as_line(note))
    with run_directory() as run_dir:
        return uvloop.run(_serve(effective, model, bundle_dir, run_dir, api_key, api_key_file))


async def _serve(
    effective: Effective,
    model: ModelInfo,
    bundle_dir: Path,
    run_dir: Path,
    api_key: str | None,
    api_key_file: Path | None,
) -> int:
    router = Router(
        effective.plan,
        model,
        bundle_dir=bundle_dir,
        run_dir=run_dir,
        notes=[{name: str(value) for name, value in asdict(note).items()} for note in effective.notes],
        api_key=api_key,
        api_key_file=api_key_file,
    )
    return await router.serve()
