"""What the kernel lets this process and its children use: soft limits are raised towards the tuning guide's values.

Only as far as the hard limit: raising that takes a capability, which a pod does not have and need not get. The values
are the guide's container settings (ulimits nofile, memlock, stack).
"""

from __future__ import annotations

import resource
from dataclasses import dataclass

from ttsfleet_runtime.config.checks import Note

_UNLIMITED = resource.RLIM_INFINITY


@dataclass(frozen=True)
class _Wanted:
    """`least`: what the guide asks for. `most`: not raised beyond, since threads take their stacks' size from it; a
    limit that is higher already stays (for an unlimited one the C library has a size of its own)."""

    name: str
    number: int
    least: int
    most: int
    flag: str
    matters: str


_WANTED = (
    _Wanted("nofile", resource.RLIMIT_NOFILE, 65536, _UNLIMITED, "nofile=65536:65536", "open connections end there"),
    _Wanted(
        "memlock", resource.RLIMIT_MEMLOCK, _UNLIMITED, _UNLIMITED, "memlock=-1", "pinned host memory ends there"
    ),
    _Wanted("stack", resource.RLIMIT_STACK, 67108864, 67108864, "stack=67108864", "deep recursion ends there"),
)


def raise_soft_limits() -> list[Note]:
    """Raise them for this process and all that it starts. A note for each hard limit below the guide's value."""
    notes = []
    for wanted in _WANTED:
        soft, hard = resource.getrlimit(wanted.number)
        goal = _lower(hard, wanted.most)
        if _lower(soft, goal) != goal:
            resource.setrlimit(wanted.number, (goal, hard))
        if _lower(hard, wanted.least) != wanted.least:
            notes.append(_note(wanted, hard))
    return notes


def _note(wanted: _Wanted, hard: int) -> Note:
    reason = f"the hard limit; {wanted.matters}. Raise it where containers are started (--ulimit {wanted.flag})"
    return Note(f"ulimit.{wanted.name}", _shown(wanted.least), _shown(hard), reason)


def _lower(one: int, other: int) -> int:
    """The lower of two limits, of which the infinite one is -1."""
    if _UNLIMITED in (one, other):
        return other if one == _UNLIMITED else one
    return min(one, other)


def _shown(limit: int) -> str:
    return "unlimited" if limit == _UNLIMITED else str(limit)
