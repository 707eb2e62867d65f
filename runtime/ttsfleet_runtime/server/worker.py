"""The HTTP process: one event loop, one listening socket inherited from the router, no model.

    python -m ttsfleet_runtime.server.worker --identity http-0 --run-dir DIR --plan FILE --bundle DIR --fd N \\
        --parent PID [--api-key-file FILE]

Ends with status 0 on SIGTERM or the router's Shutdown (running streams first, within `server.drain_seconds`), and by
itself after `server.max_requests` requests plus a random part of `max_requests_jitter`: it tells the router, goes on
until its successor accepts, then finishes what runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import uvloop

from ttsfleet_runtime.checkpoint.bundle import ModelInfo, read_model_info
from ttsfleet_runtime.config.plan import EnginePlan, read_plan
from ttsfleet_runtime.errors import TTSFleetError, UnavailableError
from ttsfleet_runtime.messages import Gauge, GetStatus, Heartbeat, Hello, Retiring
from ttsfleet_runtime.process import configure_logging, die_with_parent, ignore_interrupt
from ttsfleet_runtime.server.access import WorkerLoad
from ttsfleet_runtime.server.app import create_app
from ttsfleet_runtime.server.key_file import KeyFile
from ttsfleet_runtime.server.listener import Listener, bound_dead_clients, listener_config, quiet_uvicorn
from ttsfleet_runtime.server.router_client import RouterClient

logger = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 1.0
_SUCCESSOR_POLLS = 100
_SUCCESSOR_POLL_SECONDS = 0.2
_SHUTTING_DOWN = UnavailableError(
    "the server is shutting down and the request did not end in time; try again", retry_after_seconds=2.0
).info()


class Worker:
    """One HTTP process from its first to its last request."""

    def __init__(
        self, identity: str, run_dir: Path, plan: EnginePlan, model: ModelInfo, api_key: KeyFile | None
    ) -> None:
        self._plan = plan.server
        self._client = RouterClient(identity, run_dir)
        self._load = WorkerLoad()
        self._load.on_ended = self._count
        self._retire_after = retire_after(self._plan.max_requests, self._plan.max_requests_jitter)
        self._retirement: asyncio.Task[None] | None = None
        app = create_app(self._client, plan, model, None if api_key is None else api_key.current, self._load)
        self._listener = Listener(
            listener_config(app, self._plan),
            self._plan,
            on_ready=self._say_hello,
            fail_running=lambda: self._client.fail_all(_SHUTTING_DOWN),
        )

    async def run(self, listening: socket.socket) -> None:
        """Serve until retired or shut down."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        await self._client.start()
        background = [asyncio.create_task(self._await_shutdown()), asyncio.create_task(self._beat())]
        try:
            await self._listener.serve([listening])
        finally:
            for task in (*background, self._retirement):
                if task is not None:
                    task.cancel()
            await self._client.close()

    def _say_hello(self) -> None:
        self._client.send(Hello(identity=self._client.identity, pid=os.getpid()))

    async def _beat(self) -> None:
        """Tell the router once a second that this event loop turns, and its load; the router kills a silent one."""
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            gauges = [
                Gauge(name="http_requests", value=self._load.running),
                Gauge(name="http_streams", value=self._client.num_streams),
            ]
            self._client.send_if_connected(Heartbeat(identity=self._client.identity, gauges=gauges, pid=os.getpid()))

    def _terminate(self) -> None:
        """Someone wants this one process to end: its successor may start while its streams finish."""
        self._client.send_if_connected(Retiring(identity=self._client.identity))
        self._client.shutdown_asked.set()

    async def _await_shutdown(self) -> None:
        await self._client.shutdown_asked.wait()
        logger.info("shutting down: %d requests running", self._load.running)
        self._load.retiring = True
        self._listener.stop(retiring=False)

    def _count(self, ended: int) -> None:
        if self._retire_after is not None and ended >= self._retire_after and self._retirement is None:
            self._retirement = asyncio.create_task(self._retire(ended))

    async def _retire(self, ended: int) -> None:
        """Hand over to a successor, then stop accepting."""
        logger.info("retiring after %d requests", ended)
        self._client.send_if_connected(Retiring(identity=self._client.identity))
        for _ in range(_SUCCESSOR_POLLS):
            if await self._successor_is_ready():
                break
            await asyncio.sleep(_SUCCESSOR_POLL_SECONDS)
        self._load.retiring = True
        self._listener.stop(retiring=True)

    async def _successor_is_ready(self) -> bool:
        """Whether an HTTP process that started after this one accepts connections, as the router sees it."""
        try:
            status = json.loads((await self._client.call(GetStatus)).text or "{}")
        except TTSFleetError:
            return True
        own = _number(self._client.identity)
        processes = status.get("processes", {})
        return any(
            name.startswith("http-") and _number(name) > own and state.get("ready")
            for name, state in processes.items()
        )


def retire_after(max_requests: int, jitter: int) -> int | None:
    """After how many requests a worker retires; None = never (`max_requests: 0`)."""
    return max_requests + random.randint(0, jitter) if max_requests > 0 else None


def _number(identity: str) -> int:
    tail = identity.rpartition("-")[2]
    return int(tail) if tail.isdigit() else -1


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ttsfleet_runtime.server.worker", description=__doc__)
    parser.add_argument("--identity", required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--api-key-file", type=Path)
    args = parser.parse_args(argv)
    die_with_parent(args.parent)
    ignore_interrupt()
    configure_logging(args.identity)
    quiet_uvicorn()
    plan = read_plan(args.plan)
    listening = socket.socket(fileno=args.fd)
    bound_dead_clients(listening, plan.server)
    api_key = None if args.api_key_file is None else KeyFile(args.api_key_file)
    model = read_model_info(args.bundle)

    async def serve() -> None:
        await Worker(args.identity, args.run_dir, plan, model, api_key).run(listening)

    uvloop.run(serve())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
