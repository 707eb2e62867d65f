"""Counts underruns of a stream: chunks that come after the listener has heard everything sent before. Pure."""

from __future__ import annotations

_TOLERANCE_SECONDS = 0.001


class Playback:
    """A listener who starts with the first chunk and never skips; a late chunk stalls the playback until it comes."""

    def __init__(self) -> None:
        self.audio_seconds = 0.0
        self.underruns = 0
        self._dry_at: float | None = None

    def chunk(self, now: float, seconds: float) -> None:
        """`seconds` of audio became ready at `now` (any monotonic clock)."""
        self.audio_seconds += seconds
        if self._dry_at is not None and now > self._dry_at + _TOLERANCE_SECONDS:
            self.underruns += 1
            self._dry_at = now
        self._dry_at = (now if self._dry_at is None else self._dry_at) + seconds
