"""Shortens long silences: of a run of silent speech tokens only the first few go on to the flow.

The LLM's own history keeps all of them. Which ids are silent is a property of the model; CosyVoice2 has none.
"""

from __future__ import annotations

MAX_SILENT_RUN = 5


class SilenceLimiter:
    """State of one sequence: how long the current run of silent tokens is."""

    def __init__(self, silent_ids: frozenset[int], max_run: int = MAX_SILENT_RUN) -> None:
        self._silent_ids = silent_ids
        self._max_run = max_run
        self._run = 0

    def keeps(self, token: int) -> bool:
        """Take in the next token of the sequence; False = do not forward it."""
        self._run = self._run + 1 if token in self._silent_ids else 0
        return self._run <= self._max_run
