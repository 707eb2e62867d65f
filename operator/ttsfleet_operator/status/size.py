"""Keeping a status within its 8 KiB. Pure and deterministic: the same status is always cut the same way.

Identities, counts, hashes and reasons always stay. What goes first is what can be read elsewhere: warnings, then long
messages, then plan and memory of classes, then names that follow from others.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ttsfleet_operator.status.reasons import clip

MAX_BYTES = 8192


def size_of(status: Mapping[str, Any]) -> int:
    """Bytes as the API server stores them: compact JSON in UTF-8."""
    return len(json.dumps(status, ensure_ascii=False, separators=(",", ":")).encode())


def fit(status: Mapping[str, Any]) -> dict[str, Any]:
    """The status itself when it fits, else a copy with less in it."""
    result = dict(status)
    if size_of(result) <= MAX_BYTES:
        return result
    result = copy.deepcopy(result)
    for cut in _cuts(result):
        cut()
        if size_of(result) <= MAX_BYTES:
            break
    return result


def _cuts(status: dict[str, Any]) -> Iterator[Callable[[], None]]:
    classes, conditions = status.get("classes", []), status.get("conditions", [])
    for one in reversed(classes):
        yield lambda one=one: _drop(one, "warnings")  # type: ignore[misc]
    problems = [one["problem"] for one in classes if "problem" in one]
    for limit in (200, 100):
        yield lambda limit=limit: _shorten(problems, limit)  # type: ignore[misc]
    yield lambda: _shorten(conditions, 200)
    idle = [one for one in classes if not one["desired"]]
    busy = [one for one in classes if one["desired"]]
    for one in (*reversed(idle), *reversed(busy)):
        yield lambda one=one: _drop(one, "plan", "memory")  # type: ignore[misc]
    yield lambda: _shorten(problems, 40)
    for one in reversed(classes):
        yield lambda one=one: _drop(one, "engineConfigMap", "deployment")  # type: ignore[misc]
    yield lambda: _shorten(conditions, 80)
    yield lambda: _shorten(problems, 0)


def _shorten(holders: list[dict[str, Any]], limit: int) -> None:
    for one in holders:
        one["message"] = clip(one["message"], limit) if limit else ""


def _drop(holder: dict[str, Any], *names: str) -> None:
    for name in names:
        holder.pop(name, None)
