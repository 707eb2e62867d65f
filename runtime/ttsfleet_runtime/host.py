"""Runs stages in a process: sockets, time and signals here, the work in the stage objects.

    python -m ttsfleet_runtime.host --stage llm --identity llm-0-cosyvoice --run-dir DIR --bundle DIR --plan FILE

One loop: take in what has arrived, let each stage do one bounded step, send what became ready; block when no stage
has work. Bulk data goes straight to the consumer's PULL socket, the rest to the router. With
`decode_process_num: 0` this process holds the LLM and a decode stage, and messages between them never leave it.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import zmq

from ttsfleet_runtime.checkpoint.bundle import read_model_info
from ttsfleet_runtime.config.plan import read_plan
from ttsfleet_runtime.heap import HeapTrimmer
from ttsfleet_runtime.messages import (
    AnyMessage,
    AudioChunk,
    Cancel,
    DecodeJob,
    DropVoices,
    Gauge,
    Heartbeat,
    Hello,
    PeerGone,
    Shutdown,
    TokenDelta,
    decode_messages,
    encode_messages,
)
from ttsfleet_runtime.placement import place_process
from ttsfleet_runtime.process import configure_logging, die_with_parent, ignore_interrupt
from ttsfleet_runtime.stage import ROUTER, Outgoing, Stage, StageContext
from ttsfleet_runtime.transport import data_endpoint, router_endpoint

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
_MAX_FRAMES_PER_TURN = 256
_FOR_DECODE = (DecodeJob, TokenDelta)
_BULK = (DecodeJob, TokenDelta, AudioChunk)


class StageHost:
    """Owns the sockets of one process and turns the loop. `stages[0]` takes router messages first."""

    def __init__(self, identity: str, run_dir: Path, stages: Sequence[Stage], decode: Stage | None) -> None:
        self._identity = identity
        self._run_dir = run_dir
        self._stages = list(stages)
        self._decode = decode
        self._zmq = zmq.Context()
        self._router = self._zmq.socket(zmq.DEALER)
        self._router.setsockopt(zmq.IDENTITY, identity.encode())
        self._router.setsockopt(zmq.LINGER, 1000)
        self._router.set_hwm(0)
        self._router.connect(router_endpoint(run_dir))
        self._data = self._zmq.socket(zmq.PULL)
        self._data.set_hwm(0)
        self._data.bind(data_endpoint(run_dir, identity))
        self._peers: dict[str, zmq.Socket[bytes]] = {}
        self._poller = zmq.Poller()
        self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(self._data, zmq.POLLIN)
        self._stopping = False
        self._next_heartbeat = 0.0
        self._heap = HeapTrimmer(time.monotonic())

    def run(self) -> None:
        """Serve until told to shut down and idle."""
        self._send_router([Hello(identity=self._identity, pid=os.getpid())])
        busy = False
        while not (self._stopping and all(stage.idle() for stage in self._stages)):
            self._receive(0.0 if busy else max(self._next_heartbeat - time.monotonic(), 0.0))
            busy = False
            for stage in self._stages:
                busy = stage.step() or busy
                self._send(stage.poll())
            self._heartbeat(busy)
        self._close()

    def _receive(self, timeout_seconds: float) -> None:
        ready = dict(self._poller.poll(math.ceil(timeout_seconds * 1000)))
        for socket in (self._router, self._data):
            if socket not in ready:
                continue
            for _ in range(_MAX_FRAMES_PER_TURN):
                try:
                    frame = socket.recv(zmq.NOBLOCK)
                except zmq.Again:
                    break
                try:
                    messages = decode_messages(frame)
                except msgspec.DecodeError:
                    logger.exception("a frame that is no message batch was dropped (%d bytes)", len(frame))
                    continue
                for message in messages:
                    self._dispatch(message)

    def _dispatch(self, message: AnyMessage) -> None:
        match message:
            case Shutdown():
                self._stopping = True
            case PeerGone(identity=identity):
                peer = self._peers.pop(identity, None)
                if peer is not None:
                    peer.close(linger=0)
            case DecodeJob() | TokenDelta() if self._decode is not None:
                self._decode.submit(message)
            case Cancel() | DropVoices():
                for stage in self._stages:
                    stage.submit(message)
            case _:
                self._stages[0].submit(message)

    def _send(self, outgoing: Sequence[Outgoing]) -> None:
        to_router: list[AnyMessage] = []
        bulk: dict[str, list[AnyMessage]] = defaultdict(list)
        for item in outgoing:
            if item.to == ROUTER:
                to_router.append(item.message)
            elif item.to == self._identity and isinstance(item.message, _FOR_DECODE):
                assert self._decode is not None, "tokens for a decode stage that this process does not hold"
                self._decode.submit(item.message)
            else:
                assert isinstance(item.message, _BULK), item.message
                bulk[item.to].append(item.message)
        # Bulk first: the router must not hear that a segment is done before its audio is on the way.
        for identity, messages in bulk.items():
            self._peer(identity).send(encode_messages(messages))
        if to_router:
            self._send_router(to_router)

    def _peer(self, identity: str) -> zmq.Socket[bytes]:
        peer = self._peers.get(identity)
        if peer is None:
            peer = self._zmq.socket(zmq.PUSH)
            peer.set_hwm(0)
            peer.setsockopt(zmq.LINGER, 1000)
            peer.connect(data_endpoint(self._run_dir, identity))
            self._peers[identity] = peer
        return peer

    def _send_router(self, messages: list[AnyMessage]) -> None:
        self._router.send(encode_messages(messages))

    def _heartbeat(self, busy: bool) -> None:
        now = time.monotonic()
        if busy:
            self._heap.worked(now)
        if now < self._next_heartbeat:
            return
        self._heap.trim_if_due(now)
        self._next_heartbeat = now + HEARTBEAT_SECONDS
        gauges: list[Gauge] = []
        for stage in self._stages:
            gauges.extend(stage.gauges())
        self._send_router([Heartbeat(identity=self._identity, pid=os.getpid(), gauges=gauges)])

    def _close(self) -> None:
        for peer in self._peers.values():
            peer.close()
        self._data.close(linger=0)
        self._router.close()
        self._zmq.term()


def _build_encode(context: StageContext) -> Stage:
    from ttsfleet_runtime.encode.stage import build

    return build(context)


def _limit_torch_threads(num_threads: int) -> None:
    import torch

    torch.set_num_threads(num_threads)
    torch.set_grad_enabled(False)


def _build_llm(context: StageContext) -> Stage:
    _limit_torch_threads(context.plan.threads.llm)
    from ttsfleet_runtime.llm.stage import build

    return build(context)


def _build_decode(context: StageContext) -> Stage:
    _limit_torch_threads(context.plan.threads.decode)
    from ttsfleet_runtime.decode.stage import build

    return build(context)


_BUILDERS: dict[str, Callable[[StageContext], Stage]] = {
    "encode": _build_encode,
    "llm": _build_llm,
    "decode": _build_decode,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ttsfleet_runtime.host", description=__doc__)
    parser.add_argument("--stage", choices=sorted(_BUILDERS), required=True)
    parser.add_argument("--identity", required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--style", default="")
    parser.add_argument("--parent", type=int, required=True)
    args = parser.parse_args(argv)
    die_with_parent(args.parent)
    ignore_interrupt()
    configure_logging(args.identity)
    plan = read_plan(args.plan)
    place_process(getattr(plan.cpu_affinity, args.stage), plan.numa_node)
    context = StageContext(
        identity=args.identity,
        run_dir=args.run_dir,
        bundle_dir=args.bundle,
        model=read_model_info(args.bundle),
        plan=plan,
        style=args.style,
    )
    started = time.monotonic()
    stage = _BUILDERS[args.stage](context)
    stages = [stage]
    decode = stage if args.stage == "decode" else None
    if args.stage == "llm" and plan.decode_process_num == 0:
        decode = _build_decode(context)
        stages.append(decode)
    logger.info("%s ready in %.2f s", args.stage, time.monotonic() - started)
    StageHost(args.identity, args.run_dir, stages, decode).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
