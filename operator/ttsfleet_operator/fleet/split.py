"""How the wanted replicas are split over the classes. Pure.

The ideal split follows from the spec and the nodes: minReplicas first, then in list order (Priority) or by weight
(Weighted, largest remainder), at first only as far as nodes have room; what is left goes up to maxReplicas and waits
for nodes. From a split that runs, the ideal is approached without moving what runs: more replicas go where the ideal
has most to gain, fewer leave where it has least to lose, and a change of nodes frees only what is not ready and has
no room. So each change moves as few replicas as it can. A change of the distribution in the spec applies the ideal
at once (`rebalance`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Policy: TypeAlias = Literal["Priority", "Weighted"]
Shares: TypeAlias = dict[str, int]


@dataclass(frozen=True)
class ClassShare:
    """One class in the split.

    max_replicas: None = unbounded; 0 also for a class that cannot run at all
    capacity: replicas that its nodes can hold; None = unknown
    replicas, ready: what its Deployment has now
    """

    name: str
    weight: int = 1
    min_replicas: int = 0
    max_replicas: int | None = None
    capacity: int | None = None
    replicas: int = 0
    ready: int = 0

    def roof(self, total: int) -> int:
        """At most so many, nodes or not."""
        return total if self.max_replicas is None else min(total, self.max_replicas)

    def floor(self, total: int) -> int:
        return min(self.min_replicas, self.roof(total))

    def held(self, total: int) -> int:
        """What runs or has room to start: not moved for the sake of nodes."""
        able = self.replicas if self.capacity is None else min(self.replicas, max(self.capacity, self.ready))
        return min(max(able, min(self.floor(total), self.replicas)), self.roof(max(total, self.replicas)))

    def room(self, total: int) -> int:
        """As many as nodes can hold, or run already."""
        if self.capacity is None:
            return self.roof(total)
        return min(self.roof(total), max(self.capacity, self.held(total), self.floor(total)))


def split_replicas(total: int, policy: Policy, classes: Sequence[ClassShare], rebalance: bool = False) -> Shares:
    """Replicas by class name. Their sum is `total`, or less where the classes' maxReplicas allow no more."""
    ideal = _ideal(total, policy, classes)
    if rebalance:
        return ideal
    shares = {one.name: one.held(total) for one in classes}
    placed = sum(ideal.values())
    by_place = {one.name: index for index, one in enumerate(classes)}

    def gain(name: str) -> tuple[int, ...]:
        """Sorts first the class that should get a replica, last the one that should give one."""
        lack = ideal[name] - shares[name]
        return (-lack, by_place[name]) if policy == "Weighted" else (lack <= 0, by_place[name])

    def loss(name: str) -> tuple[int, ...]:
        surplus = shares[name] - ideal[name]
        return (surplus, by_place[name]) if policy == "Weighted" else (surplus > 0, by_place[name])

    while sum(shares.values()) < placed:
        shares[min(shares, key=gain)] += 1
    while sum(shares.values()) > placed:
        shares[max(shares, key=loss)] -= 1
    return shares


def _ideal(total: int, policy: Policy, classes: Sequence[ClassShare]) -> Shares:
    shares: Shares = {}
    left = total
    for one in classes:
        shares[one.name] = min(one.floor(total), left)
        left -= shares[one.name]
    bounds: tuple[Callable[[ClassShare], int], ...] = (lambda one: one.room(total), lambda one: one.roof(total))
    for bound in bounds:
        if sum(shares.values()) == total:
            break
        limits = {one.name: max(bound(one), shares[one.name]) for one in classes}
        if policy == "Priority":
            _fill_in_order(total, shares, limits)
        else:
            _fill_by_weight(total, shares, limits, {one.name: one.weight for one in classes})
    return shares


def _fill_in_order(total: int, shares: Shares, limits: Mapping[str, int]) -> None:
    for name, limit in limits.items():
        shares[name] += min(limit - shares[name], total - sum(shares.values()))


def _fill_by_weight(total: int, shares: Shares, limits: Mapping[str, int], weights: Mapping[str, int]) -> None:
    """Raise `shares` to the proportional ones within [shares, limits]. Classes at a bound leave the proportion; the
    rest share what remains by largest remainder, ties in list order. Weight 0 gets nothing here."""
    floors = dict(shares)
    free = [name for name in shares if weights[name] > 0]
    while free:
        pool = total - sum(share for name, share in shares.items() if name not in free)
        quotas = {name: pool * weights[name] / sum(weights[one] for one in free) for name in free}
        over = [name for name in free if quotas[name] > limits[name]]
        under = [name for name in free if quotas[name] < floors[name]]
        excess = sum(quotas[name] - limits[name] for name in over)
        lack = sum(floors[name] - quotas[name] for name in under)
        fixed, bound = (over, limits) if excess >= lack and over else (under, floors)
        if not fixed:
            _largest_remainder(pool, shares, quotas)
            return
        for name in fixed:
            shares[name] = bound[name]
            free.remove(name)


def _largest_remainder(pool: int, shares: Shares, quotas: Mapping[str, float]) -> None:
    for name, quota in quotas.items():
        shares[name] = int(quota)
    left = pool - sum(int(quota) for quota in quotas.values())
    order = sorted(quotas, key=lambda name: int(quotas[name]) - quotas[name])
    for name in order[:left]:
        shares[name] += 1
