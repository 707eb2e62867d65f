"""Do the watches still deliver? A frozen watch looks exactly like a quiet cluster, so it is asked from the outside.

Each round lists metadata only, waits a grace (events may be on their way), and compares resource versions with what
the stores got. What was listed and not delivered is a gap: the kind is listed anew, which repairs the store. A kind
with gaps in two rounds in a row has a dead watch, and the process is no longer live. One gap is normal: a deletion
between two lists of a restarted watch is never delivered as an event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ttsfleet_operator.cluster.api_errors import APIError, NotFoundError
from ttsfleet_operator.cluster.client import KubernetesClient
from ttsfleet_operator.cluster.kinds import Kind
from ttsfleet_operator.cluster.stores import ObjectKey, key_of, version_of

logger = logging.getLogger(__name__)

MAX_GAPS_IN_A_ROW = 2


@dataclass(frozen=True)
class Watched:
    """One kind under watch. `relist` lists it anew into its store and enqueues what that changes."""

    kind: Kind
    selector: str
    namespaces: tuple[str, ...]
    versions: Callable[[], Mapping[ObjectKey, int]]
    relist: Callable[[], Awaitable[None]]


@dataclass
class WatchProbe:
    client: KubernetesClient
    watched: Sequence[Watched]
    interval_seconds: float = 60.0
    grace_seconds: float = 5.0
    on_round: Callable[[Kind, bool], None] = lambda _kind, _gap: None
    gaps: dict[str, int] = field(default_factory=dict)

    @property
    def frozen(self) -> tuple[str, ...]:
        """The kinds whose watch delivers nothing."""
        return tuple(sorted(name for name, count in self.gaps.items() if count >= MAX_GAPS_IN_A_ROW))

    async def run(self, first_after_seconds: float) -> None:
        """Probe for ever."""
        await asyncio.sleep(first_after_seconds)
        while True:
            await self.round()
            await asyncio.sleep(self.interval_seconds)

    async def round(self) -> None:
        """Probe each kind once. An API server that does not answer says nothing about watches."""
        before = {watched.kind.plural: dict(watched.versions()) for watched in self.watched}
        lists: list[tuple[Watched, dict[ObjectKey, int]]] = []
        for watched in self.watched:
            try:
                lists.append((watched, await self._listed(watched)))
            except NotFoundError:
                continue
            except APIError as error:
                logger.warning("the watches could not be probed: %s", error)
                return
        await asyncio.sleep(self.grace_seconds)
        for watched, found in lists:
            await self._judge(watched, before[watched.kind.plural], found)

    async def _listed(self, watched: Watched) -> dict[ObjectKey, int]:
        found: dict[ObjectKey, int] = {}
        for namespace in watched.namespaces if watched.kind.namespaced else ("",):
            chunks = self.client.list_chunks(watched.kind, namespace, watched.selector, metadata_only=True)
            async for items, _ in chunks:
                found |= {key_of(item): version_of(item) for item in items}
        return found

    async def _judge(self, watched: Watched, before: Mapping[ObjectKey, int], found: dict[ObjectKey, int]) -> None:
        name = watched.kind.plural
        missing = undelivered(before, found, watched.versions())
        self.on_round(watched.kind, bool(missing))
        if not missing:
            self.gaps[name] = 0
            return
        self.gaps[name] = self.gaps.get(name, 0) + 1
        shown = ", ".join(str(key) for key in missing[:5])
        logger.warning("%s: %d changes were not delivered (%s): listing anew", name, len(missing), shown)
        try:
            await watched.relist()
        except APIError as error:
            logger.warning("%s could not be listed: %s", name, error)


def undelivered(
    before: Mapping[ObjectKey, int], listed: Mapping[ObjectKey, int], after: Mapping[ObjectKey, int]
) -> list[ObjectKey]:
    """Objects of which the store knows less than a list that is older than it. Pure.

    before, after: the store's versions before the list, and some time after it.
    """
    stale = [key for key, version in listed.items() if after.get(key, 0) < version and key in after]
    absent = [key for key in listed if key not in after and key not in before]
    kept = [key for key, version in before.items() if key not in listed and after.get(key) == version]
    return sorted({*stale, *absent, *kept})
