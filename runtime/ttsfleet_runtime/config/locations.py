"""Where things lie: the model that a name means, the cache, the registered voices.

The environment reaches this module as an argument; only `cli` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ttsfleet_runtime.config.engine import EngineConfig
from ttsfleet_runtime.errors import ConfigError

BUILTIN_PREFIX = "builtin:"
DEFAULT_MODEL = "builtin:tiny-en"
_VOICES = Path(__file__).parent.parent / "data" / "voices"


def locate_model(model_dir: str) -> Path:
    """The absolute directory of a model: a path, or `builtin:NAME` for one that ships with the package."""
    if model_dir.startswith(BUILTIN_PREFIX):
        name = model_dir.removeprefix(BUILTIN_PREFIX)
        names = builtin_models()
        if name not in names:
            raise ConfigError(
                f"model_dir = {model_dir!r}: no such built-in model; there are "
                f"{', '.join(BUILTIN_PREFIX + known for known in names) or 'none'}",
                param="model_dir",
            )
        return _VOICES / name
    path = Path(model_dir).expanduser().absolute()
    if not path.is_dir():
        raise ConfigError(
            f"model_dir = {model_dir!r}: no such directory; give a CosyVoice2 model directory as published, "
            f"or {DEFAULT_MODEL}",
            param="model_dir",
        )
    return path


def builtin_models() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(path.name for path in _VOICES.iterdir() if path.is_dir()) if _VOICES.is_dir() else []


def complete_locations(config: EngineConfig, environment: Mapping[str, str]) -> EngineConfig:
    """The configuration with model_dir, cache_dir and voices_dir given and absolute. Raises ConfigError."""
    return config.model_copy(
        update={
            "model_dir": str(locate_model(config.model_dir or DEFAULT_MODEL)),
            "cache_dir": _absolute(config.cache_dir or str(cache_dir(environment))),
            "voices_dir": _absolute(config.voices_dir or str(voices_dir(environment))),
        }
    )


def cache_dir(environment: Mapping[str, str]) -> Path:
    """TTSFLEET_CACHE_DIR, else `ttsfleet` in the user's cache folder."""
    given = environment.get("TTSFLEET_CACHE_DIR")
    return Path(given) if given else _user_folder(environment, "XDG_CACHE_HOME", ".cache") / "ttsfleet"


def voices_dir(environment: Mapping[str, str]) -> Path:
    """TTSFLEET_VOICES_DIR, else `ttsfleet/voices` in the user's data folder."""
    given = environment.get("TTSFLEET_VOICES_DIR")
    return (
        Path(given) if given else _user_folder(environment, "XDG_DATA_HOME", ".local/share") / "ttsfleet" / "voices"
    )


def _user_folder(environment: Mapping[str, str], variable: str, fallback: str) -> Path:
    return Path(environment.get(variable) or Path(environment.get("HOME") or "/tmp") / fallback)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
