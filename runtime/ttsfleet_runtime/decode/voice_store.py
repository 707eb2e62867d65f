"""The speakers that the decode stage has at hand: voice entries of the run directory as tensors on its device.

Loaded when a segment first names them, kept least-recently-used up to a capacity, dropped when the router says so.
Segments hold the tensors that they use, so dropping never takes a voice from a running segment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ttsfleet_runtime.errors import InvalidRequestError, UnavailableError
from ttsfleet_runtime.voices import VoiceEntry, read_voice


@dataclass(frozen=True, slots=True)
class SpeakerTensors:
    """What the flow needs of a speaker, on the stage's device.

    prompt_tokens: int64 [P]; prompt_mel: float32 [M, 80], M = 2P for an aligned prompt; embedding: float32 [192]
    """

    prompt_tokens: Tensor
    prompt_mel: Tensor
    embedding: Tensor

    def without_prompt(self) -> SpeakerTensors:
        """The same speaker with nothing to continue from (mode sft)."""
        return SpeakerTensors(self.prompt_tokens[:0], self.prompt_mel[:0], self.embedding)


class VoiceStore:
    """Least-recently-used cache of `SpeakerTensors` by content hash."""

    def __init__(self, run_dir: Path, device: torch.device, *, capacity: int, vocab_size: int) -> None:
        self._run_dir = run_dir
        self._device = device
        self._capacity = capacity
        self._vocab_size = vocab_size
        self._speakers: OrderedDict[str, SpeakerTensors] = OrderedDict()

    def __len__(self) -> int:
        return len(self._speakers)

    def get(self, voice_hash: str) -> SpeakerTensors:
        """The speaker of this hash, from the cache or the run directory.

        Raises InvalidRequestError without a hash and UnavailableError when the entry is gone or cannot be read.
        """
        if not voice_hash:
            raise InvalidRequestError(
                "the segment names no voice: give a registered voice or prompt audio", param="voice"
            )
        speaker = self._speakers.get(voice_hash)
        if speaker is None:
            speaker = self._load(voice_hash)
            self._speakers[voice_hash] = speaker
            if len(self._speakers) > self._capacity:
                self._speakers.popitem(last=False)
        self._speakers.move_to_end(voice_hash)
        return speaker

    def drop(self, voice_hashes: Iterable[str]) -> None:
        """Forget these hashes; unknown ones are ignored."""
        for voice_hash in voice_hashes:
            self._speakers.pop(voice_hash, None)

    def _load(self, voice_hash: str) -> SpeakerTensors:
        try:
            entry = read_voice(self._run_dir, voice_hash)
        except (OSError, SafetensorError, KeyError) as error:
            raise UnavailableError(
                f"voice {voice_hash} cannot be read ({error}); send the request again to compute it anew",
                param="voice",
                retry_after_seconds=1,
            ) from error
        tokens = entry.speech_tokens
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < self._vocab_size:
            raise InvalidRequestError(
                f"voice {voice_hash} has speech tokens from {tokens.min()} to {tokens.max()}; this model knows 0 to "
                f"{self._vocab_size - 1}: it was made for another model",
                param="voice",
            )
        return self._to_device(entry)

    def _to_device(self, entry: VoiceEntry) -> SpeakerTensors:
        return SpeakerTensors(
            prompt_tokens=torch.from_numpy(entry.speech_tokens).to(self._device, torch.int64),
            prompt_mel=torch.from_numpy(entry.mel).to(self._device, torch.float32),
            embedding=torch.from_numpy(entry.speaker_embedding).to(self._device, torch.float32),
        )
