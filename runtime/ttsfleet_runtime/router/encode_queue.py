"""Encode work on its way: who does it, what waits, what is tried again. Pure.

First come, first served: work goes to the encoder with the least in flight, at most `encode_paral_num` each, and
waits here while all are full. Work of a process that died is tried once more, ahead of the rest.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from ttsfleet_runtime.messages import EncodeText, EncodeVoice
from ttsfleet_runtime.stage import Outgoing

EncodeWork = EncodeText | EncodeVoice


def work_id(work: EncodeWork) -> str:
    """A text is known by its request's key, a voice by its content hash."""
    return work.key if isinstance(work, EncodeText) else work.voice_hash


class EncodeQueue:
    """`encoders` lists the processes that are ready."""

    def __init__(self, encoders: Callable[[], list[str]], max_in_flight: int) -> None:
        self._encoders = encoders
        self._max_in_flight = max_in_flight
        self._held: dict[str, tuple[str, EncodeWork]] = {}
        self._waiting: deque[EncodeWork] = deque()
        self._retried: set[str] = set()

    def submit(self, work: EncodeWork) -> list[Outgoing]:
        """Take in work; returns what can be sent now, in order of arrival."""
        self._waiting.append(work)
        return self.pump()

    def pump(self) -> list[Outgoing]:
        """Send waiting work to free encoders."""
        outgoing: list[Outgoing] = []
        load = Counter(encoder for encoder, _ in self._held.values())
        while self._waiting:
            free = [encoder for encoder in self._encoders() if load[encoder] < self._max_in_flight]
            if not free:
                break
            encoder = min(free, key=lambda e: (load[e], e))
            work = self._waiting.popleft()
            self._held[work_id(work)] = (encoder, work)
            load[encoder] += 1
            outgoing.append(Outgoing(encoder, work))
        return outgoing

    def finished(self, id_: str) -> list[Outgoing]:
        """An encoder answered; returns what can be sent in its place."""
        self._held.pop(id_, None)
        self._retried.discard(id_)
        return self.pump()

    def cancel(self, key: str) -> str | None:
        """A request left: its text is forgotten; returns the encoder that has it, if one does."""
        self._retried.discard(key)
        self._waiting = deque(w for w in self._waiting if work_id(w) != key)
        held = self._held.pop(key, None)
        return None if held is None else held[0]

    def lost(self, identity: str) -> list[EncodeWork]:
        """An encoder died: its work waits again, at the front; returns what has had its second try."""
        lost = [work for encoder, work in self._held.values() if encoder == identity]
        given_up = []
        for work in reversed(lost):
            id_ = work_id(work)
            del self._held[id_]
            if id_ in self._retried:
                self._retried.discard(id_)
                given_up.append(work)
            else:
                self._retried.add(id_)
                self._waiting.appendleft(work)
        return given_up
