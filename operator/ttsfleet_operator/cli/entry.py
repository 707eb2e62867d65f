"""Parsing and dispatch of `ttsfleet`. Each subcommand is one module with `add_arguments` and `execute`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from ttsfleet_operator.errors import TTSFleetError

COMMANDS = {
    "run": "plan a TTSService for this machine and serve it",
    "plan": "show what a TTSService becomes, value by value",
    "render": "print the objects that the operator would apply, or a compose file",
    "status": "explain a TTSService of a cluster: how it is, why, and what to do",
    "say": "speak a text through a running server, or a short-lived one",
    "check": "does a server speak: one sentence, measured",
    "bench": "measure any OpenAI-compatible speech server",
    "demo": "hear it: serve the tiny voice, speak, leave demo.wav",
    "version": "print the version",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parse(words)
    if arguments.command == "version":
        print(f"ttsfleet {version('ttsfleet-operator')}")
        return 0
    module = import_module(f"ttsfleet_operator.cli.{arguments.command}_command")
    try:
        return int(module.execute(arguments))
    except TTSFleetError as error:
        print(f"ttsfleet {arguments.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output left, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parse(words: list[str]) -> argparse.Namespace:
    """Only the chosen subcommand's module is imported, so that `--help` answers at once."""
    parser = argparse.ArgumentParser(
        prog="ttsfleet",
        description="Text to speech from one manifest: on this machine, or on a fleet.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ttsfleet {version('ttsfleet-operator')}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in words if not word.startswith("-")), "")
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=f"{summary}.", allow_abbrev=False)
        if name == chosen and name != "version":
            import_module(f"ttsfleet_operator.cli.{name}_command").add_arguments(subparser)
    return parser.parse_args(words)
