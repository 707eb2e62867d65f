"""Draws a scale run: how many services are as wanted over time, and the operator's memory. matplotlib only here."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from control_plane.scale.results import MEGABYTE, Growth, Restart, ScaleResult


def draw(result: ScaleResult, path: Path) -> None:
    """Left: services over time, by the operator and by the script. Right: resident memory in each phase. What
    is missing is left out."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"{result.services} TTSServices on {result.nodes} nodes, {result.cpus} cores for everything, {result.date}"
    )
    course, memory = figure.subplots(1, 2)
    series: tuple[tuple[str, str, Growth | None], ...] = (
        ("the operator, from the first create", "tab:blue", result.creation),
        ("a script that applies the same children", "tab:grey", result.baseline),
        ("the operator, a spec change to all", "tab:orange", result.change),
    )
    for label, colour, growth in series:
        if growth is not None:
            arrivals = growth.arrivals
            heights = range(len(arrivals) + 1)
            course.step([0.0, *arrivals], heights, where="post", color=colour, label=f"{label}: {arrivals[-1]:.0f} s")
    course.set_title("as wanted: pods of the newest spec are ready", fontsize="medium")
    course.set(xlabel="seconds", ylabel="services")
    phases: tuple[tuple[str, str, Growth | Restart | None], ...] = (
        ("growing", "tab:blue", result.creation),
        ("after a restart", "tab:green", result.restart),
        ("a spec change to all", "tab:orange", result.change),
    )
    for label, colour, phase in phases:
        if phase is not None:
            seconds = [one.seconds for one in phase.samples]
            megabytes = [one.resident_bytes / MEGABYTE for one in phase.samples]
            memory.plot(seconds, megabytes, color=colour, label=label)
    memory.set_title("the operator's resident memory", fontsize="medium")
    memory.set(xlabel="seconds", ylabel="MB")
    for axes in (course, memory):
        axes.grid(alpha=0.3)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=120)
