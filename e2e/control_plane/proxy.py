"""A proxy in front of the API server that breaks what a network and a busy server break.

It ends TLS on both sides and passes HTTP/1.1 on byte by byte: so it knows every request, can drop or freeze watches,
answer 429 in the server's place, and kill a process right after the n-th write was answered by the API server and
before the answer reaches the process. The product knows nothing of it.

The API server sees the identity that the proxy was made with; whoever has the proxy's kubeconfig acts as that.
Mechanism: an asyncio loop in a thread; each client connection has one connection to the API server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from control_plane.api_request import ApiRequest, read_request
from control_plane.certificates import KeyPair, write_kubeconfig
from control_plane.http_wire import Head, body, read_head
from control_plane.proxy_orders import Answered, Filter, Kill, Refusal, counted_write, refused

T = TypeVar("T")


@dataclass(eq=False)
class _Watch:
    request: ApiRequest
    writer: asyncio.StreamWriter


def abort(writer: asyncio.StreamWriter) -> None:
    """Ends a connection at once. Python 3.11.2 forgets a TLS connection that was closed twice: it cannot abort it."""
    with contextlib.suppress(AttributeError):
        writer.transport.abort()


class Proxy:
    """Listens on a free port of 127.0.0.1 from its making to `stop`."""

    def __init__(
        self, folder: Path, upstream: tuple[str, int], authority: Path, serving: KeyPair, client: KeyPair
    ) -> None:
        self._upstream = upstream
        self._upstream_tls = ssl.create_default_context(cafile=authority)
        self._upstream_tls.load_cert_chain(client.certificate, client.key)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(serving.certificate, serving.key)
        self._tls.set_alpn_protocols(["http/1.1"])
        self._watches: set[_Watch] = set()
        self._connections: set[asyncio.StreamWriter] = set()
        self._answered: list[Answered] = []
        self._kills: list[Kill] = []
        self._refusals: list[Refusal] = []
        self._freezes: Filter | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="control-plane-proxy", daemon=True)
        self._thread.start()
        self._thawed = self._run(_made(asyncio.Event))
        self._listener = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls))
        self.port: int = self._listener.sockets[0].getsockname()[1]
        self.kubeconfig = write_kubeconfig(
            folder / f"proxy-{self.port}.kubeconfig", f"https://127.0.0.1:{self.port}", authority, client
        )

    def stop(self) -> None:
        """Closes every connection and ends the thread. It can be called twice."""
        if self._thread.is_alive():
            self._run(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def answered(self, matches: Filter | None = None) -> list[Answered]:
        """The requests (of those that match) with the status that each was answered, in the order of the answers."""
        return [entry for entry in tuple(self._answered) if matches is None or matches(entry.request)]

    def writes(self, matches: Filter = counted_write) -> list[Answered]:
        """The writes that were answered: all but those of Leases and Events unless a filter is given."""
        return self.answered(matches)

    def open_watches(self) -> list[ApiRequest]:
        """The watches whose answer has begun and not ended."""
        return self._run(_made(lambda: [watch.request for watch in self._watches]))

    def kill_after(self, pid: int, writes: int, counts: Filter = counted_write) -> Kill:
        """Kills the process (SIGKILL) when the API server has answered that many writes from now on.

        The process gets no answer to the last one. Only writes that took effect (2xx) count.
        """
        kill = Kill(pid, writes, counts)
        self._run(_made(lambda: self._kills.append(kill)))
        return kill

    def drop_watches(self, matches: Filter = lambda _: True) -> int:
        """Cuts the connections of open watches; returns how many. New ones are let through."""

        def cut() -> int:
            chosen = [watch for watch in self._watches if matches(watch.request)]
            for watch in chosen:
                abort(watch.writer)
            return len(chosen)

        return self._run(_made(cut))

    def freeze_watches(self, matches: Filter = lambda _: True) -> None:
        """Holds back everything that open and new watches would say; their connections stay open."""

        def freeze() -> None:
            self._freezes = matches
            self._thawed.clear()

        self._run(_made(freeze))

    def thaw_watches(self) -> None:
        """Lets frozen watches say what was held back, and all go on."""

        def thaw() -> None:
            self._freezes = None
            self._thawed.set()
            self._thawed.clear()

        self._run(_made(thaw))

    def refuse(
        self, matches: Filter, *, times: int | None = None, status: int = 429, retry_after_seconds: int = 1
    ) -> Refusal:
        """Answers the next `times` matching requests (all when None) with the status, 429 unless given."""
        refusal = Refusal(matches, status, retry_after_seconds, times)
        self._run(_made(lambda: self._refusals.append(refusal)))
        return refusal

    def answer_all(self) -> None:
        """Ends all refusals."""
        self._run(_made(self._refusals.clear))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _close(self) -> None:
        self._listener.close()
        for writer in tuple(self._connections):
            abort(writer)
        this = asyncio.current_task()
        serving = [task for task in asyncio.all_tasks() if task is not this]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection: request after request until one side ends it."""
        self._connections.add(writer)
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while head := await read_head(reader):
                request = read_request(head.method, head.target)
                if refusal := self._refusal(request):
                    async for _ in body(reader, head):
                        pass
                    now = time.monotonic()
                    self._answered.append(Answered(request, refusal.status, now, now, refusal.retry_after_seconds))
                    writer.write(refused(refusal))
                    await writer.drain()
                    continue
                if upstream and upstream[0].at_eof():  # The API server ends idle connections.
                    await self._end(upstream[1])
                    upstream = None
                if upstream is None:
                    upstream = await asyncio.open_connection(*self._upstream, ssl=self._upstream_tls)
                    self._connections.add(upstream[1])
                await self._pass_on(request, head, reader, upstream, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # Either side is gone (or the API server is down): the client sees its connection end.
        finally:
            for end in (writer, upstream[1] if upstream else None):
                if end:
                    await self._end(end)

    async def _pass_on(
        self,
        request: ApiRequest,
        head: Head,
        reader: asyncio.StreamReader,
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        writer: asyncio.StreamWriter,
    ) -> None:
        """One request to the API server and its answer back."""
        begun = time.monotonic()
        upstream_reader, upstream_writer = upstream
        upstream_writer.write(head.raw)
        async for piece in body(reader, head):
            upstream_writer.write(piece)
            await upstream_writer.drain()
        await upstream_writer.drain()
        answer = await read_head(upstream_reader)
        if answer is None:
            raise ConnectionResetError("the API server closed the connection")
        seconds = answer.fields.get("retry-after", "")
        retry_after = int(seconds) if seconds.isdigit() else 0
        self._answered.append(Answered(request, answer.status, begun, time.monotonic(), retry_after))
        self._count(request, answer.status)
        if request.is_watch:
            await self._pass_watch(request, answer, reader, upstream_reader, writer)
            return
        writer.write(answer.raw)
        async for piece in body(upstream_reader, answer, answers=request.method):
            writer.write(piece)
            await writer.drain()
        await writer.drain()

    async def _pass_watch(
        self,
        request: ApiRequest,
        answer: Head,
        reader: asyncio.StreamReader,
        upstream_reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """The answer to a watch, until either side ends it. The client says nothing meanwhile but that it is gone."""
        watch = _Watch(request, writer)
        self._watches.add(watch)
        gone = asyncio.ensure_future(reader.read(1))
        events = asyncio.ensure_future(self._pass_events(request, answer, upstream_reader, writer))
        try:
            await asyncio.wait((gone, events), return_when=asyncio.FIRST_COMPLETED)
            if not events.done():
                raise ConnectionResetError("the client ended its watch")
            events.result()
            # A byte may have been taken from the next request, so the connection is not used again.
            raise ConnectionResetError("the watch ended")
        finally:
            self._watches.discard(watch)
            for task in (gone, events):
                task.cancel()
            await asyncio.gather(gone, events, return_exceptions=True)

    async def _pass_events(
        self, request: ApiRequest, answer: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(answer.raw)
        await writer.drain()
        async for piece in body(reader, answer, answers=request.method):
            while self._freezes and self._freezes(request):
                await self._thawed.wait()
            writer.write(piece)
            await writer.drain()

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        """Lets what was written arrive, but waits no longer than a moment for a peer that does not read."""
        writer.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), timeout=2)
        abort(writer)
        self._connections.discard(writer)

    def _refusal(self, request: ApiRequest) -> Refusal | None:
        for refusal in self._refusals:
            if refusal.left != 0 and refusal.matches(request):
                refusal.given += 1
                refusal.left = None if refusal.left is None else refusal.left - 1
                return refusal
        return None

    def _count(self, request: ApiRequest, status: int) -> None:
        """Counts a write that took effect towards the kills, and kills."""
        if status >= 300:
            return
        for kill in [kill for kill in self._kills if kill.counts(request)]:
            kill.after -= 1
            if kill.after == 0:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(kill.pid, signal.SIGKILL)
                self._kills.remove(kill)
                kill.at = request
                kill.happened.set()


async def _made(make: Callable[[], T]) -> T:
    """Runs a function in the loop's thread."""
    return make()
