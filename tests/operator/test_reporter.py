"""What happens to a service while its status is written."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from ttsfleet_operator.api.manifest import parse_service
from ttsfleet_operator.cluster.kinds import SERVICES_OF_USERS
from ttsfleet_operator.cluster.stores import ObjectKey, ObjectStore
from ttsfleet_operator.errors import ManifestError
from ttsfleet_operator.report import Reporter

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVICE = {
    "apiVersion": "ttsfleet.dev/v1alpha1",
    "kind": "TTSService",
    "metadata": {"name": "narrator", "namespace": "n", "uid": "u", "generation": 1, "resourceVersion": "10"},
    "spec": {
        "replicas": 1,
        "model": {"source": {"builtin": {"name": "tiny-en"}}},
        "hardware": {"classes": [{"name": "any", "cpu": {}}]},
    },
}


class Server:
    """Answers as the API server does: with the whole object, which a user may have edited meanwhile."""

    def __init__(self, *, edited: bool) -> None:
        self.live: dict[str, Any] = copy.deepcopy(SERVICE)
        if edited:
            self.live["spec"]["replicas"] = 5
            self.live["metadata"] |= {"generation": 2, "resourceVersion": "11"}

    async def apply(self, _kind: object, manifest: Any, _manager: str, **_: Any) -> dict[str, Any]:
        if manifest["kind"] == "TTSService":
            version = int(self.live["metadata"]["resourceVersion"]) + 1
            self.live["metadata"]["resourceVersion"] = str(version)
            self.live["status"] = manifest["status"]
        return copy.deepcopy(self.live)


@pytest.mark.parametrize("readable", [True, False], ids=["readable", "unreadable"])
@pytest.mark.parametrize("edited", [True, False], ids=["edited meanwhile", "untouched"])
async def test_an_edit_that_comes_back_with_our_status_is_looked_at_again(edited: bool, readable: bool) -> None:
    store = ObjectStore(SERVICES_OF_USERS, with_status=True, status_matters=False)
    store.put(SERVICE)
    reporter = Reporter(Server(edited=edited), store, lambda _kind, _verb: None)  # type: ignore[arg-type]
    if readable:
        wait = await reporter.report(parse_service(SERVICE), {}, {"conditions": [], "classes": []}, NOW)
    else:
        wait = await reporter.report_unreadable(copy.deepcopy(SERVICE), ManifestError("wrong"), NOW)
    live = store.get(ObjectKey("n", "narrator"))
    assert live is not None
    assert live["spec"]["replicas"] == (5 if edited else 1)
    assert wait == (0.0 if edited else None)
