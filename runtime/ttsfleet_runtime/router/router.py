"""The router process: sockets, children and time around the pure `Pipeline`.

It owns the one ROUTER socket, starts and restarts the children, answers the management API, and speaks a self-test
before it calls the pod ready. Everything that decides lies in `pipeline`, `fleet` and `voice_cache`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
import zmq
import zmq.asyncio

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.plan import EnginePlan, write_plan
from ttsfleet_runtime.errors import ConfigError
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
from ttsfleet_runtime.router.fleet import Fleet, ProcessSpec
from ttsfleet_runtime.router.management import ManagementHooks, create_management_app
from ttsfleet_runtime.router.metrics import Metrics
from ttsfleet_runtime.router.self_test import SelfTest
from ttsfleet_runtime.router.supervisor import Supervisor
from ttsfleet_runtime.router.voice_registry import VoiceRegistry
from ttsfleet_runtime.stage import Outgoing
from ttsfleet_runtime.transport import router_endpoint
from ttsfleet_runtime.voices import voice_path

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.5
_FIRST_BACKOFF_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 10.0
_STABLE_SECONDS = 30.0
_STAGE_STOP_SECONDS = 5.0


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
    ) -> None:
        self._plan = plan
        self._model = model
        self._bundle_dir = bundle_dir
        self._run_dir = run_dir
        self._notes = notes
        self._api_key = api_key
        self._fleet = Fleet(plan, model.styles)
        self._voices = VoiceRegistry(Path(plan.voices_dir), model, plan.limits)
        self._pipeline = Pipeline(plan, model, self._fleet, self._voices)
        self._metrics = Metrics()
        self._calls = VoiceCalls(self._voices, self._pipeline)
        self._self_test = SelfTest(run_dir, model, self._voices)
        self._supervisor = Supervisor(self._child_exited)
        self._last_seen: dict[str, float] = {}
        self._started_at: dict[str, float] = {}
        self._backoff: dict[str, float] = {}
        self._http: set[str] = set()
        self._http_ready: set[str] = set()
        self._http_count = 0
        self._draining = False
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
        for spec in self._fleet.specs.values():
            await self._start_stage(spec)
        for _ in range(self._plan.server.httpserver_workers):
            await self._start_http()
        await self._stop.wait()
        await self._drain()
        management.should_exit = True
        await asyncio.sleep(0)
        for task in self._tasks:
            if task.get_name() != "management":
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._close()
        return 0

    def _open(self) -> None:
        self._zmq = zmq.asyncio.Context()
        self._socket = self._zmq.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.set_hwm(0)
        self._socket.bind(router_endpoint(self._run_dir))
        self._plan_path = self._run_dir / "plan.json"
        write_plan(self._plan, self._plan_path)
        self._key_path = self._run_dir / "api-key"
        if self._api_key is not None:
            self._key_path.touch(mode=0o600)
            self._key_path.write_text(self._api_key)
        for voice_hash, num_tokens in self._voices.load_builtin(self._bundle_dir, self._run_dir):
            self._pipeline.cache.pin(voice_hash, num_tokens)
        self._voices.load_registered()
        server = self._plan.server
        self._listener = _listen(server.host, server.port, "server.port")
        self._management_listener = _listen(server.management_host, server.management_port, "server.management_port")
        logger.info("API on port %d, management on port %d", _port(self._listener), _port(self._management_listener))
        self._self_test.open(self._zmq)

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

    async def _drain(self) -> None:
        """Not ready; HTTP workers finish their streams; then the stages stop."""
        logger.info("draining: %d requests in flight", len(self._pipeline))
        self._draining = True
        grace = self._plan.server.drain_seconds
        workers = sorted(self._http)
        for identity in workers:
            self._send(Outgoing(identity, Shutdown()))
        if not await self._supervisor.wait(workers, grace + 2.0):
            logger.warning("streams were still running after %.0f s and are cut", grace)
        for identity in self._fleet.specs:
            self._send(Outgoing(identity, Shutdown()))
        await self._supervisor.stop_all(_STAGE_STOP_SECONDS)

    # --- children -------------------------------------------------------------------------------------------

    async def _start_stage(self, spec: ProcessSpec) -> None:
        arguments = ["--stage", spec.kind, "--identity", spec.identity, *self._common_arguments()]
        if spec.style:
            arguments += ["--style", spec.style]
        self._started_at[spec.identity] = time.monotonic()
        threads = getattr(self._plan.threads, spec.kind)
        if spec.kind == "llm" and self._plan.decode_process_num == 0:
            threads = max(threads, self._plan.threads.decode)
        await self._supervisor.start(
            spec.identity, "ttsfleet_runtime.host", arguments, environment=_thread_environment(threads)
        )

    async def _start_http(self) -> None:
        identity = f"http-{self._http_count}"
        self._http_count += 1
        self._http.add(identity)
        arguments = ["--identity", identity, "--fd", str(self._listener.fileno()), *self._common_arguments()]
        if self._api_key is not None:
            arguments += ["--api-key-file", str(self._key_path)]
        await self._supervisor.start(
            identity,
            "ttsfleet_runtime.server.worker",
            arguments,
            environment=_thread_environment(1),
            pass_fds=[self._listener.fileno()],
        )

    def _common_arguments(self) -> list[str]:
        return [
            "--run-dir",
            str(self._run_dir),
            "--bundle",
            str(self._bundle_dir),
            "--plan",
            str(self._plan_path),
        ]

    def _child_exited(self, identity: str, code: int) -> None:
        """Called by the supervisor. Fails what the child had, and starts it again unless we are stopping."""
        self._last_seen.pop(identity, None)
        is_http = identity in self._http
        self._http.discard(identity)
        self._http_ready.discard(identity)
        (self._run_dir / f"{identity}.sock").unlink(missing_ok=True) if is_http else None
        self._metrics.process_down(identity, gone=is_http)
        self._send_all(self._pipeline.process_lost(identity))
        if is_http:
            self._send_all(Outgoing(i, PeerGone(identity=identity)) for i in self._fleet.voice_users())
        if self._draining or self._stop.is_set():
            return
        if not (is_http and code == 0):
            logger.error("%s exited with status %d", identity, code)
            self._spawn(self._restart(identity, is_http), f"restart {identity}")

    async def _restart(self, identity: str, is_http: bool) -> None:
        kind = "http" if is_http else identity
        ran = time.monotonic() - self._started_at.get(identity, time.monotonic())
        delay = _FIRST_BACKOFF_SECONDS if ran > _STABLE_SECONDS else self._backoff.get(kind, _FIRST_BACKOFF_SECONDS)
        self._backoff[kind] = min(delay * 2, _MAX_BACKOFF_SECONDS)
        await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # jitter: not all children at once
        if self._draining:
            return
        if is_http:
            await self._start_http()
        else:
            await self._start_stage(self._fleet.specs[identity])

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
                outgoing += self._handle(identity, message)
            self._send_all(outgoing)
            self._after_turn()

    def _handle_local(self, message: AnyMessage) -> None:
        self._send_all(self._handle("router", message))
        self._after_turn()

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
                self._last_seen[identity] = time.monotonic()
                self._metrics.heartbeat(identity, message.gauges)
            case Hello():
                return self._hello(identity)
            case Retiring():
                self._http.discard(identity) if self._draining else self._spawn(self._start_http(), "successor")
            case RegisterVoice() | DeleteVoice() | ListVoices():
                return self._calls.handle(identity, message)
            case GetMetrics():
                return [self._calls.answer_text(identity, message.call, self._render_metrics())]
            case GetStatus():
                return [self._calls.answer_text(identity, message.call, json.dumps(self.status()))]
            case _:
                logger.error("%s sent a message that the router does not take: %r", identity, message)
        return []

    def _hello(self, identity: str) -> list[Outgoing]:
        self._metrics.process_up(identity)
        if identity in self._http:
            self._http_ready.add(identity)
            return []
        self._last_seen[identity] = time.monotonic()
        outgoing = self._pipeline.process_ready(identity)
        if not self._fleet.missing():
            self._servable.set()
        return outgoing

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

    def _send(self, outgoing: Outgoing) -> None:
        self._send_all([outgoing])

    # --- time -----------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            self._send_all(self._pipeline.expire(now))
            self._after_turn()
            for identity, seen in list(self._last_seen.items()):
                if now - seen > self._plan.stage_timeout_seconds:
                    logger.error("%s has not answered for %.0f s and is killed", identity, now - seen)
                    self._supervisor.kill(identity)
                    del self._last_seen[identity]

    # --- state ----------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Why the pod is not ready; empty = ready."""
        if self._draining or self._stop.is_set():
            return ["draining"]
        problems = self._fleet.missing()
        if not self._http_ready:
            problems.append("no HTTP process is ready")
        if not self._self_test.passed:
            problems.append(self._self_test.problem)
        return problems

    def status(self) -> dict[str, Any]:
        """The status page's data: effective configuration and why, processes, load."""
        problems = self.problems()
        processes = {
            identity: {"ready": self._fleet.is_ready(identity), "pid": self._supervisor.pid(identity)}
            for identity in self._fleet.specs
        }
        for identity in sorted(self._http):
            processes[identity] = {
                "ready": identity in self._http_ready,
                "pid": self._supervisor.pid(identity),
            }
        return {
            "ready": not problems,
            "problems": problems,
            "model": {"name": self._model.name, "version": self._model.version, "styles": self._model.styles},
            "plan": json.loads(self._plan.model_dump_json()),
            "notes": self._notes,
            "ports": {"api": _port(self._listener), "management": _port(self._management_listener)},
            "processes": processes,
            "requests_in_flight": len(self._pipeline),
            "voices": len(self._voices),
            "voice_cache_entries": len(self._pipeline.cache),
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

    def _spawn(self, coroutine: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            # A router that lost one of its loops would hang its clients: better to end and be restarted.
            logger.critical("the router's task %s failed", task.get_name(), exc_info=error)
            self._stop.set()


def _listen(host: str, port: int, field: str) -> socket.socket:
    """A listening socket that HTTP workers can inherit. Raises ConfigError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"{field} = {port} on {host}: {error.strerror}; choose another port, or 0 for a free one", param=field
        ) from error
    listener.set_inheritable(True)
    return listener


def _port(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def _thread_environment(num_threads: int) -> dict[str, str]:
    """Passive waiting: two stages that spin on two cores were measured 30 times slower."""
    return {
        "OMP_NUM_THREADS": str(num_threads),
        "MKL_NUM_THREADS": str(num_threads),
        "OPENBLAS_NUM_THREADS": str(num_threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "RAYON_NUM_THREADS": str(num_threads),
    }
