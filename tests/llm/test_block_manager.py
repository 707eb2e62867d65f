"""KV blocks: who holds which, what is shared, that none is lost."""

from __future__ import annotations

import random

import pytest

from ttsfleet_runtime.llm.block_manager import NULL_BLOCK, BlockManager, OutOfBlocksError


def publish_all(manager: BlockManager, rows: list[int]) -> list[int]:
    """Allocate the full blocks of `rows`, publish and return them."""
    digests = manager.digests(rows)
    blocks = manager.allocate(len(digests))
    for block, digest in zip(blocks, digests, strict=True):
        manager.publish(block, digest)
    return blocks


def test_the_null_block_is_never_given_out() -> None:
    manager = BlockManager(num_blocks=8, block_size=4)
    assert NULL_BLOCK not in manager.allocate(8)


def test_allocating_too_much_takes_nothing() -> None:
    manager = BlockManager(num_blocks=4, block_size=4)
    manager.allocate(3)
    with pytest.raises(OutOfBlocksError, match="2 blocks asked for, 1 available"):
        manager.allocate(2)
    assert manager.num_available == 1


def test_a_freed_list_is_emptied_so_that_it_cannot_be_freed_twice() -> None:
    manager = BlockManager(num_blocks=4, block_size=4)
    blocks = manager.allocate(3)
    manager.free(blocks)
    manager.free(blocks)
    assert manager.num_available == 4


def test_a_known_prefix_is_shared_up_to_the_first_difference() -> None:
    manager = BlockManager(num_blocks=16, block_size=4)
    first = publish_all(manager, list(range(16)))
    rows = [*range(12), 99, 98, 97, 96]
    shared = manager.match_prefix(manager.digests(rows))
    assert shared == first[:3]
    assert manager.num_held == 4


def test_the_same_rows_behind_another_prefix_are_not_shared() -> None:
    manager = BlockManager(num_blocks=16, block_size=4)
    publish_all(manager, [0, 1, 2, 3, 4, 5, 6, 7])
    assert manager.match_prefix(manager.digests([9, 9, 9, 9, 4, 5, 6, 7])) == []


def test_a_block_that_is_not_full_has_no_digest() -> None:
    manager = BlockManager(num_blocks=16, block_size=4)
    assert len(manager.digests(list(range(11)))) == 2


def test_released_prefix_blocks_are_available_and_still_found() -> None:
    manager = BlockManager(num_blocks=4, block_size=4)
    rows = list(range(16))
    manager.free(publish_all(manager, rows))
    assert manager.num_available == 4
    assert manager.count_idle(manager.digests(rows)) == (4, 4)
    assert len(manager.match_prefix(manager.digests(rows))) == 4
    assert manager.num_available == 0


def test_prefix_blocks_are_evicted_only_when_no_free_block_is_left_and_the_tail_first() -> None:
    manager = BlockManager(num_blocks=6, block_size=4)
    rows = list(range(16))
    manager.free(publish_all(manager, rows))
    manager.allocate(2)
    assert manager.count_idle(manager.digests(rows)) == (4, 4)
    manager.allocate(1)
    assert manager.count_idle(manager.digests(rows)) == (3, 3)


def test_dropping_idle_blocks_forgets_them() -> None:
    manager = BlockManager(num_blocks=6, block_size=4)
    rows = list(range(8))
    manager.free(publish_all(manager, rows))
    assert manager.drop_idle() == 2
    assert manager.match_prefix(manager.digests(rows)) == []
    assert manager.num_available == 6


def test_no_block_is_lost_in_a_random_storm() -> None:
    chance = random.Random(5)
    manager = BlockManager(num_blocks=40, block_size=4)
    held: list[list[int]] = []
    for _ in range(3000):
        if held and chance.random() < 0.5:
            manager.free(held.pop(chance.randrange(len(held))))
            continue
        rows = [chance.randrange(2) for _ in range(chance.randrange(1, 24))]
        digests = manager.digests(rows)
        matched, idle = manager.count_idle(digests)
        needed = manager.blocks_for(len(rows)) - matched
        if needed + idle > manager.num_available:
            continue
        blocks = manager.match_prefix(digests)
        blocks += manager.allocate(needed)
        for block, digest in zip(blocks, digests, strict=False):
            manager.publish(block, digest)
        held.append(blocks)
        distinct = {block for blocks in held for block in blocks}
        assert manager.num_held == len(distinct)
    for blocks in held:
        manager.free(blocks)
    assert manager.num_available == 40
