"""What a stage is: an object with `submit`, `step` and `poll`. A process, a thread or a stream is only its host.

The host (`host.py`) owns sockets and time; a stage owns its queue and its models. So a stage can be tested
without a process, and two stages can share one (`decode_process_num: 0` puts decode beside the LLM).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.messages import AnyMessage, Gauge

ROUTER = "router"


class Outgoing(msgspec.Struct, frozen=True):
    """A message and the identity of the process that must get it (`ROUTER`, an HTTP worker, a decoder)."""

    to: str
    message: AnyMessage


class Stage(Protocol):
    """One stage of the pipeline. All three calls come from one thread and must return soon."""

    def submit(self, message: AnyMessage) -> None:
        """Take in one message. Never raises for a bad job: the answer is an error message from `poll`."""
        ...

    def step(self) -> bool:
        """Do one bounded piece of work (an LLM step, some Euler steps). False = nothing to do: wait for input."""
        ...

    def poll(self) -> list[Outgoing]:
        """Messages that became ready since the last call, in order; empties the outbox."""
        ...

    def gauges(self) -> list[Gauge]:
        """Current queue depths and levels, for the heartbeat."""
        ...

    def idle(self) -> bool:
        """True when no job is queued, running or waiting for tokens: the process may exit."""
        ...


class StageContext(msgspec.Struct, frozen=True, kw_only=True):
    """All that a stage is built from; `build(context)` of `encode.stage`, `llm.stage`, `decode.stage` takes it."""

    identity: str
    run_dir: Path
    bundle_dir: Path
    model: ModelInfo
    plan: EnginePlan
    style: str = ""
