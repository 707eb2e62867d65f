"""Gets the files of a source into the unfinished directory, taking over what an earlier process has verified."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import certifi
import msgspec

from ttsfleet_runtime.fetch import archive
from ttsfleet_runtime.fetch.addresses import read_proxies
from ttsfleet_runtime.fetch.cache import Workplace
from ttsfleet_runtime.fetch.config import (
    FetchConfig,
    HttpsSource,
    HuggingFaceSource,
    Limits,
    ModelScopeSource,
    S3Source,
)
from ttsfleet_runtime.fetch.download import Download, part_bytes
from ttsfleet_runtime.fetch.files import check_space, write_atomically
from ttsfleet_runtime.fetch.manifest import ModelFile, is_unchanged
from ttsfleet_runtime.fetch.progress import Progress
from ttsfleet_runtime.fetch.sources import hub
from ttsfleet_runtime.fetch.sources.listing import Listing, RemoteFile, checked_listing
from ttsfleet_runtime.fetch.styles import check_styles
from ttsfleet_runtime.fetch.transport import Transport

_ARCHIVE = "archive"

logger = logging.getLogger(__name__)


def gather(
    config: FetchConfig,
    limits: Limits,
    environment: Mapping[str, str],
    place: Workplace,
    earlier: Mapping[str, ModelFile],
    progress: Progress,
) -> tuple[ModelFile, ...]:
    """All files of the model, verified, in `place.model`. `earlier` are intact ones of the finished directory."""
    transport = Transport(limits, ca_file=config.ca_file, proxies=read_proxies(environment))
    try:
        if isinstance(config.source, HttpsSource):
            return _from_archive(config.source, transport, limits, place, progress)
        listing = checked_listing(_list(config, transport, environment, place), limits)
        check_styles(config.styles, (file.path for file in listing.files))
        return _from_listing(listing, transport, limits, place, earlier, progress)
    finally:
        transport.close()


def _list(config: FetchConfig, transport: Transport, environment: Mapping[str, str], place: Workplace) -> Listing:
    source = config.source
    if isinstance(source, S3Source):
        from ttsfleet_runtime.fetch.sources import bucket  # botocore takes a quarter of a second

        return bucket.list_bucket(source, transport, environment, _ca_bundle(config.ca_file, place))
    if isinstance(source, HuggingFaceSource):
        return hub.list_hugging_face(source, transport)
    assert isinstance(source, ModelScopeSource)
    return hub.list_model_scope(source, transport)


def _ca_bundle(ca_file: str, place: Workplace) -> str:
    """One file with the public authorities and the private ones, for a library that takes a single file."""
    if not ca_file:
        return ""
    place.prepare()
    path = place.incoming / "ca.pem"
    write_atomically(path, Path(certifi.where()).read_bytes() + b"\n" + Path(ca_file).read_bytes())
    return str(path)


def _from_listing(
    listing: Listing,
    transport: Transport,
    limits: Limits,
    place: Workplace,
    earlier: Mapping[str, ModelFile],
    progress: Progress,
) -> tuple[ModelFile, ...]:
    verified = place.prepare()
    done = {remote.path: file for remote in listing.files if (file := _same(remote, verified)) is not None}
    for remote in listing.files:
        if remote.path not in done and (file := _same(remote, earlier)) is not None:
            place.reuse(file)
            done[remote.path] = file
    missing = [remote for remote in listing.files if remote.path not in done]
    if done:
        logger.info("%d of %d files are there already", len(done), len(listing.files))
    there = sum(part_bytes(remote, _part(place, remote)) for remote in missing)
    total = sum(remote.size or 0 for remote in missing)
    check_space(place.incoming, total - there)
    progress.expect(total)
    for remote in missing:
        done[remote.path] = _fetched(remote, listing.authorization, transport, limits, place, progress)
    return tuple(done[remote.path] for remote in listing.files)


def _same(remote: RemoteFile, known: Mapping[str, ModelFile]) -> ModelFile | None:
    file = known.get(remote.path)
    return file if file is not None and file.tag == remote.tag else None


def _fetched(
    remote: RemoteFile,
    authorization: Mapping[str, str],
    transport: Transport,
    limits: Limits,
    place: Workplace,
    progress: Progress,
) -> ModelFile:
    part = _part(place, remote)
    progress.begin(remote.path)
    file = Download(transport, limits, remote, part, authorization=authorization, progress=progress).run()
    place.accept(part, file)
    progress.finish(file.path, file.size, "verified" if remote.has_digest else "")
    return file


def _from_archive(
    source: HttpsSource, transport: Transport, limits: Limits, place: Workplace, progress: Progress
) -> tuple[ModelFile, ...]:
    """The archive, then its content. Of an unpacking that was cut off nothing is kept."""
    place.prepare()
    note = place.incoming / "unpacked"
    files = _unpacked(note, place.model)
    if files:
        return files
    tag = f"sha256:{source.sha256}"
    remote = RemoteFile(_ARCHIVE, lambda: source.url, tag=tag, sha256=source.sha256)
    part = _part(place, remote)
    progress.begin(_ARCHIVE)
    whole = Download(transport, limits, remote, part, authorization={}, progress=progress).run()
    progress.finish(_ARCHIVE, whole.size, "verified")
    place.empty_model()
    files = archive.unpack(part, place.model, tag, limits, progress)
    write_atomically(note, msgspec.json.encode(files))
    part.unlink()
    return files


def _unpacked(note: Path, model: Path) -> tuple[ModelFile, ...]:
    """The files of an archive that was unpacked in whole, if they are as they were; else none."""
    try:
        files = msgspec.json.decode(note.read_bytes(), type=tuple[ModelFile, ...])
    except (OSError, msgspec.MsgspecError):
        return ()
    return files if all(is_unchanged(model, file) for file in files) else ()


def _part(place: Workplace, remote: RemoteFile) -> Path:
    """Where the file lies until it is whole: one folder holds all of them."""
    return place.incoming / hashlib.sha256(remote.path.encode()).hexdigest()[:32]
