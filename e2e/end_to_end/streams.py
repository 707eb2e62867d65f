"""Clients that listen while a fleet changes: streams that must be whole, and requests that must be answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

RATE = 24000
BYTES_PER_SAMPLE = 2
SENTENCE = "The kettle is on, so sit down for a minute and tell me about your day. "


@dataclass(frozen=True)
class Heard:
    """One stream: seconds of audio, and when it began and ended by `time.monotonic`."""

    audio_seconds: float
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def text_of(sentences: int) -> str:
    """A text of so many sentences, about four seconds of speech each."""
    return (SENTENCE * sentences).strip()


def listen(url: str, text: str, seed: int, timeout: float = 300) -> Heard:
    """Streams a text to its end on a connection of its own.

    Raises:
        httpx.HTTPError: the request was refused, or the stream was cut.
    """
    body = {"input": text, "voice": "heart", "model": "tiny-en", "response_format": "pcm", "seed": seed}
    began = time.monotonic()
    size = 0
    with httpx.stream("POST", f"{url}/v1/audio/speech", json=body, timeout=timeout) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_bytes():
            size += len(chunk)
    return Heard(size / BYTES_PER_SAMPLE / RATE, began, time.monotonic())


@contextmanager
def listeners(url: str, count: int, text: str) -> Iterator[Traffic]:
    """`count` clients, each with one stream after the other, until the block ends and their streams have."""
    traffic = Traffic(url, text)
    with ThreadPoolExecutor(count, thread_name_prefix="listener") as pool:
        traffic.clients = [pool.submit(traffic.run, number) for number in range(count)]
        try:
            yield traffic
        finally:
            traffic.ended.set()


class Traffic:
    """What the clients of `listeners` heard so far."""

    def __init__(self, url: str, text: str) -> None:
        self._url = url
        self._text = text
        self.ended = threading.Event()
        self.clients: list[Future[None]] = []
        self.heard: list[Heard] = []
        self.failures: list[str] = []

    def run(self, number: int) -> None:
        """One client. Each stream has a seed of its own client, so that its length repeats."""
        while not self.ended.is_set():
            began = time.monotonic()
            try:
                self.heard.append(listen(self._url, self._text, seed=number))
            except httpx.HTTPError as error:
                self.failures.append(f"after {time.monotonic() - began:.1f} s: {type(error).__name__} {error}")
                time.sleep(0.5)

    def wait_ended(self, count: int, within: float) -> None:
        """Returns when so many streams have ended, whole or not."""
        deadline = time.monotonic() + within
        while len(self.heard) + len(self.failures) < count and time.monotonic() < deadline:
            time.sleep(0.2)

    def cut(self) -> list[Heard]:
        """Streams that ended early: shorter than nine tenths of the longest."""
        longest = max((one.audio_seconds for one in self.heard), default=0)
        return [one for one in self.heard if one.audio_seconds < 0.9 * longest]
