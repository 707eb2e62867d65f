"""The effective configuration as people and programs read it: `ttsfleet-runtime config` and the status page."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ttsfleet_runtime.config.checks import Note
from ttsfleet_runtime.config.engine import EngineConfig, asked, settings
from ttsfleet_runtime.config.machine import Machine
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.config.resolve import Effective
from ttsfleet_runtime.config.sizing import GIB

_STYLES = {"note": "cyan", "warning": "yellow"}


def report(effective: Effective, config: EngineConfig, machine: Machine) -> dict[str, Any]:
    """Plan, notes, what was asked and the machine, as JSON values."""
    return {
        "plan": effective.plan.model_dump(mode="json"),
        "asked": {path: _plain(value) for path, value in asked(config).items()},
        "notes": [note_as_json(note) for note in effective.notes],
        "machine": {
            "cores": machine.cores,
            "memory_bytes": machine.memory_bytes,
            "gpu": None
            if machine.gpu is None
            else {
                "name": machine.gpu.name,
                "memory_bytes": machine.gpu.memory_bytes,
                "compute_capability": ".".join(map(str, machine.gpu.compute_capability)),
            },
        },
    }


def note_as_json(note: Note) -> dict[str, Any]:
    return {
        "field": note.field,
        "asked": _plain(note.asked),
        "effective": _plain(note.effective),
        "reason": note.reason,
        "level": note.level,
    }


def note_as_line(note: Note) -> str:
    """One line for a log: `warning: batch_max_tokens = 99999: outside the recommended ...`."""
    if note.asked is None:
        return f"{note.level}: {note.field} = {_show(note.effective)} (planned): {note.reason}"
    if note.asked == note.effective:
        return f"{note.level}: {note.field} = {_show(note.asked)}: {note.reason}"
    return f"{note.level}: {note.field} = {_show(note.effective)}, asked was {_show(note.asked)}: {note.reason}"


def print_plan(console: Console, effective: Effective, config: EngineConfig, machine: Machine) -> None:
    """Print the plan as a table, what was asked beside what runs, and a line for each value to be explained."""
    wanted = asked(config)
    levels = {note.field: note.level for note in effective.notes}
    table = Table(title=f"Plan for {describe_machine(machine)}", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("parameter", no_wrap=True)
    table.add_column("effective", overflow="fold")
    table.add_column("asked", overflow="fold")
    table.add_column("unit", no_wrap=True, style="dim")
    for setting in settings():
        path = setting.path
        value = _show(effective_value(effective.plan, path))
        ask = _show(wanted[path]) if path in wanted else ""
        table.add_row(path, value, ask, setting.parameter.unit, style=_STYLES.get(levels.get(path, "")))
    console.print(table)
    for note in effective.notes:
        console.print(Text(note_as_line(note), style=_STYLES[note.level]), soft_wrap=True)


def describe_machine(machine: Machine) -> str:
    """`2 cores, 24.0 GiB, no GPU`."""
    gpu = "no GPU"
    if machine.gpu is not None:
        gpu = f"{machine.gpu.name} ({machine.gpu.memory_bytes / GIB:.0f} GiB)"
    return f"{machine.cores} cores, {machine.memory_bytes / GIB:.1f} GiB, {gpu}"


def effective_value(plan: EnginePlan, path: str) -> object:
    """The plan's value of a setting: top level, in its section, or for server settings in `plan.server`."""
    section, _, name = path.rpartition(".")
    if section:
        return getattr(getattr(plan, section), name)
    if path == "enable_kv_cache_quant":
        return plan.kv_cache_mode == "int8"
    return getattr(plan, path) if hasattr(plan, path) else getattr(plan.server, path)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)
