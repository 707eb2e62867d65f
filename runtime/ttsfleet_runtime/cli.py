"""`ttsfleet-runtime`: the command that a pod runs, and its tools.

    serve            the runtime: router, encoders, LLM engines, decoders, HTTP
    config           the plan for this machine, without starting anything
    fetch            get the model, or check a mounted one, before serve
    convert          write the compute-ready form of a model into the cache
    make-checkpoint  a model directory with random weights, for benchmarks
    verify           run the golden cases through the production code
    version

Only this module reads the environment (and `verify` pins MKL's arithmetic in it): TTSFLEET_API_KEY or
TTSFLEET_API_KEY_FILE (serve), TTSFLEET_CACHE_DIR and TTSFLEET_VOICES_DIR (else XDG_CACHE_HOME, XDG_DATA_HOME, HOME).
Imports are made by the subcommand that needs them, so that `--help` answers at once. Exit codes: 0 done, 1 a check
failed, 2 a wrong value or input; `fetch` has its own (10 to 19).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ttsfleet_runtime.errors import ConfigError, TTSFleetError


@dataclass(frozen=True)
class Command:
    """A subcommand: `add_arguments` fills its parser, `run` does it. Both import what they need."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parse(words)
    except ConfigError as error:
        print(f"ttsfleet-runtime: {error.message}", file=sys.stderr)
        return 2
    try:
        return COMMANDS[arguments.command].run(arguments)
    except TTSFleetError as error:
        print(f"ttsfleet-runtime {arguments.command}: {error.message}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output left, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parse(words: list[str]) -> argparse.Namespace:
    """Parse the command line, giving only the chosen subcommand its (expensive) arguments."""
    parser = argparse.ArgumentParser(
        prog="ttsfleet-runtime", description="The ttsfleet text-to-speech runtime.", allow_abbrev=False
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.summary, description=command.summary, allow_abbrev=False)
        if name == chosen:
            command.add_arguments(subparser)
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        raise ConfigError(_explain_unknown(arguments.command, unknown[0]), param=unknown[0])
    return arguments


def _explain_unknown(command: str, word: str) -> str:
    from ttsfleet_runtime.config.flags import suggestion

    if command in ("serve", "config") and word.startswith("--"):
        return f"{word} is not an option of {command}; {suggestion(word[2:].partition('=')[0], prefix='--')}"
    return f"{word!r} is not expected here; `ttsfleet-runtime {command} --help` lists what is"


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    from ttsfleet_runtime.config import flags

    flags.add_arguments(parser)
    access = parser.add_argument_group("access")
    access.add_argument("--api-key", "--api_key", help="key that clients must send; visible in the process list")
    access.add_argument(
        "--api-key-file", "--api_key_file", metavar="PATH", help="file that holds the key (else TTSFLEET_API_KEY)"
    )


def _serve(arguments: argparse.Namespace) -> int:
    from ttsfleet_runtime.config import flags, locations

    config = locations.complete_locations(flags.read_config(arguments), os.environ)
    key = api_key(arguments)
    _, file = _key_source(arguments)
    from ttsfleet_runtime.router import main as router

    return router.run(config, key, None if file is None else Path(file))


def api_key(arguments: argparse.Namespace) -> str | None:
    """The key from the flag, the named file, TTSFLEET_API_KEY or TTSFLEET_API_KEY_FILE; None = open access."""
    from ttsfleet_runtime.server.key_file import usable_key

    key, file = _key_source(arguments)
    if key is None and file is None:
        return None
    if file is not None:
        try:
            key = Path(file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"api key file {file}: {error}; it must hold the key as text", param="api_key"
            ) from error
    return usable_key(key or "")


def _key_source(arguments: argparse.Namespace) -> tuple[str | None, str | None]:
    """The key that was given, or the file that holds it; at most one of them."""
    if arguments.api_key is not None and arguments.api_key_file is not None:
        raise ConfigError("--api-key and --api-key-file are both given; give one of them", param="api_key")
    if arguments.api_key is not None or arguments.api_key_file is not None:
        return arguments.api_key, arguments.api_key_file
    key = os.environ.get("TTSFLEET_API_KEY") or None
    return key, None if key else os.environ.get("TTSFLEET_API_KEY_FILE") or None


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    from ttsfleet_runtime.config import flags

    flags.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _config(arguments: argparse.Namespace) -> int:
    import json

    from rich.console import Console

    from ttsfleet_runtime.checkpoint.bundle import read_model_info
    from ttsfleet_runtime.checkpoint.cached import ensure_bundle
    from ttsfleet_runtime.config import flags, locations
    from ttsfleet_runtime.config.engine import styles_of
    from ttsfleet_runtime.config.machine import detect_machine
    from ttsfleet_runtime.config.report import print_plan, report
    from ttsfleet_runtime.config.resolve import choose_data_type, resolve

    wanted = flags.read_config(arguments)
    config = locations.complete_locations(wanted, os.environ)
    machine = detect_machine(config.device or "auto")
    data_type, _ = choose_data_type(config, machine)
    cache_dir = Path(str(config.cache_dir))
    bundle_dir = ensure_bundle(str(config.model_dir), cache_dir, dtype=data_type, styles=styles_of(config))
    effective = resolve(config, machine, read_model_info(bundle_dir))
    if arguments.json:
        print(json.dumps(report(effective, wanted, machine), indent=1))
    else:
        print_plan(Console(), effective, wanted, machine)
    return 0


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    from ttsfleet_runtime.fetch import command

    command.add_arguments(parser)


def _fetch(arguments: argparse.Namespace) -> int:
    from ttsfleet_runtime.fetch import command

    return command.run(arguments, os.environ)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    from ttsfleet_runtime.checkpoint import convert

    convert.add_arguments(parser)


def _convert(arguments: argparse.Namespace) -> int:
    from ttsfleet_runtime.checkpoint import convert
    from ttsfleet_runtime.config import locations

    arguments.cache = arguments.cache or locations.cache_dir(os.environ)
    return convert.run(arguments)


def _make_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    from ttsfleet_runtime.checkpoint import random_model

    random_model.add_arguments(parser)


def _make_checkpoint(arguments: argparse.Namespace) -> int:
    from ttsfleet_runtime.checkpoint import random_model

    return random_model.run(arguments)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    from ttsfleet_runtime.verify import runner

    runner.add_arguments(parser)


def _verify(arguments: argparse.Namespace) -> int:
    # The recorded mels of quiet bands are rounding noise of MKL's portable FFT, which MKL takes on AMD by itself and
    # on Intel only when told to (seen on a Xeon: 5e-3 instead of 1e-6 in v2/fe_tones_48k_odd). Read when MKL starts.
    os.environ.setdefault("MKL_CBWR", "COMPATIBLE")
    from ttsfleet_runtime.verify import runner

    return runner.run(arguments)


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    """For a command without any."""


def _version(arguments: argparse.Namespace) -> int:
    from importlib.metadata import version

    print(f"ttsfleet-runtime {version('ttsfleet-runtime')}")
    return 0


COMMANDS = {
    "serve": Command("serve a model over HTTP until a signal", _serve_arguments, _serve),
    "config": Command(
        "print the plan for this machine and why it differs from what is asked", _config_arguments, _config
    ),
    "fetch": Command("get the model that fetch.yaml names, or check a mounted one", _fetch_arguments, _fetch),
    "convert": Command("write the compute-ready form of a model into the cache", _convert_arguments, _convert),
    "make-checkpoint": Command(
        "write a model directory with random weights", _make_checkpoint_arguments, _make_checkpoint
    ),
    "verify": Command("run the golden cases through the production code", _verify_arguments, _verify),
    "version": Command("print the version", _no_arguments, _version),
}


if __name__ == "__main__":
    sys.exit(main())
