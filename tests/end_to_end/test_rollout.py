"""A fleet that changes while clients listen: every stream is whole, and every request is answered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control_plane.waiting import eventually
from end_to_end.installation import SPEECH_NAMESPACE, Installation
from end_to_end.streams import listeners, text_of

pytestmark = [pytest.mark.real_nodes, pytest.mark.slow, pytest.mark.timeout(600)]

NAME = "listened-to"
STREAM_SECONDS = 15
TEXT = text_of(12)


@pytest.fixture(scope="module")
def pair(installation: Installation) -> Iterator[Installation]:
    """A service with two replicas."""
    installation.apply(NAME, replicas=2)
    installation.wait_serving(NAME, 2)
    yield installation
    installation.cluster.kubectl("delete", "ttsservice", NAME, "-n", SPEECH_NAMESPACE, "--wait")


def uids(installation: Installation) -> set[str]:
    return {pod["metadata"]["uid"] for pod in installation.pods(NAME)}


def test_new_engine_settings_cut_no_stream_and_fail_no_request(pair: Installation) -> None:
    before = uids(pair)
    with pair.address(NAME) as url, listeners(url, 2, TEXT) as traffic:
        traffic.wait_ended(2, within=120)
        pair.apply(NAME, replicas=2, engine={"cache_capacity": 50})
        eventually(lambda: not before & uids(pair), "both pods are new", within=240, every=0.5)
        pair.wait_serving(NAME, 2)
        traffic.wait_ended(len(traffic.heard) + 4, within=180)
    assert traffic.failures == []
    assert traffic.cut() == []
    assert max(one.seconds for one in traffic.heard) >= STREAM_SECONDS
