"""The table that `ttsfleet-runtime verify` prints: each case's worst error beside its tolerance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ttsfleet_runtime.verify.compare import Check
from ttsfleet_runtime.verify.result import NOT_SELECTED, Outcome, Result

_STYLES = {
    Outcome.PASSED: "green",
    Outcome.FAILED: "bold red",
    Outcome.UNKNOWN: "bold magenta",
    Outcome.NOT_RUN: "dim",
}
_FILE_WIDTH = 160


def print_results(results: Sequence[Result], *, device: str) -> None:
    """One row per case that was asked for; a failed case shows every failed check. Ends with the counts."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    table = Table(title=f"golden cases, fp32 on {device}", title_justify="left")
    for column in ("case", "output", "error", "tolerance", "result", "s"):
        table.add_column(column, overflow="fold", no_wrap=column in ("case", "result"))
    for result in results:
        if result.note != NOT_SELECTED:
            _add_rows(table, result)
    others = sum(result.note == NOT_SELECTED for result in results)
    if others:
        _add_rows(table, Result(f"{others} others", "", Outcome.NOT_RUN, note=NOT_SELECTED))
    console.print(table)
    counts = Counter(result.outcome for result in results)
    console.print(
        ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome]) or "no case"
    )


def _add_rows(table: Table, result: Result) -> None:
    shown = _shown(result)
    style = _STYLES[result.outcome]
    seconds = f"{result.seconds:.1f}" if result.seconds else ""
    if not shown:
        table.add_row(result.name, "", escape(result.note), "", f"[{style}]{result.outcome}[/]", seconds)
        return
    for index, check in enumerate(shown):
        first = index == 0
        table.add_row(
            result.name if first else "",
            check.output,
            escape(check.measured),
            check.limit,
            f"[{style}]{result.outcome}[/]" if first else "",
            seconds if first else "",
        )
    if result.note:
        table.add_row("", "", f"[dim]{escape(result.note)}[/]", "", "", "")


def _shown(result: Result) -> list[Check]:
    """All failed checks, or else the one that came nearest to its limit."""
    failed = [check for check in result.checks if not check.passed]
    if failed or not result.checks:
        return failed
    return [max(result.checks, key=lambda check: check.excess)]
