"""Which processes are ready, and who has which work: the router's placement policy.

Pure. Encode work goes to the encoder with the least in flight, at most `encode_paral_num` each. A request is placed
once, on the worker (one engine set of a GPU) whose LLM of the wanted style has the fewest requests, and on that
worker's least busy decoder; all its segments stay there.

Identities: `http-<n>`, `encode-<i>`, `llm-<worker>-<style>`, `decode-<worker>-<j>`; with `decode_process_num: 0` the
LLM process decodes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.messages import EncodeText, EncodeVoice


@dataclass(frozen=True)
class ProcessSpec:
    """One stage process that must exist."""

    identity: str
    kind: str  # "encode" | "llm" | "decode"
    worker: int = 0
    style: str = ""


def required_processes(plan: EnginePlan, styles: list[str]) -> list[ProcessSpec]:
    """Every stage process of the plan, in start order."""
    specs = [ProcessSpec(f"encode-{i}", "encode") for i in range(plan.encode_process_num)]
    for worker in range(plan.workers):
        specs += [ProcessSpec(f"llm-{worker}-{style}", "llm", worker, style) for style in styles]
        specs += [ProcessSpec(f"decode-{worker}-{j}", "decode", worker) for j in range(plan.decode_process_num)]
    return specs


class Fleet:
    """Readiness and load of the stage processes."""

    def __init__(self, plan: EnginePlan, styles: list[str]) -> None:
        self._plan = plan
        self._styles = styles
        self.specs = {spec.identity: spec for spec in required_processes(plan, styles)}
        self._ready: set[str] = set()
        self._encoding: dict[str, tuple[str, EncodeText | EncodeVoice]] = {}
        self._placed: dict[str, tuple[str, str]] = {}
        self._load: Counter[str] = Counter()

    def ready(self, identity: str) -> None:
        if identity in self.specs:
            self._ready.add(identity)

    def is_ready(self, identity: str) -> bool:
        return identity in self._ready

    def lost(self, identity: str) -> list[EncodeText | EncodeVoice]:
        """A process is gone; returns the encode work that it had."""
        self._ready.discard(identity)
        work = [(id_, w) for id_, (encoder, w) in self._encoding.items() if encoder == identity]
        for id_, _ in work:
            del self._encoding[id_]
        return [w for _, w in work]

    def missing(self) -> list[str]:
        """What keeps the service from serving: one phrase per stage without a live process; empty = can serve."""
        problems = []
        if not self._of_kind("encode"):
            problems.append("no encode process is ready")
        for style in self._styles:
            if not any(self._can_serve(worker, style) for worker in range(self._plan.workers)):
                problems.append(f"no worker has a ready LLM process for {style} and a ready decode process")
        return problems

    def choose_encoder(self, work_id: str, work: EncodeText | EncodeVoice) -> str | None:
        """Give the work to the least busy encoder; None when all are full or none is ready."""
        load = Counter(encoder for encoder, _ in self._encoding.values())
        candidates = [e for e in self._of_kind("encode") if load[e] < self._plan.encode_paral_num]
        if not candidates:
            return None
        encoder = min(candidates, key=lambda e: (load[e], e))
        self._encoding[work_id] = (encoder, work)
        return encoder

    def finish_encoding(self, work_id: str) -> None:
        self._encoding.pop(work_id, None)

    def encoder_of(self, work_id: str) -> str | None:
        held = self._encoding.get(work_id)
        return None if held is None else held[0]

    def place(self, style: str, key: str) -> tuple[str, str] | None:
        """(LLM, decoder) for a request, or None when no worker can serve the style."""
        engines = [f"llm-{worker}-{style}" for worker in range(self._plan.workers) if self._can_serve(worker, style)]
        if not engines:
            return None
        engine = min(engines, key=lambda e: (self._load[e], e))
        decoders = self._decoders(self.specs[engine].worker) or [engine]
        decoder = min(decoders, key=lambda d: (self._load[d], d))
        self._placed[key] = (engine, decoder)
        self._load.update({engine, decoder})
        return engine, decoder

    def finish(self, key: str) -> None:
        """A request left."""
        self._load.subtract(set(self._placed.pop(key, ())))

    def voice_users(self) -> list[str]:
        """Processes that map voice entries."""
        return sorted(i for i in self._ready if self.specs[i].kind in ("llm", "decode"))

    def _of_kind(self, kind: str) -> list[str]:
        return sorted(i for i in self._ready if self.specs[i].kind == kind)

    def _decoders(self, worker: int) -> list[str]:
        return [i for i in self._of_kind("decode") if self.specs[i].worker == worker]

    def _can_serve(self, worker: int, style: str) -> bool:
        if f"llm-{worker}-{style}" not in self._ready:
            return False
        return self._plan.decode_process_num == 0 or bool(self._decoders(worker))
