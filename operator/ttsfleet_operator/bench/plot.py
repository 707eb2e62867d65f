"""Draws a benchmark as PNG. matplotlib is an extra (`pip install ttsfleet-operator[bench]`), imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttsfleet_operator.bench.record import RequestRecord
from ttsfleet_operator.bench.report import percentile
from ttsfleet_operator.errors import UsageError


def plot_records(records: Sequence[RequestRecord], title: str, path: Path) -> None:
    """Left: which share of requests had first audio, or its end, within a time. Right: both over the run, errors too.

    Raises UsageError when matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter
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
        course.plot(
            [r.arrival for r in failed], [0.0] * len(failed), "x", color="tab:red", label="error", clip_on=False
        )
    shares.set_title("requests done within a time", fontsize="medium")
    shares.set(xlabel="seconds", ylabel="requests")
    shares.set_ylim(0, 1.02)
    shares.yaxis.set_major_formatter(PercentFormatter(1.0))
    course.set_title("each request over the run", fontsize="medium")
    course.set(xlabel="request sent, seconds after the start", ylabel="seconds")
    for axes in (shares, course):
        axes.grid(alpha=0.3)
        axes.set_xlim(left=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    course.set_ylim(bottom=0)
    figure.savefig(path, dpi=120)


def _draw(shares: Any, course: Any, label: str, colour: str, points: list[tuple[float, float]]) -> None:
    values = sorted(value for _, value in points)
    heights = [rank / len(values) for rank in range(len(values) + 1)]
    told = f"{label}: p50 {percentile(values, 50):.2f} s, p95 {percentile(values, 95):.2f} s"
    shares.step([values[0], *values], heights, where="post", color=colour, label=told)
    course.plot(*zip(*points, strict=True), ".", color=colour, label=label, clip_on=False)
