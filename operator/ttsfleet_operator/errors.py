"""The errors that a person can cause, as the command prints them and the operator turns into conditions.

Every message says what was wrong, the value, and the remedy. `exit_code` is what the `ttsfleet` command returns.
"""

from __future__ import annotations

from dataclasses import dataclass


class TTSFleetError(Exception):
    """Base of everything that is reported to a person without a traceback."""

    exit_code = 1


class UsageError(TTSFleetError):
    """The command line asks for something that does not exist or contradicts itself."""

    exit_code = 2


@dataclass(frozen=True)
class ManifestProblem:
    """One thing wrong in a manifest. `path` is dotted as in the YAML; `line` is 1-based, None when unknown."""

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class ManifestError(TTSFleetError):
    """A TTSService (or a document that should be one) that is refused, with every problem found."""

    exit_code = 2

    def __init__(self, problems: list[ManifestProblem], source: str = "") -> None:
        self.problems = problems
        self.source = source
        heading = f"{source}: " if source else ""
        lines = [f"{heading}{problem}" for problem in problems]
        super().__init__("\n".join(lines))


class PlanError(TTSFleetError):
    """No plan exists for what was asked: no class fits this machine, or a profile is unknown."""


class ProfileError(TTSFleetError):
    """The sizing table, or a row added to it, is malformed."""


class ServerStartError(TTSFleetError):
    """The runtime could not be started, ended early, or did not become ready in time."""


class SpeechError(TTSFleetError):
    """A speech server refused a request or answered with something that is not audio."""
