"""When each listening client runs out of audio, as far as the decode stage can know. Pure: the caller has the clock.

A client plays what it got without a pause: its audio ends at the end of the last chunk, or, after an underrun, at
the arrival of the next chunk plus its length. Network and client buffers only add slack that is the same for all.
"""

from __future__ import annotations


class PlaybackClock:
    """The end of the audio that each request has been given, in seconds of the caller's clock.

    Whoever ends a request must `forget` it; beyond `capacity` requests the one that began first is forgotten.
    """

    def __init__(self, capacity: int = 65536) -> None:
        self._capacity = capacity
        self._ends: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def has_begun(self, key: str) -> bool:
        """True once the request has been given audio."""
        return key in self._ends

    def deadline(self, key: str, otherwise: float) -> float:
        """When the client of this request hears silence; `otherwise` if it has no audio from this process yet."""
        return self._ends.get(key, otherwise)

    def emitted(self, key: str, audio_seconds: float, now: float) -> None:
        """Audio of this length was sent at `now`."""
        self._ends[key] = max(self._ends.get(key, now), now) + audio_seconds
        if len(self._ends) > self._capacity:
            del self._ends[next(iter(self._ends))]

    def forget(self, key: str) -> None:
        """The request has ended."""
        self._ends.pop(key, None)
