"""The voices that have a name: those that ship with the model and those that users registered.

Registered voices live as `<name>.json` and `<name>.audio` in one directory, written atomically, so they survive a
restart. This class is the directory's only writer.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.plan import LimitsPlan
from ttsfleet_runtime.errors import (
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from ttsfleet_runtime.messages import VoiceInfo
from ttsfleet_runtime.router.voice import Voice
from ttsfleet_runtime.voices import VoiceEntry, voice_hash, write_voice

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class _Record(msgspec.Struct, frozen=True):
    """`<name>.json`."""

    name: str
    transcript: str
    created: float
    voice_hash: str


class VoiceRegistry(Mapping[str, Voice]):
    """Voices by name."""

    def __init__(self, voices_dir: Path, model: ModelInfo, limits: LimitsPlan) -> None:
        self._dir = voices_dir
        self._model = model
        self._limits = limits
        self._voices: dict[str, Voice] = {}
        self._infos: dict[str, VoiceInfo] = {}

    def __getitem__(self, name: str) -> Voice:
        return self._voices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._voices)

    def __len__(self) -> int:
        return len(self._voices)

    def infos(self) -> list[VoiceInfo]:
        """All voices for a listing, by name."""
        return [self._infos[name] for name in sorted(self._infos)]

    def load_builtin(self, bundle_dir: Path, run_dir: Path) -> list[tuple[str, int]]:
        """Write the model's own voices as entries; returns (voice hash, prompt tokens) to pin in the cache."""
        path = bundle_dir / "voices.safetensors"
        tensors = load_file(path) if path.exists() else {}
        pinned = []
        for name in self._model.voices:
            plain = self._write_entry(
                run_dir, f"builtin:{name}", VoiceEntry(*_no_prompt(), tensors[f"{name}/embedding"])
            )
            pinned.append((plain, 0))
            has_prompt = name in self._model.voices_with_prompt
            prompted, ids = plain, None
            if has_prompt:
                entry = VoiceEntry(
                    tensors[f"{name}/speech_token"], tensors[f"{name}/mel"], tensors[f"{name}/prompt_embedding"]
                )
                prompted = self._write_entry(run_dir, f"builtin:{name}:prompt", entry)
                pinned.append((prompted, len(entry.speech_tokens)))
                ids = tuple(int(i) for i in tensors[f"{name}/prompt_ids"])
            self._voices[name] = Voice(
                name=name, voice_hash=prompted, has_prompt=has_prompt, sft_hash=plain, prompt_ids=ids
            )
            self._infos[name] = VoiceInfo(name=name, kind="builtin", has_prompt=has_prompt)
        return pinned

    def load_registered(self) -> None:
        """Find the voices of earlier runs. A damaged record, or one without its audio, is skipped and logged."""
        with _storage(self._dir, "read"):
            self._dir.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._dir.glob("*.json")):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=_Record)
            except (OSError, msgspec.DecodeError) as error:
                logger.error("%s is no voice record (%s) and is skipped; delete it", path, error)
                continue
            if not self._audio_path(record.name).exists():
                logger.error("%s has no recording beside it and is skipped; delete it", path)
            elif record.name not in self._voices:
                self._add(record)

    def check_new(self, name: str, audio: bytes, transcript: str) -> str:
        """Refuse a registration that cannot be; returns the voice hash."""
        if not _NAME.fullmatch(name):
            raise InvalidRequestError(
                f"voice name {name!r} is not allowed: 1 to 64 of A-Z a-z 0-9 _ . -, starting with a letter or digit",
                param="name",
            )
        if name in self._voices:
            own = self._infos[name].kind == "builtin"
            remedy = "it is the model's own, take another name" if own else "delete it first"
            raise InvalidRequestError(f"voice {name!r} exists already: {remedy}", param="name")
        if len(audio) > self._limits.prompt_bytes:
            raise TooLargeError(
                f"the recording has {len(audio)} bytes; at most {self._limits.prompt_bytes} are accepted "
                "(limits.prompt_bytes)",
                param="file",
            )
        if len(transcript) > self._limits.prompt_text_chars:
            raise TooLargeError(
                f"the transcript has {len(transcript)} characters; at most {self._limits.prompt_text_chars} are "
                "accepted (limits.prompt_text_chars)",
                param="transcript",
            )
        registered = sum(info.kind == "registered" for info in self._infos.values())
        if registered >= self._limits.registered_voices:
            raise InvalidRequestError(
                f"{registered} voices are registered, which is the limit (limits.registered_voices); delete one"
            )
        return voice_hash(audio, self._model.digest)

    def register(self, name: str, audio: bytes, transcript: str) -> VoiceInfo:
        """Persist a voice whose entry has been computed."""
        record = _Record(name, transcript, time.time(), voice_hash(audio, self._model.digest))
        with _storage(self._dir, "written"):
            self._dir.mkdir(parents=True, exist_ok=True)
            _write_atomically(self._audio_path(name), audio)
            _write_atomically(self._dir / f"{name}.json", msgspec.json.encode(record))
        self._add(record)
        return self._infos[name]

    def delete(self, name: str) -> str:
        """Forget a registered voice; returns its hash. Raises NotFoundError, or InvalidRequestError for a model's."""
        info = self._infos.get(name)
        if info is None:
            raise NotFoundError(f"voice {name!r} does not exist", param="name")
        if info.kind != "registered":
            raise InvalidRequestError(f"voice {name!r} belongs to the model and cannot be deleted", param="name")
        with _storage(self._dir, "written"):
            (self._dir / f"{name}.json").unlink(missing_ok=True)
            self._audio_path(name).unlink(missing_ok=True)
        voice = self._voices.pop(name)
        del self._infos[name]
        return voice.voice_hash

    def _write_entry(self, run_dir: Path, content: str, entry: VoiceEntry) -> str:
        hash_ = voice_hash(content.encode(), self._model.digest)
        write_voice(run_dir, hash_, entry)
        return hash_

    def _audio_path(self, name: str) -> Path:
        return self._dir / f"{name}.audio"

    def _read_audio(self, name: str) -> bytes:
        with _storage(self._dir, "read"):
            return self._audio_path(name).read_bytes()

    def _add(self, record: _Record) -> None:
        self._voices[record.name] = Voice(
            name=record.name,
            voice_hash=record.voice_hash,
            has_prompt=True,
            prompt_text=record.transcript,
            audio=partial(self._read_audio, record.name),
        )
        self._infos[record.name] = VoiceInfo(
            name=record.name,
            kind="registered",
            has_prompt=True,
            created=record.created,
            transcript=record.transcript,
        )


@contextmanager
def _storage(directory: Path, what: str) -> Iterator[None]:
    """Failures of the voices' directory as an error that a client can be told."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(
            f"the voices in {directory} cannot be {what}: {error.strerror or error}; see to that directory "
            "(voices_dir), then try again"
        ) from error


def _no_prompt() -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    return np.zeros(0, np.int32), np.zeros((0, 80), np.float32)


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
