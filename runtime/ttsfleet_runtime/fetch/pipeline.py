"""One fetch, from the configuration to the model's digest."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

from ttsfleet_runtime.fetch.cache import Found, Workplace, inspect
from ttsfleet_runtime.fetch.config import FetchConfig, HttpsSource, Limits, MountedSource, identity
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.lock import locked
from ttsfleet_runtime.fetch.manifest import Manifest, digest_files, hash_tree
from ttsfleet_runtime.fetch.progress import Progress, megabytes
from ttsfleet_runtime.fetch.styles import check_styles

logger = logging.getLogger(__name__)


def fetch(config: FetchConfig, limits: Limits, environment: Mapping[str, str], progress: Progress) -> str:
    """Have the model in `config.model_dir`. Returns its digest; raises FetchError, or OSError of the volume."""
    target = Path(config.model_dir)
    if isinstance(config.source, MountedSource):
        return _check_mounted(config, target)
    found = _inspect(config, target)
    if _is_done(config, found):
        logger.info("%s holds the model already", target)
        _tidy(target)
    else:
        with locked(Workplace.lock_path(target), limits.lock_seconds):
            found = _inspect(config, target)
            if not _is_done(config, found):
                found = _fill(config, target, found, limits, environment, progress)
    assert found is not None
    check_styles(config.styles, found.intact)
    return found.manifest.digest


def _tidy(target: Path) -> None:
    """Remove what a process that ended behind its last rename has left, unless another is at work."""
    place = Workplace(target)
    if place.is_there():
        with contextlib.suppress(FetchError, OSError), locked(Workplace.lock_path(target), 0):
            place.discard()


def _check_mounted(config: FetchConfig, target: Path) -> str:
    if not target.is_dir():
        raise FetchError(Failure.INVALID_SOURCE, f"{target} is no folder; check the claim, image or subPath")
    logger.info("reading the files of %s", target)
    files = hash_tree(target)
    if not files:
        raise FetchError(Failure.INVALID_SOURCE, f"{target} holds no files; check the claim, image or subPath")
    digest = digest_files(files)
    _check_pin(config, digest)
    check_styles(config.styles, (file.path for file in files))
    return digest


def _inspect(config: FetchConfig, target: Path) -> Found | None:
    """What the finished directory holds; with a pin every file is read."""
    return inspect(target, identity(config.source), full=bool(config.manifest_sha256))


def _is_done(config: FetchConfig, found: Found | None) -> bool:
    """Whether the finished directory needs no work. Raises FetchError where no work could help: the digest of an
    archive fixes what it holds, so that a pin which differs is wrong."""
    if found is None or not found.is_whole:
        return False
    if isinstance(config.source, HttpsSource):
        _check_pin(config, found.manifest.digest)
    return config.manifest_sha256 in ("", found.manifest.digest)


def _fill(
    config: FetchConfig,
    target: Path,
    earlier: Found | None,
    limits: Limits,
    environment: Mapping[str, str],
    progress: Progress,
) -> Found:
    """Fetch what is missing and publish the directory. Called under the lock."""
    from ttsfleet_runtime.fetch.gather import gather  # imports HTTP, which a finished directory does not need

    place = Workplace(target)
    files = gather(config, limits, environment, place, earlier.intact if earlier is not None else {}, progress)
    manifest = Manifest(identity(config.source), digest_files(files), files)
    _check_pin(config, manifest.digest)
    place.publish(manifest)
    logger.info("%s: %d files, %s, verified", target, len(files), megabytes(sum(file.size for file in files)))
    return Found(manifest, {file.path: file for file in files}, is_whole=True)


def _check_pin(config: FetchConfig, digest: str) -> None:
    if config.manifest_sha256 not in ("", digest):
        raise FetchError(
            Failure.CHECKSUM_MISMATCH,
            f"the model's digest is {digest}, not {config.manifest_sha256} as manifest_sha256 asks",
        )
