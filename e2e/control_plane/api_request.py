"""What a request to the API server means, read from its method and target as the API server reads it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# What POSTs to these asks is answered and not stored.
REVIEWS = frozenset(
    {
        "tokenreviews",
        "subjectaccessreviews",
        "localsubjectaccessreviews",
        "selfsubjectaccessreviews",
        "selfsubjectrulesreviews",
        "selfsubjectreviews",
    }
)


@dataclass(frozen=True)
class ApiRequest:
    """One request: its verb and what it is about. Empty strings where the target does not say."""

    method: str
    target: str
    verb: str = ""
    api_group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def is_watch(self) -> bool:
        """Whether its answer goes on until somebody ends it."""
        return self.verb == "watch"

    @property
    def is_write(self) -> bool:
        """Whether it asks for a change of something stored (a dry run and a review do not)."""
        dry_run = "dryRun=" in urlsplit(self.target).query
        return self.method in VERBS and bool(self.resource) and self.resource not in REVIEWS and not dry_run

    def __str__(self) -> str:
        path = "/".join(part for part in (self.resource, self.namespace, self.name, self.subresource) if part)
        return f"{self.verb or self.method} {path or self.target}"


def read_request(method: str, target: str) -> ApiRequest:
    """Reads `/api/v1/…` and `/apis/<group>/<version>/…`; anything else has only its method and target."""
    url = urlsplit(target)
    parts = [part for part in url.path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) > 2:
        group, rest = "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 3:
        group, rest = parts[1], parts[3:]
    else:
        return ApiRequest(method, target)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    name, subresource = (rest[1] if len(rest) > 1 else ""), "/".join(rest[2:])
    return ApiRequest(
        method=method,
        target=target,
        verb=_verb(method, url.query, bool(name)),
        api_group=group,
        resource=rest[0],
        namespace=namespace,
        name=name,
        subresource=subresource,
    )


def _verb(method: str, query: str, has_name: bool) -> str:
    if method == "GET":
        watch = parse_qs(query).get("watch", [""])[0]
        return "watch" if watch in ("1", "true") else "get" if has_name else "list"
    if method == "DELETE" and not has_name:
        return "deletecollection"
    return VERBS.get(method, method.lower())
