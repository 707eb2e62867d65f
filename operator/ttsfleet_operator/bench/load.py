"""When requests are sent: a closed loop of clients that wait, or open-loop Poisson arrivals that do not. Pure.

A closed loop measures what a number of patient clients get. It hides a stall, because nobody arrives while all wait;
so an open loop exists too, and its latencies count from the planned arrival, not from when the client came to it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """`rate` per second selects the open loop; otherwise `concurrency` clients send one request after another.

    At least one of `requests` and `duration_seconds` ends the run; no request begins after it.
    """

    concurrency: int = 1
    rate: float | None = None
    requests: int | None = None
    duration_seconds: float | None = None
    warmup: int = 0
    seed: int = 0

    def describe(self) -> str:
        kind = (
            f"open loop, {self.rate:g} requests/s (Poisson)"
            if self.rate
            else f"closed loop, {self.concurrency} clients"
        )
        ends = []
        if self.requests is not None:
            ends.append(f"{self.requests} requests")
        if self.duration_seconds is not None:
            ends.append(f"{self.duration_seconds:g} s")
        return f"{kind}, {' or '.join(ends)}"


def poisson_arrivals(load: Load) -> Iterator[float]:
    """Seconds from the start at which requests arrive: exponential gaps with mean 1 / rate, fixed by the seed."""
    assert load.rate is not None
    draws = random.Random(load.seed)
    at = 0.0
    count = 0
    while load.requests is None or count < load.requests:
        at += draws.expovariate(load.rate)
        if load.duration_seconds is not None and at >= load.duration_seconds:
            return
        yield at
        count += 1


def text_order(num_texts: int, seed: int) -> Iterator[int]:
    """Indices of texts without end: every text once in a shuffled order, then again in another."""
    draws = random.Random(seed)
    while True:
        order = list(range(num_texts))
        draws.shuffle(order)
        yield from order
