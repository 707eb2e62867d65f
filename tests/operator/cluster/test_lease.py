"""Who leads, when, told with a clock of the test's own. The store below is optimistic like the API server's."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime, timedelta

import pytest

from ttsfleet_operator.cluster.api_errors import AlreadyExistsError, ConflictError, NotFoundError, UnavailableError
from ttsfleet_operator.cluster.client import Manifest
from ttsfleet_operator.cluster.kinds import Kind
from ttsfleet_operator.cluster.lease import LeaderElection, LeaseSettings


class Store:
    """One Lease with a resource version."""

    def __init__(self) -> None:
        self.lease: Manifest | None = None
        self.down = False
        self.writes = 0

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        self._up()
        if self.lease is None:
            raise NotFoundError(404, "NotFound", name)
        return copy.deepcopy(self.lease)

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        self._up()
        if self.lease is not None:
            raise AlreadyExistsError(409, "AlreadyExists", "")
        return self._store(manifest, 1)

    async def replace(self, kind: Kind, manifest: Manifest) -> Manifest:
        self._up()
        assert self.lease is not None
        version = int(self.lease["metadata"]["resourceVersion"])
        if int(manifest["metadata"]["resourceVersion"]) != version:
            raise ConflictError(409, "Conflict", "")
        return self._store(manifest, version + 1)

    def _store(self, manifest: Manifest, version: int) -> Manifest:
        self.writes += 1
        self.lease = copy.deepcopy(manifest)
        self.lease["metadata"]["resourceVersion"] = str(version)
        return copy.deepcopy(self.lease)

    def _up(self) -> None:
        if self.down:
            raise UnavailableError(0, "NoAnswer", "")


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    def wall(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now)


class Candidate:
    """An election whose steps the test takes: each `step` is one attempt, then the time goes on."""

    def __init__(self, identity: str, store: Store, time: Time) -> None:
        self.events: list[str] = []
        self.election = LeaderElection(
            LeaseSettings("tts", "operator", identity),
            store,
            won=lambda: self.events.append("won"),
            lost=lambda: self.events.append("lost"),
            clock=time.clock,
            wall=time.wall,
            sleep=self._pause,
        )

    async def _pause(self, _seconds: float) -> None:
        raise InterruptedError

    async def step(self) -> None:
        try:
            await self.election.run()
        except InterruptedError:
            return


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def time() -> Time:
    return Time()


async def test_the_first_candidate_leads_and_renews(store: Store, time: Time) -> None:
    one = Candidate("one", store, time)
    await one.step()
    assert one.events == ["won"]
    time.now += 3
    await one.step()
    assert one.events == ["won"]
    assert store.lease is not None
    assert store.lease["spec"]["holderIdentity"] == "one"
    assert store.lease["spec"]["leaseTransitions"] == 0
    assert store.writes == 2


async def test_the_second_waits_while_the_first_renews(store: Store, time: Time) -> None:
    one, two = Candidate("one", store, time), Candidate("two", store, time)
    for _ in range(20):
        await one.step()
        await two.step()
        time.now += 3
    assert (one.events, two.events) == (["won"], [])


async def test_the_second_takes_over_after_the_whole_duration_by_its_own_clock(store: Store, time: Time) -> None:
    one, two = Candidate("one", store, time), Candidate("two", store, time)
    await one.step()
    time.now += 1000
    await two.step()
    assert two.events == [], "it has not yet watched the Lease for its duration"
    time.now += 15.1
    await two.step()
    assert two.events == ["won"]
    assert store.lease is not None
    assert store.lease["spec"]["leaseTransitions"] == 1


async def test_a_leader_whose_lease_was_taken_is_lost(store: Store, time: Time) -> None:
    one, two = Candidate("one", store, time), Candidate("two", store, time)
    await one.step()
    await two.step()
    time.now += 16
    await two.step()
    await one.step()
    assert (one.events, two.events) == (["won", "lost"], ["won"])


async def test_a_leader_that_cannot_renew_is_lost_before_another_may_start(store: Store, time: Time) -> None:
    one = Candidate("one", store, time)
    await one.step()
    store.down = True
    time.now += 9
    await one.step()
    assert one.events == ["won"]
    time.now += 2
    await one.step()
    assert one.events == ["won", "lost"]


async def test_a_leader_whose_renewal_hangs_is_lost_before_another_may_start(store: Store, time: Time) -> None:
    one = Candidate("one", store, time)
    await one.step()

    async def hanging_get(kind: Kind, namespace: str, name: str) -> Manifest:
        return await asyncio.Event().wait()  # type: ignore[return-value]

    store.get = hanging_get  # type: ignore[method-assign]
    time.now += 14
    async with asyncio.timeout(5):
        await one.step()
    assert one.events == ["won", "lost"]


async def test_a_lease_that_was_given_back_is_taken_at_once(store: Store, time: Time) -> None:
    one, two = Candidate("one", store, time), Candidate("two", store, time)
    await one.step()
    await one.election.release()
    await two.step()
    assert two.events == ["won"]


async def test_a_candidate_that_loses_the_race_for_the_update_tries_again(store: Store, time: Time) -> None:
    one, two = Candidate("one", store, time), Candidate("two", store, time)
    await one.step()
    await two.step()
    time.now += 16

    original = store.get

    async def slow_get(kind: Kind, namespace: str, name: str) -> Manifest:
        lease = await original(kind, namespace, name)
        store.get = original  # type: ignore[method-assign]
        await one.step()
        return lease

    store.get = slow_get  # type: ignore[method-assign]
    await two.step()
    assert (one.events, two.events) == (["won"], [])
