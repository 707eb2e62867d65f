"""The segments that the decode stage holds, and what it remembers of their requests. The caller has the clock.

A segment enters with `add` and leaves with `close` (it ended), `cancel` (its request did) or, when nobody asks for
it any more, by way of `expired`: a restarted process can be sent segments of requests that ended before it began.
All that is kept per request goes with its last segment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from ttsfleet_runtime.decode.playback import PlaybackClock
from ttsfleet_runtime.decode.scheduler import SegmentKey
from ttsfleet_runtime.decode.segment import Segment
from ttsfleet_runtime.messages import DecodeJob

# A cancelled request's jobs may still be on their way from the LLM, over another socket: remember as many keys.
_REMEMBERED_CANCELS = 4096
_DEADLINE_CHECK_SECONDS = 0.1


class LiveSegments:
    """Owner of the segments and of their requests' playback clocks."""

    def __init__(self) -> None:
        self.playback = PlaybackClock()
        self._segments: dict[SegmentKey, Segment] = {}
        self._ending: set[str] = set()  # requests whose last segment is decoded while others are not
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._next_deadline_check = 0.0

    def __len__(self) -> int:
        return len(self._segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments.values())

    def __getitem__(self, key: SegmentKey) -> Segment:
        return self._segments[key]

    @property
    def num_requests_remembered(self) -> int:
        """Requests of which anything but cancellation is kept."""
        return len(self.playback) + len(self._ending)

    def find(self, key: SegmentKey) -> Segment | None:
        return self._segments.get(key)

    def expects(self, job: DecodeJob) -> bool:
        """False for a segment that is there already or whose request was cancelled."""
        return (job.key, job.segment) not in self._segments and job.key not in self._cancelled

    def add(self, segment: Segment) -> None:
        self._segments[segment.key] = segment

    def close(self, segment: Segment) -> None:
        """The segment has ended, well or not."""
        del self._segments[segment.key]
        key = segment.job.key
        if segment.job.last_segment:
            self._ending.add(key)
        if key in self._ending and not any(live == key for live, _ in self._segments):
            self._ending.discard(key)
            self.playback.forget(key)

    def cancel(self, key: str) -> None:
        """Drop all segments of a request, and those that will still come."""
        for segment_key in [segment_key for segment_key in self._segments if segment_key[0] == key]:
            del self._segments[segment_key]
        self.playback.forget(key)
        self._ending.discard(key)
        self._cancelled[key] = None
        if len(self._cancelled) > _REMEMBERED_CANCELS:
            self._cancelled.popitem(last=False)

    def expired(self, now: float) -> list[Segment]:
        """Segments whose deadline has passed; looks at most every tenth of a second. The caller closes them."""
        if now < self._next_deadline_check:
            return []
        self._next_deadline_check = now + _DEADLINE_CHECK_SECONDS
        return [segment for segment in self if 0.0 < segment.job.deadline <= now]
