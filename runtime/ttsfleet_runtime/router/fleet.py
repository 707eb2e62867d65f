"""Which processes are ready, and where a request runs: the router's placement policy.

Pure. A request is placed once, on the worker (one engine set of a GPU) whose LLM of the wanted style has the fewest
requests, and on that worker's least busy decoder; all its segments stay there.

Identities: `http-<n>`, `encode-<i>`, `llm-<worker>-<style>`, `decode-<worker>-<j>`; with `decode_process_num: 0` the
LLM process decodes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ttsfleet_runtime.config.plan import EnginePlan


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
        self._placed: dict[str, tuple[str, str]] = {}
        self._load: Counter[str] = Counter()

    def ready(self, identity: str) -> None:
        if identity in self.specs:
            self._ready.add(identity)

    def is_ready(self, identity: str) -> bool:
        return identity in self._ready

    def lost(self, identity: str) -> None:
        """A process is gone."""
        self._ready.discard(identity)

    def missing(self) -> list[str]:
        """What keeps the service from serving: one phrase per stage without a live process; empty = can serve."""
        problems = []
        if not self.encoders():
            problems.append("no encode process is ready")
        for style in self._styles:
            if not any(self._can_serve(worker, style) for worker in range(self._plan.workers)):
                problems.append(f"no worker has a ready LLM process for {style} and a ready decode process")
        return problems

    def encoders(self) -> list[str]:
        """The encode processes that are ready."""
        return self._of_kind("encode")

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
