"""From records to the numbers that are printed and stored. Pure.

Throughput is audio seconds, or requests, per second of wall time between the start and the last end; a request's own
latency never enters it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from ttsfleet_operator.bench.record import RequestRecord

REPORT_SCHEMA = 1
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Distribution:
    """Of one quantity over the successful requests. `percentiles` by number, e.g. {50: 0.31}."""

    count: int
    mean: float
    minimum: float
    maximum: float
    percentiles: dict[int, float]


@dataclass(frozen=True)
class Summary:
    """The whole run. A distribution is None when no request gave that quantity."""

    requests: int
    succeeded: int
    errors: dict[str, int]
    wall_seconds: float
    audio_seconds: float
    audio_seconds_per_second: float
    requests_per_second: float
    stalled_requests: int
    first_audio_seconds: Distribution | None
    latency_seconds: Distribution | None
    real_time_factor: Distribution | None


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of values in rising order, linear between neighbours. `ordered` must not be empty."""
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def distribution(values: Sequence[float]) -> Distribution | None:
    if not values:
        return None
    ordered = sorted(values)
    return Distribution(
        count=len(ordered),
        mean=sum(ordered) / len(ordered),
        minimum=ordered[0],
        maximum=ordered[-1],
        percentiles={percent: percentile(ordered, percent) for percent in PERCENTILES},
    )


def summarise(records: Sequence[RequestRecord]) -> Summary:
    good = [record for record in records if not record.error]
    wall = max((record.ended for record in records), default=0.0)
    audio = sum(record.audio_seconds for record in good)
    return Summary(
        requests=len(records),
        succeeded=len(good),
        errors=dict(Counter(record.error for record in records if record.error).most_common()),
        wall_seconds=wall,
        audio_seconds=audio,
        audio_seconds_per_second=audio / wall if wall else 0.0,
        requests_per_second=len(good) / wall if wall else 0.0,
        stalled_requests=sum(record.stalls > 0 for record in good),
        first_audio_seconds=distribution(_known(record.first_audio_seconds for record in good)),
        latency_seconds=distribution(_known(record.latency_seconds for record in good)),
        real_time_factor=distribution(_known(record.real_time_factor for record in good)),
    )


def as_json(summary: Summary, records: Sequence[RequestRecord], setting: dict[str, object]) -> dict[str, object]:
    """The stored form: `setting` says what was asked of whom."""
    return {
        "schema": REPORT_SCHEMA,
        "setting": setting,
        "summary": asdict(summary),
        "requests": [asdict(record) for record in records],
    }


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
