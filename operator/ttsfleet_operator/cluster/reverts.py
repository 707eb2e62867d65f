"""When to stop fighting over a field: reverted three times in ten minutes. Pure but for what it remembers.

Someone else keeps writing a field that we keep repairing. The third repair is the last: the field is left to the
other writer and reported, until the wish itself changes or a repair is no longer needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ttsfleet_operator.cluster.diff import Path
from ttsfleet_operator.cluster.stores import ObjectKey

MAX_REVERTS = 3
WINDOW_SECONDS = 600.0


@dataclass
class _Child:
    """One child's repairs since its stamp was last changed."""

    stamp: str
    reverts: dict[Path, list[float]] = field(default_factory=dict)
    given_up: set[Path] = field(default_factory=set)


@dataclass
class RevertLedger:
    """All children's repairs, by service."""

    _services: dict[ObjectKey, dict[str, _Child]] = field(default_factory=dict)

    def given_up(self, service: ObjectKey, child: str, stamp: str) -> frozenset[Path]:
        """The paths of a child that are left to another writer, as long as the same is wanted."""
        entry = self._services.get(service, {}).get(child)
        return frozenset(entry.given_up) if entry is not None and entry.stamp == stamp else frozenset()

    def applied(self, service: ObjectKey, child: str, stamp: str) -> None:
        """Note what was written, so that a writer who removes the stamp too is noticed."""
        children = self._services.setdefault(service, {})
        entry = children.get(child)
        if entry is None or entry.stamp != stamp:
            children[child] = _Child(stamp)

    def was_applied(self, service: ObjectKey, child: str, stamp: str) -> bool:
        entry = self._services.get(service, {}).get(child)
        return entry is not None and entry.stamp == stamp

    def record(
        self, service: ObjectKey, child: str, stamp: str, paths: Iterable[Path], now: float
    ) -> frozenset[Path]:
        """Note that some paths must be repaired. The ones that must rather be given up from now on."""
        children = self._services.setdefault(service, {})
        entry = children.get(child)
        if entry is None or entry.stamp != stamp:
            entry = children[child] = _Child(stamp)
        lost = set()
        for path in paths:
            times = [time for time in entry.reverts.get(path, []) if now - time < WINDOW_SECONDS]
            if len(times) >= MAX_REVERTS:
                lost.add(path)
                entry.given_up.add(path)
            else:
                entry.reverts[path] = [*times, now]
        return frozenset(lost)

    def withdraw(self, service: ObjectKey, child: str, paths: Iterable[Path]) -> None:
        """The repair that was recorded last did not happen: no answer, or a conflict."""
        entry = self._services.get(service, {}).get(child)
        for path in paths:
            if entry is not None and entry.reverts.get(path):
                entry.reverts[path].pop()

    def settle(self, service: ObjectKey, child: str, agreed: Iterable[Path]) -> None:
        """These given-up paths hold what we want: they are ours again."""
        entry = self._services.get(service, {}).get(child)
        if entry is None:
            return
        for path in agreed:
            entry.given_up.discard(path)
            entry.reverts.pop(path, None)

    def forget(self, service: ObjectKey) -> None:
        self._services.pop(service, None)
