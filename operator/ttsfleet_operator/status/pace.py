"""When a status is written: at once when a status or a reason changes, otherwise at most once per 10 s. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from ttsfleet_operator.status.wire import Raw, items, part

MIN_INTERVAL = timedelta(seconds=10)
POLL_SECONDS = 10.0


def due(previous: Raw, new: Raw, last_written: datetime | None, now: datetime) -> bool:
    """Whether `new` is to be written now. `last_written` None = never by this process."""
    return wait_seconds(previous, new, last_written, now) == 0.0


def wait_seconds(previous: Raw, new: Raw, last_written: datetime | None, now: datetime) -> float | None:
    """Seconds until `new` may be written; 0 = now, None = there is nothing to write."""
    if previous == new:
        return None
    if last_written is None or _essence(previous) != _essence(new):
        return 0.0
    return max(0.0, (last_written + MIN_INTERVAL - now).total_seconds())


def look_again_seconds(status: Raw) -> float | None:
    """When to look again although nothing is reported: pods are not watched, and a wait has its deadline.

    None = the service is settled and its Deployments' changes are enough.
    """
    types = {one.get("type") for one in items(status, "conditions")}
    return POLL_SECONDS if types & {"Reconciling", "Stalled"} else None


def _essence(status: Raw) -> object:
    """What must not wait: which spec was seen, and every status and reason."""
    conditions = [(one.get("type"), one.get("status"), one.get("reason")) for one in items(status, "conditions")]
    problems = [(one.get("name"), part(one, "problem").get("reason")) for one in items(status, "classes")]
    return status.get("observedGeneration"), sorted(map(str, conditions)), sorted(map(str, problems))
