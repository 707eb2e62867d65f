"""The `ttsfleet` command. `main` parses, dispatches and turns errors into exit codes: 0 ok, 1 failure, 2 usage."""

from ttsfleet_operator.cli.entry import main

__all__ = ["main"]
