"""When a client runs out of audio."""

from __future__ import annotations

import pytest

from ttsfleet_runtime.decode.playback import PlaybackClock


@pytest.mark.parametrize(
    ("chunks", "deadline"),
    [
        pytest.param([], 5.0, id="nothing sent: what the caller says"),
        pytest.param([(10.0, 2.0)], 12.0, id="a chunk plays from the moment it is sent"),
        pytest.param([(10.0, 2.0), (11.0, 3.0)], 15.0, id="the next one plays after it"),
        pytest.param([(10.0, 2.0), (20.0, 1.0)], 21.0, id="after an underrun playback starts anew"),
    ],
)
def test_the_deadline_is_the_end_of_what_was_sent(chunks: list[tuple[float, float]], deadline: float) -> None:
    clock = PlaybackClock()
    for now, seconds in chunks:
        clock.emitted("r", seconds, now)
    assert clock.deadline("r", otherwise=5.0) == deadline
    assert clock.has_begun("r") is bool(chunks)


def test_a_forgotten_request_leaves_nothing() -> None:
    clock = PlaybackClock()
    clock.emitted("r", 1.0, 0.0)
    clock.forget("r")
    clock.forget("never seen")
    assert len(clock) == 0


def test_the_number_of_remembered_requests_is_bounded() -> None:
    clock = PlaybackClock(capacity=2)
    for number in range(4):
        clock.emitted(f"r{number}", 1.0, 0.0)
    assert len(clock) == 2
    assert not clock.has_begun("r0")
