"""Waiting for something with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from control_plane.errors import NeverHappened

T = TypeVar("T")


def eventually(check: Callable[[], T], what: str, within: float = 30.0, every: float = 0.05) -> T:
    """Asks again and again until the check answers something true, and returns that.

    An AssertionError of the check counts as "not yet", so that a test can use its own assertions.

    Raises:
        NeverHappened: the deadline (seconds) passed; the last answer or assertion is in the message.
    """
    deadline = time.monotonic() + within
    while True:
        last: object
        try:
            answer = check()
            if answer:
                return answer
            last = answer
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise NeverHappened(f"{what}: not within {within:g} s; last seen: {last!r}")
        time.sleep(every)
