"""The router process: sockets and time around the pure `Pipeline`.

It owns the one ROUTER socket and the two listening sockets, answers the management API, and speaks a self-test before
it calls the pod ready. What decides lies in `pipeline` and `fleet`; what runs lies in `children`. If one of its own
loops fails, the router ends with status 1 and takes its children with it: one that turns only in part would hang its
clients. Longer than most modules because everything meets here; each step is one call of its owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import zmq
import zmq.asyncio

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.plan import EnginePlan, write_plan
from ttsfleet_runtime.errors import ConfigError, TTSFleetError
from ttsfleet_runtime.messages import (
    AnyMessage,
    Cancel,
    DeleteVoice,
    GetMetrics,
    GetStatus,
    Heartbeat,
    Hello,
    ListVoices,
    PeerGone,
    RegisterVoice,
    Reply,
    RequestFailed,
    RequestReport,
    Retiring,
    SegmentConsumed,
    SegmentDecoded,
    SequenceFinished,
    Shutdown,
    SpeechRequest,
    TextEncoded,
    VoiceEncoded,
    decode_messages,
    encode_messages,
)
from ttsfleet_runtime.pipeline import Pipeline
from ttsfleet_runtime.router.calls import VoiceCalls
from ttsfleet_runtime.router.children import Children
from ttsfleet_runtime.router.fleet import Fleet
from ttsfleet_runtime.router.management import ManagementHooks, create_management_app
from ttsfleet_runtime.router.metrics import Metrics
from ttsfleet_runtime.router.self_test import SelfTest
from ttsfleet_runtime.router.voice_registry import VoiceRegistry
from ttsfleet_runtime.stage import Outgoing
from ttsfleet_runtime.transport import data_endpoint, router_endpoint
from ttsfleet_runtime.voices import voice_path

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.5


class Router:
    """One pod's router. `serve` runs until SIGTERM or SIGINT and returns the exit status."""

    def __init__(
        self,
        plan: EnginePlan,
        model: ModelInfo,
        *,
        bundle_dir: Path,
        run_dir: Path,
        notes: list[dict[str, str]],
        api_key: str | None,
        api_key_file: Path | None,
    ) -> None:
        self._plan = plan
        self._model = model
        self._run_dir = run_dir
        self._notes = notes
        self._bundle_dir = bundle_dir
        self._api_key = api_key
        self._api_key_file = api_key_file
        self._fleet = Fleet(plan, model.styles)
        self._voices = VoiceRegistry(Path(plan.voices_dir), model, plan.limits)
        self._pipeline = Pipeline(plan, model, self._fleet, self._voices)
        self._metrics = Metrics()
        self._calls = VoiceCalls(self._voices, self._pipeline)
        self._self_test = SelfTest(run_dir, model, self._voices)
        plan_path = run_dir / "plan.json"
        write_plan(plan, plan_path)
        arguments = ["--run-dir", str(run_dir), "--bundle", str(bundle_dir), "--plan", str(plan_path)]
        self._children = Children(plan, self._fleet.specs, arguments, self._child_lost, self._spawn)
        self._draining = False
        self._failed = False
        self._stop = asyncio.Event()
        self._servable = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life -----------------------------------------------------------------------------------------------

    async def serve(self) -> int:
        """Start everything, serve, drain, stop."""
        self._open()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        management = self._management_server()
        self._spawn(management.serve(sockets=[self._management_listener]), "management")
        self._spawn(self._receive(), "receive")
        self._spawn(self._tick(), "tick")
        self._spawn(self._self_test.run(self._handle_local, self._servable), "self-test")
        await self._children.start_all(self._listener.fileno(), self._key_path())
        await self._stop.wait()
        self._draining = True
        if self._failed:
            await self._children.kill_all()
        else:
            logger.info("draining: %d requests in flight", len(self._pipeline))
            # Open until here, it would let the kernel accept connections that no worker takes any more.
            self._listener.close()
            await self._children.stop(lambda identity: self._send_all([Outgoing(identity, Shutdown())]))
        management.should_exit = True
        await asyncio.sleep(0)
        for task in self._tasks:
            if task.get_name() != "management":
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._close()
        return int(self._failed)

    def _open(self) -> None:
        self._zmq = zmq.asyncio.Context()
        self._socket = self._zmq.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.set_hwm(0)
        self._socket.bind(router_endpoint(self._run_dir))
        for voice_hash, num_tokens in self._voices.load_builtin(self._bundle_dir, self._run_dir):
            self._pipeline.cache.pin(voice_hash, num_tokens)
        self._voices.load_registered()
        server = self._plan.server
        self._listener = _listen(server.host, server.port, "port")
        self._management_listener = _listen(server.management_host, server.management_port, "management_port")
        self._ports = {"api": _port(self._listener), "management": _port(self._management_listener)}
        logger.info("API on port %d, management on port %d", self._ports["api"], self._ports["management"])
        self._self_test.open(self._zmq)

    def _key_path(self) -> Path | None:
        """The user's file, which may be rotated, else one that only we can read: command lines are not secret."""
        if self._api_key is None or self._api_key_file is not None:
            return self._api_key_file
        path = self._run_dir / "api-key"
        path.touch(mode=0o600)
        path.write_text(self._api_key)
        return path

    def _close(self) -> None:
        self._listener.close()
        self._management_listener.close()
        self._self_test.close()
        self._socket.close()
        self._zmq.term()

    def _management_server(self) -> uvicorn.Server:
        hooks = ManagementHooks(
            problems=self.problems,
            metrics=self._render_metrics,
            status=self.status,
            release_voices=self._release_voices,
        )
        config = uvicorn.Config(
            create_management_app(hooks),
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        instance = uvicorn.Server(config)
        # Signals are the router's: uvicorn's own handlers would take SIGTERM away from the drain.
        instance.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        return instance

    # --- messages -------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while True:
            parts = await self._socket.recv_multipart()
            identity = parts[0].decode()
            try:
                messages = decode_messages(parts[-1])
            except msgspec.DecodeError:
                logger.exception("a frame of %s that is no message batch was dropped", identity)
                continue
            outgoing: list[Outgoing] = []
            for message in messages:
                outgoing += self._handle_safely(identity, message)
            self._send_all(outgoing)
            self._after_turn()

    def _handle_local(self, message: AnyMessage) -> None:
        self._send_all(self._handle_safely("router", message))
        self._after_turn()

    def _handle_safely(self, identity: str, message: AnyMessage) -> list[Outgoing]:
        """Handle a message; if that fails, whoever waits for an answer gets one, and the others are not harmed."""
        try:
            return self._handle(identity, message)
        except Exception:
            logger.exception("%s of %s could not be handled", type(message).__name__, identity)
            error = TTSFleetError("an internal error; the server's log has more").info()
            key, call = getattr(message, "key", None), getattr(message, "call", None)
            if call is not None:
                return [Outgoing(identity, Reply(call=call, error=error))]
            if key is not None:
                failed = self._pipeline.fail(key, error)
                return failed or [Outgoing(identity, RequestFailed(key=key, error=error))]
            return []

    def _handle(self, identity: str, message: AnyMessage) -> list[Outgoing]:
        """One message to its owner."""
        match message:
            case SpeechRequest():
                return self._pipeline.submit(message, time.monotonic())
            case TextEncoded():
                return self._pipeline.text_encoded(message, time.monotonic())
            case VoiceEncoded():
                return self._pipeline.voice_encoded(message)
            case SequenceFinished():
                return self._pipeline.sequence_finished(message)
            case SegmentDecoded():
                return self._pipeline.segment_decoded(message)
            case SegmentConsumed():
                return self._pipeline.segment_consumed(message)
            case Cancel():
                return self._pipeline.cancel(message)
            case RequestReport():
                self._metrics.report(message)
            case Heartbeat():
                if self._children.heartbeat(identity, message.pid):
                    self._metrics.heartbeat(identity, message.gauges)
            case Hello():
                return self._hello(identity, message.pid)
            case Retiring():
                self._children.retiring(identity)
            case RegisterVoice() | DeleteVoice() | ListVoices():
                return self._calls.handle(identity, message)
            case GetMetrics():
                return [self._calls.answer_text(identity, message.call, self._render_metrics())]
            case GetStatus():
                return [self._calls.answer_text(identity, message.call, json.dumps(self.status()))]
            case _:
                logger.error("%s sent a message that the router does not take: %r", identity, message)
        return []

    def _hello(self, identity: str, pid: int) -> list[Outgoing]:
        if not self._children.hello(identity, pid):
            return []
        self._metrics.process_up(identity)
        outgoing = self._pipeline.process_ready(identity)
        if not self._fleet.missing():
            self._servable.set()
        return outgoing

    def _child_lost(self, identity: str, for_good: bool) -> None:
        """A child ended: fail or retry what it had, and make those who send to it drop the connection."""
        self._metrics.process_down(identity, gone=for_good)
        (Path(data_endpoint(self._run_dir, identity).removeprefix("ipc://"))).unlink(missing_ok=True)
        outgoing = self._pipeline.process_lost(identity)
        gone = PeerGone(identity=identity)
        self._send_all([*outgoing, *(Outgoing(peer, gone) for peer in self._fleet.voice_users())])
        self._after_turn()

    def _after_turn(self) -> None:
        """Act on what the pipeline left to do: files of evicted voices, registrations that ended."""
        if self._pipeline.evicted:
            for voice_hash in self._pipeline.evicted:
                voice_path(self._run_dir, voice_hash).unlink(missing_ok=True)
            self._pipeline.evicted.clear()
        if self._pipeline.prepared:
            self._send_all(self._calls.finish_registrations())

    def _send_all(self, outgoing: Iterable[Outgoing]) -> None:
        batches: dict[str, list[AnyMessage]] = defaultdict(list)
        for item in outgoing:
            batches[item.to].append(item.message)
        for identity, messages in batches.items():
            if identity == self._self_test.identity:
                self._self_test.failed([m for m in messages if isinstance(m, RequestFailed)])
            else:
                self._socket.send_multipart([identity.encode(), encode_messages(messages)], zmq.NOBLOCK)

    # --- time -----------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            self._send_all(self._pipeline.expire(now))
            self._after_turn()
            if not self._draining:
                self._children.kill_hung(now)

    # --- state ----------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Why the pod is not ready; empty = ready."""
        if self._draining or self._stop.is_set():
            return ["draining"]
        problems = self._fleet.missing()
        if not self._children.http_ready():
            problems.append("no HTTP process is ready")
        if not self._self_test.passed:
            problems.append(self._self_test.problem)
        return problems

    def status(self) -> dict[str, Any]:
        """The status page's data: effective configuration and why, processes, load."""
        problems = self.problems()
        return {
            "ready": not problems,
            "problems": problems,
            "model": {"name": self._model.name, "version": self._model.version, "styles": self._model.styles},
            "plan": json.loads(self._plan.model_dump_json()),
            "notes": self._notes,
            "ports": self._ports,
            "processes": self._children.describe(),
            "requests_in_flight": len(self._pipeline),
            "voices": len(self._voices),
            "voice_cache_entries": len(self._pipeline.cache),
            "voice_users": self._pipeline.cache.num_in_use(),
        }

    def _render_metrics(self) -> str:
        return self._metrics.render(
            ready=not self.problems(), in_flight=len(self._pipeline), cache=self._pipeline.cache
        )

    def _release_voices(self) -> int:
        before = len(self._pipeline.cache)
        self._send_all(self._pipeline.release_voices())
        self._after_turn()
        return before - len(self._pipeline.cache)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            logger.critical("the router's task %s failed", task.get_name(), exc_info=error)
            self._failed = True
            self._stop.set()


def _listen(host: str, port: int, field: str) -> socket.socket:
    """A listening socket. Only children that are given it inherit it. Raises ConfigError when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"{field} = {port} on {host}: {error.strerror}; choose another port, or 0 for a free one", param=field
        ) from error


def _port(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port
