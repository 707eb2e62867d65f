"""Reads the audit log of the API server: which user did what to which object, and what the answer was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})

# Only what finished, and of the system's own components only what they write: their reads would be most of the log.
# A watch is told when it begins (ResponseStarted), for it may never finish.
POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/openapi*", "/version"]},
        {
            "level": "None",
            "users": ["system:apiserver", "system:kube-scheduler", "system:kube-controller-manager", "kwok"],
            "verbs": ["get", "list", "watch"],
        },
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"], "verbs": ["get", "list", "watch"]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True)
class AuditEvent:
    """One request as the API server logged it. `raw` is the whole event."""

    user: str
    verb: str
    resource: str
    subresource: str
    api_group: str
    namespace: str
    name: str
    code: int
    stage: str
    user_agent: str
    received: str
    raw: Mapping[str, Any]

    @property
    def is_write(self) -> bool:
        """Whether it asked for a change (and not for a dry run)."""
        return self.verb in WRITES and "dryRun=" not in str(self.raw.get("requestURI", ""))


def read_event(line: str) -> AuditEvent:
    """Parses one line of the log."""
    raw = json.loads(line)
    target = raw.get("objectRef") or {}
    return AuditEvent(
        user=raw["user"].get("username", ""),
        verb=raw["verb"],
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        api_group=target.get("apiGroup", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=(raw.get("responseStatus") or {}).get("code", 0),
        stage=raw["stage"],
        user_agent=raw.get("userAgent", ""),
        received=raw["requestReceivedTimestamp"],
        raw=raw,
    )


def read_events(
    path: Path,
    *,
    since: int = 0,
    user: str | None = None,
    verb: str | Iterable[str] | None = None,
    resource: str | None = None,
    namespace: str | None = None,
    writes: bool | None = None,
) -> Iterator[AuditEvent]:
    """The events after byte `since` that match every filter given. A watch appears once, when it began."""
    verbs = {verb} if isinstance(verb, str) else set(verb) if verb is not None else None
    with path.open("rb") as file:
        file.seek(since)
        for line in file:
            if not line.endswith(b"\n"):
                return
            event = read_event(line.decode())
            # A long request is logged at its start and again at its end.
            if event.verb == "watch" and event.stage == "ResponseComplete":
                continue
            if event.verb != "watch" and event.stage == "ResponseStarted":
                continue
            if (
                (user is None or event.user == user)
                and (verbs is None or event.verb in verbs)
                and (resource is None or event.resource == resource)
                and (namespace is None or event.namespace == namespace)
                and (writes is None or event.is_write == writes)
            ):
                yield event
