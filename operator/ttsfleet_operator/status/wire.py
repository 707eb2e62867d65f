"""Reading of raw Kubernetes objects without trust: absent or malformed parts are empty. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

Raw: TypeAlias = Mapping[str, Any]


def part(raw: Raw | None, *path: str) -> Raw:
    """The mapping under `path`, or an empty one."""
    current: object = raw
    for key in path:
        current = current.get(key) if isinstance(current, Mapping) else None
    return current if isinstance(current, Mapping) else {}


def items(raw: Raw, key: str) -> Sequence[Raw]:
    """The mappings of the list under `key`."""
    value = raw.get(key)
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, Sequence) else []


def text(raw: Raw, key: str) -> str:
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def count(raw: Raw, key: str, default: int = 0) -> int:
    value = raw.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def condition(raw: Raw, kind: str) -> Raw:
    """The condition of that type in `raw.status`, or an empty mapping."""
    return next((one for one in items(part(raw, "status"), "conditions") if one.get("type") == kind), {})


def read_time(value: str) -> datetime | None:
    """A time of the API, in UTC."""
    try:
        return datetime.fromisoformat(value.replace("Z", "+00:00")).astimezone(UTC)
    except ValueError:
        return None


def write_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
