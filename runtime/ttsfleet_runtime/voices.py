"""Voice entries: what the models need of a speaker, one immutable file per content hash in the run directory.

Written once by an encoder (or by the router for the voices that ship with a model), read by the LLM and the
decoders, each through its own `VoiceFiles`. Writing is atomic (rename), so a file that exists is whole. No torch
here: numpy arrays, which `torch.from_numpy` can share.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ttsfleet_runtime.errors import InvalidRequestError, UnavailableError

Form = TypeVar("Form")


@dataclass(frozen=True)
class VoiceEntry:
    """A speaker's conditioning.

    speech_tokens: int32 [P], prompt speech tokens (P may be 0: a voice for sft only)
    mel: float32 [2P, 80], prompt mel, natural log, 50 frames/s
    speaker_embedding: float32 [192], CAM++ vector, not normalised
    """

    speech_tokens: NDArray[np.int32]
    mel: NDArray[np.float32]
    speaker_embedding: NDArray[np.float32]


def voice_hash(audio: bytes, model_digest: str) -> str:
    """Content hash of a prompt for one model: the same bytes give the same entry, whoever sends them."""
    return hashlib.sha256(model_digest.encode() + b"\0" + audio).hexdigest()[:40]


def voice_path(run_dir: Path, hash_: str) -> Path:
    return run_dir / "voices" / f"{hash_}.safetensors"


def write_voice(run_dir: Path, hash_: str, entry: VoiceEntry) -> None:
    """Store an entry atomically. Writing the same hash twice is harmless."""
    path = voice_path(run_dir, hash_)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(
        {
            "speech_tokens": np.ascontiguousarray(entry.speech_tokens, dtype=np.int32),
            "mel": np.ascontiguousarray(entry.mel, dtype=np.float32),
            "speaker_embedding": np.ascontiguousarray(entry.speaker_embedding, dtype=np.float32),
        },
        temporary,
    )
    os.replace(temporary, path)


def read_voice(run_dir: Path, hash_: str) -> VoiceEntry:
    """Load an entry. Raises FileNotFoundError when it was evicted: the router keeps entries of live requests."""
    tensors = load_file(voice_path(run_dir, hash_))
    return VoiceEntry(
        speech_tokens=tensors["speech_tokens"],
        mel=tensors["mel"],
        speaker_embedding=tensors["speaker_embedding"],
    )


class VoiceFiles(Generic[Form]):
    """The voices that a stage has at hand, in the form that its model reads.

    Read when they are first named, kept least recently used up to `capacity`, dropped when the router says so. Who
    got a voice holds it, so dropping never takes one from a running segment.
    """

    def __init__(self, run_dir: Path, form: Callable[[VoiceEntry], Form], *, capacity: int, num_codes: int) -> None:
        """form: entry -> what is kept. capacity: at least 1 is kept. num_codes: speech codes of the model."""
        self._run_dir = run_dir
        self._form = form
        self._capacity = max(capacity, 1)
        self._num_codes = num_codes
        self._voices: OrderedDict[str, Form] = OrderedDict()

    def __len__(self) -> int:
        return len(self._voices)

    def get(self, hash_: str) -> Form:
        """The voice of this hash, from memory or the run directory.

        Raises InvalidRequestError without a hash or for another model's voice, and UnavailableError when the entry
        is gone or cannot be read.
        """
        if not hash_:
            raise InvalidRequestError(
                "the segment names no voice: give a registered voice or prompt audio", param="voice"
            )
        if hash_ not in self._voices:
            self._voices[hash_] = self._form(self._read(hash_))
            if len(self._voices) > self._capacity:
                self._voices.popitem(last=False)
        self._voices.move_to_end(hash_)
        return self._voices[hash_]

    def drop(self, hashes: Iterable[str]) -> None:
        """Forget these voices; unknown ones are ignored."""
        for hash_ in hashes:
            self._voices.pop(hash_, None)

    def _read(self, hash_: str) -> VoiceEntry:
        try:
            entry = read_voice(self._run_dir, hash_)
        except (OSError, SafetensorError, KeyError) as error:
            raise UnavailableError(
                f"voice {hash_} cannot be read ({error}); send the request again to compute it anew",
                param="voice",
                retry_after_seconds=1,
            ) from error
        tokens = entry.speech_tokens
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < self._num_codes:
            raise InvalidRequestError(
                f"voice {hash_} has speech tokens from {tokens.min()} to {tokens.max()}; this model knows 0 to "
                f"{self._num_codes - 1}: it was made for another model",
                param="voice",
            )
        return entry
