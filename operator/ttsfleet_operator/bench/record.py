"""What is known of one benchmark request after it ended. The runner fills it, the report reads it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RequestRecord:
    """One request. Times in seconds; `arrival` and `ended` count from the start of the measured run.

    error: "" for success, else a kind such as `http 429`, `timeout`, `incomplete`
    stall_seconds: how long playback, begun with the first audio, would have stood still
    """

    arrival: float
    ended: float
    characters: int
    first_audio_seconds: float | None = None
    latency_seconds: float | None = None
    audio_seconds: float = 0.0
    stalls: int = 0
    stall_seconds: float = 0.0
    error: str = ""
    detail: str = ""

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of work per second of audio; None without audio."""
        if self.latency_seconds is None or not self.audio_seconds:
            return None
        return self.latency_seconds / self.audio_seconds


def playback_stalls(arrivals: list[tuple[float, float]]) -> tuple[int, float]:
    """(number, seconds) of stalls of a player that starts with the first piece.

    arrivals: (time of arrival, seconds of audio in the piece), in order.
    """
    stalls, stalled = 0, 0.0
    buffered_until = arrivals[0][0] if arrivals else 0.0
    for at, seconds in arrivals:
        if at > buffered_until + 1e-9:
            stalls += 1
            stalled += at - buffered_until
            buffered_until = at
        buffered_until += seconds
    return stalls, stalled
