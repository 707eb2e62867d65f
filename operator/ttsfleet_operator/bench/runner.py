"""Sends the load and records what came back. The only module of the benchmark that knows sockets and time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import httpx

from ttsfleet_operator.bench.load import Load, poisson_arrivals, text_order
from ttsfleet_operator.bench.record import RequestRecord, playback_stalls
from ttsfleet_operator.errors import SpeechError
from ttsfleet_operator.speech import Delivery, SpeechOrder, pcm_seconds, stream_speech, wav_seconds


@dataclass(frozen=True)
class Target:
    """What is asked of which server. `stream` asks for pcm and times the first audio; otherwise for a WAV."""

    url: str
    order: SpeechOrder
    stream: bool = True


Progress = Callable[[RequestRecord], None]


async def run_load(
    client: httpx.AsyncClient, target: Target, texts: Sequence[str], load: Load, progress: Progress
) -> list[RequestRecord]:
    """Warm up, then run the load. Returns a record per measured request, in the order of their ends."""
    indices = text_order(len(texts), load.seed)
    for _ in range(load.warmup):
        record = await _request(client, target, texts[next(indices)], time.perf_counter(), None)
        if record.error:
            raise SpeechError(f"the warm-up failed ({record.error}): {record.detail}")
    run = _Run(client, target, texts, indices, time.perf_counter(), progress)
    if load.rate is None:
        await _closed_loop(run, load)
    else:
        await _open_loop(run, load)
    return run.records


class _Run:
    """The state of one measured run."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        target: Target,
        texts: Sequence[str],
        indices: Iterator[int],
        start: float,
        progress: Progress,
    ) -> None:
        self.start = start
        self.records: list[RequestRecord] = []
        self._client, self._target, self._texts, self._indices = client, target, texts, indices
        self._progress = progress

    def elapsed(self) -> float:
        return time.perf_counter() - self.start

    async def one(self, arrival: float | None = None) -> None:
        """Send one request; `arrival` (seconds from the start) is when it was planned, None = now."""
        text = self._texts[next(self._indices)]
        began = time.perf_counter() if arrival is None else self.start + arrival
        record = await _request(self._client, self._target, text, began, self.start)
        self.records.append(record)
        self._progress(record)


async def _closed_loop(run: _Run, load: Load) -> None:
    left = load.requests

    async def client() -> None:
        nonlocal left
        while left is None or left > 0:
            if load.duration_seconds is not None and run.elapsed() >= load.duration_seconds:
                return
            if left is not None:
                left -= 1
            await run.one()

    async with asyncio.TaskGroup() as group:
        for _ in range(load.concurrency):
            group.create_task(client())


async def _open_loop(run: _Run, load: Load) -> None:
    async with asyncio.TaskGroup() as group:
        for arrival in poisson_arrivals(load):
            wait = arrival - run.elapsed()
            if wait > 0:
                await asyncio.sleep(wait)
            group.create_task(run.one(arrival))


async def _request(
    client: httpx.AsyncClient, target: Target, text: str, began: float, start: float | None
) -> RequestRecord:
    """One request from `began` (perf_counter); never raises for what the server or the network does."""
    delivery = Delivery(started=began)
    order = replace(target.order, text=text, response_format="pcm" if target.stream else "wav")
    origin = began if start is None else start
    body = bytearray()
    error = detail = ""
    try:
        async for piece in stream_speech(client, target.url, order, delivery):
            if not target.stream:
                body += piece
        if not delivery.arrivals:
            error, detail = "no audio", "the answer was empty"
    except SpeechError as problem:
        error, detail = f"http {delivery.status}", str(problem)
    except httpx.HTTPError as problem:
        error, detail = _kind(problem), str(problem) or type(problem).__name__
    ended = delivery.ended or time.perf_counter()
    base = RequestRecord(arrival=began - origin, ended=ended - origin, characters=len(text))
    if error:
        return replace(base, error=error, detail=detail)
    try:
        return _measured(base, delivery, target.stream, bytes(body))
    except SpeechError as problem:
        return replace(base, error="bad audio", detail=str(problem))


def _measured(base: RequestRecord, delivery: Delivery, stream: bool, body: bytes) -> RequestRecord:
    if not stream:
        return replace(base, latency_seconds=delivery.total_seconds, audio_seconds=wav_seconds(body))
    rate = delivery.sample_rate_hz
    stalls, stalled = playback_stalls([(at, pcm_seconds(size, rate)) for at, size in delivery.arrivals])
    return replace(
        base,
        first_audio_seconds=delivery.first_audio_seconds,
        latency_seconds=delivery.total_seconds,
        audio_seconds=pcm_seconds(delivery.num_bytes, rate),
        stalls=stalls,
        stall_seconds=stalled,
    )


def _kind(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return "connect"
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        return "incomplete"
    return type(error).__name__
