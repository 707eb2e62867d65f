"""The prompt speech tokens of voices, as the LLM reads them: by content hash, from the run directory."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from safetensors import SafetensorError

from ttsfleet_runtime.errors import InvalidRequestError, UnavailableError
from ttsfleet_runtime.llm.sequence import Vocabulary
from ttsfleet_runtime.voices import read_voice


class PromptSpeech:
    """Prompt speech tokens by voice hash, a bounded number kept, least recently used first out."""

    def __init__(self, run_dir: Path, vocabulary: Vocabulary, capacity: int) -> None:
        self._run_dir = run_dir
        self._num_codes = vocabulary.num_codes
        self._capacity = capacity
        self._tokens: OrderedDict[str, list[int]] = OrderedDict()

    def get(self, voice_hash: str) -> list[int]:
        """Raises UnavailableError when the entry is gone, InvalidRequestError when it is another model's."""
        tokens = self._tokens.get(voice_hash)
        if tokens is None:
            tokens = self._load(voice_hash)
            self._tokens[voice_hash] = tokens
            if len(self._tokens) > self._capacity:
                self._tokens.popitem(last=False)
        self._tokens.move_to_end(voice_hash)
        return tokens

    def drop(self, voice_hashes: list[str]) -> None:
        for voice_hash in voice_hashes:
            self._tokens.pop(voice_hash, None)

    def _load(self, voice_hash: str) -> list[int]:
        try:
            tokens: list[int] = read_voice(self._run_dir, voice_hash).speech_tokens.tolist()
        except (OSError, SafetensorError, KeyError) as error:
            raise UnavailableError(
                f"voice {voice_hash} cannot be read ({error}); send the request again to compute it anew",
                param="voice",
                retry_after_seconds=1,
            ) from error
        if any(not 0 <= token < self._num_codes for token in tokens):
            raise InvalidRequestError(
                f"voice {voice_hash} has speech tokens beyond 0 to {self._num_codes - 1}: it was made for another "
                "model",
                param="voice",
            )
        return tokens
