"""The split of replicas over classes: a table of cases, and properties that hold on every step of random walks."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ttsfleet_operator.fleet.split import ClassShare, Policy, split_replicas


def share(name: str, *, running: int = 0, ready: int | None = None, **more: int | None) -> ClassShare:
    fields = {"max_replicas": None, "capacity": None} | more
    return ClassShare(name, replicas=running, ready=running if ready is None else ready, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("total", "policy", "classes", "expected"),
    [
        pytest.param(5, "Priority", [share("a"), share("b")], [5, 0], id="the first class takes all"),
        pytest.param(5, "Priority", [share("a", max_replicas=3), share("b")], [3, 2], id="up to maxReplicas"),
        pytest.param(
            5, "Priority", [share("a", capacity=2), share("b", capacity=9)], [2, 3], id="as far as nodes have room"
        ),
        pytest.param(
            5, "Priority", [share("a", capacity=2), share("b", capacity=1)], [4, 1], id="the rest waits at the first"
        ),
        pytest.param(
            5,
            "Priority",
            [share("a", capacity=2, max_replicas=3), share("b", capacity=1)],
            [3, 2],
            id="the rest waits where maxReplicas allows",
        ),
        pytest.param(
            3, "Priority", [share("a", capacity=0), share("b", capacity=0)], [3, 0], id="no node anywhere yet"
        ),
        pytest.param(
            3,
            "Priority",
            [share("a", capacity=0), share("b", capacity=2)],
            [1, 2],
            id="a class without nodes is last",
        ),
        pytest.param(
            9, "Priority", [share("a", max_replicas=2), share("b", max_replicas=3)], [2, 3], id="all at maxReplicas"
        ),
        pytest.param(4, "Priority", [share("a"), share("b", min_replicas=1)], [3, 1], id="minReplicas come first"),
        pytest.param(
            1,
            "Priority",
            [share("a", min_replicas=1), share("b", min_replicas=1)],
            [1, 0],
            id="too few for all minima",
        ),
        pytest.param(
            2,
            "Priority",
            [share("a"), share("b", min_replicas=1, capacity=0)],
            [1, 1],
            id="a minimum waits for nodes",
        ),
        pytest.param(4, "Priority", [share("a", max_replicas=0), share("b")], [0, 4], id="a class that cannot run"),
        pytest.param(0, "Priority", [share("a", running=3), share("b", running=1)], [0, 0], id="suspended"),
        pytest.param(10, "Weighted", [share("a", weight=3), share("b", weight=2)], [6, 4], id="by weight"),
        pytest.param(
            10,
            "Weighted",
            [share("a", weight=1), share("b", weight=1), share("c", weight=1)],
            [4, 3, 3],
            id="remainders in list order",
        ),
        pytest.param(
            7,
            "Weighted",
            [share("a", weight=5), share("b", weight=3), share("c", weight=1)],
            [4, 2, 1],
            id="largest remainder",
        ),
        pytest.param(
            10,
            "Weighted",
            [share("a", weight=9, max_replicas=2), share("b", weight=1)],
            [2, 8],
            id="weight and bound",
        ),
        pytest.param(
            10,
            "Weighted",
            [share("a", weight=9), share("b", weight=1, min_replicas=4)],
            [6, 4],
            id="weight and minimum",
        ),
        pytest.param(
            6, "Weighted", [share("a", capacity=1), share("b", capacity=9)], [1, 5], id="weight and room on nodes"
        ),
        pytest.param(
            6, "Weighted", [share("a", capacity=1), share("b", capacity=1)], [3, 3], id="the rest waits by weight"
        ),
        pytest.param(
            3,
            "Weighted",
            [share("a", weight=0, min_replicas=1), share("b")],
            [1, 2],
            id="weight 0 is the minimum only",
        ),
    ],
)
def test_first_split(total: int, policy: Policy, classes: list[ClassShare], expected: list[int]) -> None:
    assert list(split_replicas(total, policy, classes).values()) == expected


@pytest.mark.parametrize(
    ("total", "policy", "classes", "expected"),
    [
        pytest.param(
            5,
            "Priority",
            [share("a", running=3, capacity=8), share("b", running=2, capacity=2)],
            [3, 2],
            id="new nodes of a better class draw no ready replica away",
        ),
        pytest.param(
            6,
            "Priority",
            [share("a", running=3, capacity=8), share("b", running=2, capacity=2)],
            [4, 2],
            id="one more goes to the better class",
        ),
        pytest.param(
            4,
            "Priority",
            [share("a", running=3, capacity=8), share("b", running=2, capacity=2)],
            [3, 1],
            id="one fewer leaves the lesser class",
        ),
        pytest.param(
            5,
            "Priority",
            [share("a", running=3, ready=1, capacity=1), share("b", running=2, capacity=9)],
            [1, 4],
            id="what lost its node moves to where there is room",
        ),
        pytest.param(
            5,
            "Priority",
            [share("a", running=3, ready=3, capacity=0), share("b", running=2, capacity=9)],
            [3, 2],
            id="nodes that lost their labels keep what is ready",
        ),
        pytest.param(
            5,
            "Priority",
            [share("a", running=3, ready=1, capacity=3), share("b", running=2, capacity=9)],
            [3, 2],
            id="a restart with room on the nodes moves nothing",
        ),
        pytest.param(
            3,
            "Priority",
            [share("a", running=10, ready=3), share("b", running=2)],
            [3, 0],
            id="a class scaled by hand is taken back to the ideal",
        ),
        pytest.param(
            7,
            "Weighted",
            [share("a", running=3), share("b", running=3)],
            [4, 3],
            id="weighted: one more in list order",
        ),
        pytest.param(
            4,
            "Weighted",
            [share("a", weight=5, running=2), share("b", weight=4, running=2), share("c", weight=1, running=1)],
            [2, 2, 0],
            id="weighted: one fewer moves no other",
        ),
    ],
)
def test_split_from_one_that_runs(total: int, policy: Policy, classes: list[ClassShare], expected: list[int]) -> None:
    assert list(split_replicas(total, policy, classes).values()) == expected


def test_change_of_the_distribution_applies_the_ideal_at_once() -> None:
    classes = [share("b", running=3, capacity=8), share("a", running=2, capacity=2)]
    assert split_replicas(5, "Priority", classes, rebalance=True) == {"b": 5, "a": 0}


def _random_classes(rng: random.Random) -> list[ClassShare]:
    classes = []
    for index in range(rng.randint(1, 5)):
        least = rng.choice([0, 0, 0, 1, 2])
        most = rng.choice([None, None, least + rng.randint(0, 6)])
        capacity = rng.choice([None, rng.randint(0, 8), rng.randint(0, 8)])
        classes.append(ClassShare(f"c{index}", rng.choice([0, 1, 1, 2, 5]), least, most, capacity))
    if not any(one.weight for one in classes):
        classes[0] = replace(classes[0], weight=1)
    return classes


def _perturbed(classes: list[ClassShare], rng: random.Random) -> list[ClassShare]:
    """Nodes come and go, pods become ready or not."""
    result = []
    for one in classes:
        capacity = one.capacity
        if capacity is not None and rng.random() < 0.5:
            capacity = max(0, capacity + rng.randint(-3, 3))
        able = one.replicas if capacity is None else min(one.replicas, max(capacity, one.ready))
        ready = one.ready if rng.random() < 0.5 else rng.randint(0, able)
        result.append(replace(one, capacity=capacity, ready=min(ready, one.replicas)))
    return result


@pytest.mark.parametrize("policy", ["Priority", "Weighted"])
@pytest.mark.parametrize("seed", range(40))
def test_walk_keeps_every_promise(policy: Policy, seed: int) -> None:
    rng = random.Random(seed)
    classes, total = _random_classes(rng), rng.randint(0, 12)
    for _ in range(60):
        before = total
        classes = _perturbed(classes, rng)
        if rng.random() < 0.5:
            total = max(0, total + rng.randint(-4, 4))
        shares = split_replicas(total, policy, classes)
        _check(total, before, policy, classes, shares)
        classes = [replace(one, replicas=shares[one.name], ready=min(one.ready, shares[one.name])) for one in classes]


def _check(total: int, before: int, policy: Policy, classes: list[ClassShare], shares: dict[str, int]) -> None:
    assert split_replicas(total, policy, list(classes)) == shares, "equal inputs, another split"
    weightless = {one.name for one in classes if policy == "Weighted" and one.weight == 0}
    roofs = {one.name: one.floor(total) if one.name in weightless else one.roof(total) for one in classes}
    if sum(one.min_replicas for one in classes) <= total:
        assert sum(shares.values()) == min(total, sum(roofs.values()))
        assert all(shares[one.name] >= one.min_replicas for one in classes)
    assert all(0 <= shares[one.name] <= one.roof(total) for one in classes)
    if total == before:
        lost = [one.name for one in classes if shares[one.name] < min(one.ready, one.replicas)]
        assert not lost, "a ready replica moved for a change of nodes"
    moved = sum(max(0, one.held(total) - shares[one.name]) for one in classes)
    surplus = sum(one.held(total) for one in classes) - min(total, sum(roofs.values()))
    assert moved <= max(0, surplus), "more replicas left a class than had to"
    waiting = [one for one in classes if shares[one.name] > one.room(total)]
    idle = [one for one in classes if one.name not in weightless and shares[one.name] < one.room(total)]
    assert not (waiting and idle), "a replica waits although another class has room"
    settled = [replace(one, replicas=shares[one.name], ready=min(one.ready, shares[one.name])) for one in classes]
    assert split_replicas(total, policy, settled) == shares, "the result is no fixed point"


@pytest.mark.parametrize("policy", ["Priority", "Weighted"])
@pytest.mark.parametrize("seed", range(20))
def test_split_interrupted_between_two_writes_ends_the_same(policy: Policy, seed: int) -> None:
    rng = random.Random(seed)
    classes = _random_classes(rng)
    for total in (rng.randint(0, 12) for _ in range(20)):
        shares = split_replicas(total, policy, classes)
        written = rng.randint(0, len(classes))
        torn = [
            replace(one, replicas=shares[one.name], ready=min(one.ready, shares[one.name]))
            if index < written
            else one
            for index, one in enumerate(classes)
        ]
        assert split_replicas(total, policy, torn) == shares
        classes = [replace(one, replicas=shares[one.name], ready=shares[one.name]) for one in classes]
