"""Draws a benchmark as PNG. matplotlib is an extra (`pip install ttsfleet-operator[bench]`), imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttsfleet_operator.bench.record import RequestRecord
from ttsfleet_operator.errors import UsageError


def plot_records(records: Sequence[RequestRecord], title: str, path: Path) -> None:
    """Left: cumulative shares of first audio and latency. Right: both over the run, errors as crosses.

    Raises UsageError when matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--plot needs matplotlib: pip install 'ttsfleet-operator[bench]'") from error
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    shares, course = figure.subplots(1, 2)
    good = [record for record in records if not record.error]
    series = (
        ("first audio", "tab:blue", [(r.arrival, r.first_audio_seconds) for r in good]),
        ("latency", "tab:orange", [(r.arrival, r.latency_seconds) for r in good]),
    )
    for label, colour, pairs in series:
        points = [(at, value) for at, value in pairs if value is not None]
        if points:
            _draw(shares, course, label, colour, points)
    failed = [record for record in records if record.error]
    if failed:
        course.plot([r.arrival for r in failed], [0.0] * len(failed), "x", color="tab:red", label="error")
    shares.set(xlabel="seconds", ylabel="share of requests", ylim=(0, 1.02))
    course.set(xlabel="seconds since the start", ylabel="seconds")
    for axes in (shares, course):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    figure.savefig(path, dpi=120)


def _draw(shares: Any, course: Any, label: str, colour: str, points: list[tuple[float, float]]) -> None:
    values = sorted(value for _, value in points)
    heights = [(rank + 1) / len(values) for rank in range(len(values))]
    shares.step(values, heights, where="post", color=colour, label=label)
    course.plot([at for at, _ in points], [value for _, value in points], ".", color=colour, label=label)
