"""Where things lie: the model that is asked for, the cache of compute-ready models, the registered voices.

The environment reaches this module as an argument; only `cli` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ttsfleet_runtime.checkpoint import resolve_model_dir
from ttsfleet_runtime.config.engine import EngineConfig

DEFAULT_MODEL = "builtin:tiny-en"


def complete_locations(config: EngineConfig, environment: Mapping[str, str]) -> EngineConfig:
    """The configuration with model_dir, cache_dir and voices_dir given and absolute.

    Raises CheckpointError when the model directory does not exist.
    """
    return config.model_copy(
        update={
            "model_dir": str(resolve_model_dir(config.model_dir or DEFAULT_MODEL)),
            "cache_dir": str(_absolute(config.cache_dir) if config.cache_dir else cache_dir(environment)),
            "voices_dir": str(_absolute(config.voices_dir) if config.voices_dir else voices_dir(environment)),
        }
    )


def cache_dir(environment: Mapping[str, str]) -> Path:
    """TTSFLEET_CACHE_DIR, else `ttsfleet` in the user's cache folder (XDG demands an absolute path)."""
    given = environment.get("TTSFLEET_CACHE_DIR")
    if given:
        return _absolute(given)
    cache = Path(environment.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "ttsfleet"


def voices_dir(environment: Mapping[str, str]) -> Path:
    """TTSFLEET_VOICES_DIR, else `ttsfleet/voices` in the user's data folder."""
    given = environment.get("TTSFLEET_VOICES_DIR")
    if given:
        return _absolute(given)
    data = Path(environment.get("XDG_DATA_HOME", ""))
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / "ttsfleet" / "voices"


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()
