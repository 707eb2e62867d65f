"""docs/engine-parameters.md, generated from the settings: `python -m ttsfleet_runtime.config.table > FILE`."""

from __future__ import annotations

import sys

from ttsfleet_runtime.config.engine import GROUPS, settings
from ttsfleet_runtime.config.parameter import Setting, Settings, walk

_INTRODUCTION = """\
# Parameters of the engine

Generated from the code (`make docs`); do not edit.

Every parameter can stand in `engine.yaml` and is a flag of `ttsfleet-runtime serve` under the same name; flags
override the file. All are optional: an absent one is planned by the default rule. `ttsfleet-runtime config` shows the
plan for this machine with the reason wherever a value is not the one that was asked for.

- **Default rule**: what the plan decides when the parameter is absent.
- **Allowed**: anything else is refused at start with a message that names the value and the remedy.
- **Guide**: what the tuning guide says, as value and range. **Recommended**: outside it a value is accepted with a
  warning.
- **GPU**: marked parameters act on a GPU only; on the CPU they are accepted and a note says so. *Later* marks those
  that this version accepts and checks without acting on them; the notes at start name what each one waits for.
"""

_HEADER = (
    "| Name | Meaning | Unit | Default rule | Allowed | Guide | Recommended | Acts on | GPU |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)

_SECTION_PREFIX = {"ThreadSettings": "threads.", "AffinitySettings": "cpu_affinity.", "LimitSettings": "limits."}


def render() -> str:
    """The whole document. Deterministic: a test compares it with the committed file."""
    known = {setting.path for setting in settings()}
    parts = [_INTRODUCTION]
    for group in GROUPS:
        rows = list(walk(group, _SECTION_PREFIX.get(group.__name__, "")))
        known -= {row.path for row in rows}
        parts.append(f"\n## {_title(group)}\n\n{_HEADER}" + "".join(_row(row) for row in rows))
    assert not known, f"settings without a group: {known}"
    parts.append("\n## Why a value outside the recommended range is doubtful\n\n" + _HEADER_REASONS)
    parts += [f"| `{s.path}` | {_range(s)} | {_cell(s.parameter.reason)} |\n" for s in settings() if _range(s)]
    return "".join(parts)


_HEADER_REASONS = "| Name | Recommended | Outside |\n|---|---|---|\n"


def _title(group: type[Settings]) -> str:
    return (group.__doc__ or group.__name__).strip().rstrip(".")


def _row(setting: Setting) -> str:
    parameter = setting.parameter
    gpu = parameter.gpu and ("yes; later" if parameter.pending else "yes") + f": {parameter.gpu}"
    flag = f"`{setting.path}`"
    cells = [
        flag,
        parameter.meaning,
        parameter.unit,
        parameter.default,
        setting.allowed(),
        parameter.guide,
        _range(setting),
        parameter.acts_on,
        gpu,
    ]
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |\n"


def _range(setting: Setting) -> str:
    recommended = setting.parameter.recommended
    return "" if recommended is None else f"{recommended[0]:.15g}–{recommended[1]:.15g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(render())
