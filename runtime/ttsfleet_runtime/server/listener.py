"""uvicorn, adapted to a supervised worker: waits on an event instead of ticking, and leaves in two ways.

Recycling must cut nothing: this process goes on accepting until its successor is ready, answers with
`Connection: close`, gives kept-alive connections their usual time to end, and only then stops. Being shut down is
the same with little patience for idle connections and a deadline, after which what still runs fails by name instead
of being cut silently.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ttsfleet_runtime.config.plan import ServerPlan

_DATE_SECONDS = 1.0
_POLL_SECONDS = 0.05
_SHUTDOWN_IDLE_SECONDS = 0.3
_FAREWELL_SECONDS = 1.5


class Listener(uvicorn.Server):
    """Serves one listening socket until `stop` is called; the owner handles signals.

    on_ready: called once connections are accepted. fail_running: called at the drain's deadline with requests left.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        plan: ServerPlan,
        *,
        on_ready: Callable[[], None],
        fail_running: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._plan = plan
        self._on_ready = on_ready
        self._fail_running = fail_running
        self._stop = asyncio.Event()
        self._idle_seconds = 0.0
        self._drain_seconds: float | None = None

    def stop(self, *, retiring: bool) -> None:
        """Stop accepting and finish: without haste when retiring, within `drain_seconds` otherwise.

        A shutdown may follow a retirement and hurries it.
        """
        if retiring and self._stop.is_set():
            return
        self._idle_seconds = self._plan.keepalive + 1.0 if retiring else _SHUTDOWN_IDLE_SECONDS
        self._drain_seconds = None if retiring else self._plan.drain_seconds
        self._stop_time = time.monotonic()
        self._stop.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process's main function: uvicorn's handlers would end it with the signal's status."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def main_loop(self) -> None:
        """Keep the Date header current until told to stop."""
        while not self._stop.is_set():
            self.server_state.default_headers = [
                (b"date", formatdate(time.time(), usegmt=True).encode()),
                *self.config.encoded_headers,
            ]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _DATE_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listening socket (the router holds it open for the others), then see every connection end."""
        for server in self.servers:
            server.close()
        for each in sockets or []:
            each.close()
        while self.server_state.connections or self.server_state.tasks:
            waited = time.monotonic() - self._stop_time
            if waited >= self._idle_seconds:
                # Closes idle connections at once, and busy ones after their answer.
                for connection in list(self.server_state.connections):
                    connection.shutdown()
            if self._drain_seconds is not None and waited >= self._drain_seconds:
                await self._cut()
                break
            await asyncio.sleep(_POLL_SECONDS)
        await self.lifespan.shutdown()

    async def _cut(self) -> None:
        """Fail what still runs, so each client gets an error; then leave even those that do not read it."""
        logging.getLogger(__name__).warning("%d requests outlived the drain and fail", len(self.server_state.tasks))
        self._fail_running()
        tasks = set(self.server_state.tasks)
        if tasks:
            _, unfinished = await asyncio.wait(tasks, timeout=_FAREWELL_SECONDS)
            for task in unfinished:
                task.cancel()


class SilentFirstProtocol(HttpToolsProtocol):
    """A connection that never sends a request ends like a kept-alive one: uvicorn would hold it for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)


def listener_config(app: object, plan: ServerPlan) -> uvicorn.Config:
    """uvicorn's settings for a worker. Limits and access logs are the app's own."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=SilentFirstProtocol,
        ws="none",
        loop="uvloop",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=max(1, round(plan.keepalive)),
    )


def quiet_uvicorn() -> None:
    """Drop uvicorn's remarks on what the app does on purpose and logs itself: aborting a body that failed."""
    log = logging.getLogger("uvicorn.error")
    log.setLevel(logging.WARNING)
    log.addFilter(lambda record: record.msg != "ASGI callable returned without completing response.")


def bound_dead_clients(listening: socket.socket, plan: ServerPlan) -> None:
    """Let the kernel end connections whose client takes no byte for the request timeout.

    Set on the listening socket, inherited by every accepted one. Without it a client that stops reading would hold
    its connection, and so a retiring process, for ever.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT") and listening.family in (socket.AF_INET, socket.AF_INET6):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(plan.timeout * 1000))
