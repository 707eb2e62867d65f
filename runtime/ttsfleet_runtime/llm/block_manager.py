"""Paged KV blocks: who holds which, and which finished ones can be used again as a prefix. No torch.

A block is `block_size` consecutive rows of one sequence. Block 0 belongs to nobody: padding rows write there.
Full blocks that hold only prompt rows are published under a digest of all rows up to their end; a later sequence
with the same rows shares them. A block that nobody holds is either *free* (no content worth keeping) or *idle*
(published, least recently released first), and idle blocks are taken when no free one is left. So the prefix
cache costs no memory: everything that is not held can be allocated.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence as Rows

NULL_BLOCK = 0


class OutOfBlocksError(Exception):
    """More blocks asked for than `num_available`; the scheduler checks before it allocates."""


class BlockManager:
    """Owner of all blocks: `allocate`/`match_prefix` take, `free` gives back."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        """num_blocks: usable blocks, numbered 1 .. num_blocks."""
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free = list(range(num_blocks, NULL_BLOCK, -1))
        self._idle: OrderedDict[int, bytes] = OrderedDict()
        self._holders = [0] * (num_blocks + 1)
        self._digest_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def num_available(self) -> int:
        """Blocks that can be allocated now."""
        return len(self._free) + len(self._idle)

    @property
    def num_held(self) -> int:
        return self.num_blocks - self.num_available

    @property
    def num_published(self) -> int:
        return len(self._block_of)

    def blocks_for(self, num_rows: int) -> int:
        return -(-num_rows // self.block_size)

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks. Raises OutOfBlocksError, taking none, when fewer are available."""
        if count > self.num_available:
            raise OutOfBlocksError(f"{count} blocks asked for, {self.num_available} available")
        taken = []
        for _ in range(count):
            block = self._free.pop() if self._free else self._evict()
            self._holders[block] = 1
            taken.append(block)
        return taken

    def free(self, blocks: list[int]) -> None:
        """Give back one hold on each block. The list is emptied, so that nobody frees twice."""
        # The tail of a sequence is the least likely prefix of another one: release it first.
        for block in reversed(blocks):
            assert self._holders[block] > 0, block
            self._holders[block] -= 1
            if self._holders[block] == 0:
                digest = self._digest_of.get(block)
                if digest is None:
                    self._free.append(block)
                else:
                    self._idle[block] = digest
        blocks.clear()

    def digests(self, rows: Rows[int]) -> list[bytes]:
        """One digest per full block of `rows`, each over all rows up to the end of its block."""
        digests = []
        previous = b""
        for start in range(0, len(rows) - self.block_size + 1, self.block_size):
            content = array("q", rows[start : start + self.block_size]).tobytes()
            previous = hashlib.blake2b(previous + content, digest_size=16).digest()
            digests.append(previous)
        return digests

    def match_prefix(self, digests: list[bytes]) -> list[int]:
        """Hold and return the published blocks of the longest known prefix."""
        matched = []
        for digest in digests:
            block = self._block_of.get(digest)
            if block is None:
                break
            if self._holders[block] == 0:
                del self._idle[block]
            self._holders[block] += 1
            matched.append(block)
        return matched

    def count_idle(self, digests: list[bytes]) -> tuple[int, int]:
        """(length of the longest known prefix in blocks, how many of those are idle): a look without taking."""
        matched = idle = 0
        for digest in digests:
            block = self._block_of.get(digest)
            if block is None:
                break
            matched += 1
            idle += self._holders[block] == 0
        return matched, idle

    def publish(self, block: int, digest: bytes) -> None:
        """Offer a held block, whose rows are computed or launched, to later sequences. First come, first kept."""
        assert self._holders[block] > 0, block
        if digest in self._block_of or block in self._digest_of:
            return
        self._block_of[digest] = block
        self._digest_of[block] = digest

    def drop_idle(self) -> int:
        """Forget all idle blocks (they become free). Returns how many."""
        count = len(self._idle)
        while self._idle:
            self._free.append(self._evict())
        return count

    def _evict(self) -> int:
        block, digest = self._idle.popitem(last=False)
        del self._block_of[digest]
        del self._digest_of[block]
        return block
