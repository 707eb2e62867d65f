"""The voice cache's policy: content hash -> entry, least recently used out, one computation in flight per hash.

Pure: it holds no tensors and touches no file. `VoiceCache` says which hash to compute and which to evict; the
router acts. An entry that a live request uses (`acquire`/`release`) or that is pinned is never evicted.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from ttsfleet_runtime.errors import ErrorInfo


@dataclass
class _Entry:
    num_tokens: int
    pinned: bool
    discarded: bool = False
    users: set[str] = field(default_factory=set)


class VoiceCache:
    """LRU over `capacity` unpinned entries. Keys of requests are the users and waiters."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._computing: dict[str, list[str]] = {}  # hash -> who waits
        self.hits = 0
        self.misses = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._entries)

    def pin(self, voice_hash: str, num_tokens: int) -> None:
        """Add an entry that stays: the voices that ship with the model."""
        self._entries[voice_hash] = _Entry(num_tokens, pinned=True)

    def has(self, voice_hash: str) -> bool:
        """True when the entry is ready or being computed: its audio is not needed."""
        return voice_hash in self._entries or voice_hash in self._computing

    def num_tokens(self, voice_hash: str) -> int:
        """Prompt tokens of a ready entry."""
        return self._entries[voice_hash].num_tokens

    def acquire(self, voice_hash: str, key: str) -> bool | None:
        """Use a voice for request `key`: True = ready, False = wait (computing), None = compute it now."""
        entry = self._entries.get(voice_hash)
        if entry is not None:
            self.hits += 1
            entry.users.add(key)
            entry.discarded = False
            self._entries.move_to_end(voice_hash)
            return True
        waiters = self._computing.get(voice_hash)
        if waiters is not None:
            self.hits += 1
            waiters.append(key)
            return False
        self.misses += 1
        self._computing[voice_hash] = [key]
        return None

    def computed(self, voice_hash: str, num_tokens: int, error: ErrorInfo | None) -> tuple[list[str], list[str]]:
        """A computation ended: (requests that waited for it, hashes to evict). On an error nothing is stored."""
        waiters = self._computing.pop(voice_hash, None)
        if waiters is None:
            return [], []
        if error is None:
            self._entries[voice_hash] = _Entry(num_tokens, pinned=False, users=set(waiters))
        return waiters, self._evict()

    def release(self, voice_hash: str, key: str) -> list[str]:
        """Request `key` ended; returns hashes to evict."""
        entry = self._entries.get(voice_hash)
        if entry is not None:
            entry.users.discard(key)
        waiters = self._computing.get(voice_hash, [])
        if key in waiters:
            waiters.remove(key)
        return self._evict()

    def discard(self, voice_hash: str) -> list[str]:
        """Evict this entry as soon as nothing uses it; returns hashes to evict now."""
        entry = self._entries.get(voice_hash)
        if entry is not None and not entry.pinned:
            entry.discarded = True
        return self._evict()

    def num_in_use(self) -> int:
        """Entries that live requests use."""
        return sum(bool(entry.users) for entry in self._entries.values())

    def drop_unused(self) -> list[str]:
        """Forget every entry that is neither pinned nor in use; returns their hashes."""
        return self._evict(keep=0)

    def _evict(self, keep: int | None = None) -> list[str]:
        limit = self._capacity if keep is None else keep
        idle = [(h, e) for h, e in self._entries.items() if not e.pinned and not e.users]
        excess = sum(not e.pinned for e in self._entries.values()) - limit
        evicted = [h for h, e in idle if e.discarded]
        kept = [h for h, e in idle if not e.discarded]
        evicted += kept[: max(excess - len(evicted), 0)]
        for voice_hash in evicted:
            del self._entries[voice_hash]
        self.evictions += len(evicted)
        return evicted
