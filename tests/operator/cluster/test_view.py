"""What the view knows of the API server's own addresses, from one answer to the next."""

from __future__ import annotations

from typing import Any

import pytest

from ttsfleet_operator.cluster.api_errors import APIError, ForbiddenError, NotFoundError
from ttsfleet_operator.cluster.client import KubernetesClient, Manifest
from ttsfleet_operator.cluster.kinds import Kind
from ttsfleet_operator.cluster.view import ClusterView


class OneAnswer(KubernetesClient):
    """An API server that has, or refuses, one object."""

    def __init__(self, answer: Manifest | APIError) -> None:
        self._answer = answer

    async def get(self, kind: Kind, namespace: str, name: str, *, metadata_only: bool = False) -> Manifest:
        assert (kind.plural, namespace, name) == ("endpointslices", "default", "kubernetes")
        if isinstance(self._answer, APIError):
            raise self._answer
        return self._answer


def listening_at(*addresses: str) -> Manifest:
    return {"endpoints": [{"addresses": [address]} for address in addresses]}


@pytest.mark.parametrize(
    ("answer", "expected", "changes"),
    [
        pytest.param(listening_at("192.0.2.1"), ("192.0.2.1/32",), 0, id="the same"),
        pytest.param(
            listening_at("192.0.2.9", "192.0.2.1"), ("192.0.2.1/32", "192.0.2.9/32"), 1, id="one more, in order"
        ),
        pytest.param(listening_at("2001:db8::1"), ("2001:db8::1/128",), 1, id="IPv6"),
        pytest.param({"endpoints": None}, ("192.0.2.1/32",), 0, id="none: what is known stays"),
        pytest.param(ForbiddenError(403, "Forbidden", ""), ("192.0.2.1/32",), 0, id="a right that was taken away"),
        pytest.param(NotFoundError(404, "NotFound", ""), ("192.0.2.1/32",), 0, id="gone"),
    ],
)
async def test_addresses_of_the_api_server_after(
    answer: Manifest | APIError, expected: tuple[str, ...], changes: int
) -> None:
    announced: list[str] = []
    view = ClusterView[Any, Any]((), None, lambda raw: raw, lambda key: None, lambda: announced.append("all"))
    await view.refresh_api_servers(OneAnswer(listening_at("192.0.2.1")), announce=False)
    await view.refresh_api_servers(OneAnswer(answer))
    assert (view.api_servers, len(announced)) == (expected, changes)
