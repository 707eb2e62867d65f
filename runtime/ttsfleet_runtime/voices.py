"""Voice entries: what the models need of a speaker, one immutable file per content hash in the run directory.

Written once by an encoder (or by the router for the voices that ship with a model), mapped by the LLM and the
decoders. Writing is atomic (rename), so a file that exists is whole. No torch here: numpy views, which
`torch.from_numpy` can share.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file


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
