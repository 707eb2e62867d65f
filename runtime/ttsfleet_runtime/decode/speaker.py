"""A speaker as the flow reads it: the arrays of a voice entry as tensors on the stage's device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ttsfleet_runtime.voices import VoiceEntry


@dataclass(frozen=True, slots=True)
class SpeakerTensors:
    """What the flow needs of a speaker, on the stage's device.

    prompt_tokens: int64 [P]; prompt_mel: float32 [M, 80], M = 2P for an aligned prompt; embedding: float32 [192]
    """

    prompt_tokens: Tensor
    prompt_mel: Tensor
    embedding: Tensor

    @classmethod
    def of(cls, entry: VoiceEntry, device: torch.device) -> SpeakerTensors:
        return cls(
            prompt_tokens=torch.from_numpy(entry.speech_tokens).to(device, torch.int64),
            prompt_mel=torch.from_numpy(entry.mel).to(device, torch.float32),
            embedding=torch.from_numpy(entry.speaker_embedding).to(device, torch.float32),
        )

    def without_prompt(self) -> SpeakerTensors:
        """The same speaker with nothing to continue from (mode sft)."""
        return SpeakerTensors(self.prompt_tokens[:0], self.prompt_mel[:0], self.embedding)
