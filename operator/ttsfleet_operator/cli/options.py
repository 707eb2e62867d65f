"""Options that several subcommands share, and the only place where the command reads the environment."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ttsfleet_operator.api.manifest import load_services
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.errors import UsageError
from ttsfleet_operator.launch import LaunchOptions


def add_manifest_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """`required=False` for a command that does something without a manifest too."""
    parser.add_argument("-f", "--file", type=Path, required=required, help="YAML file with a TTSService")
    parser.add_argument("--service", default="", help="which TTSService of the file, by name")


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--class", dest="class_name", default="", help="use this hardware class of the manifest")
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, whatever the classes ask for")
    parser.add_argument("--model-dir", default="", help="directory of the model, instead of spec.model.source")
    parser.add_argument("--quant-config", default="", help="recipe file of quant_type custom")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=port_number, default=8080, help="port of the API (default %(default)s)")
    parser.add_argument(
        "--management-port", type=port_number, default=8081, help="port of health and metrics (default %(default)s)"
    )
    add_start_arguments(parser)


def add_start_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state-dir", type=Path, help="where engine.yaml and the log go (default: user's state folder)"
    )
    parser.add_argument(
        "--ready-timeout", type=positive_number, default=600.0, help="seconds to wait for readiness (default 600)"
    )


def launch_options(arguments: argparse.Namespace) -> LaunchOptions:
    return LaunchOptions(
        class_name=arguments.class_name,
        force_cpu=arguments.cpu,
        model_dir=arguments.model_dir,
        quant_config=arguments.quant_config,
        host=arguments.host,
        port=arguments.port,
        management_port=arguments.management_port,
    )


def read_service(arguments: argparse.Namespace) -> TTSService:
    """The one TTSService of `--file` that is meant. Raises ManifestError or UsageError."""
    services = load_services(arguments.file)
    names = ", ".join(service.name for service in services)
    if arguments.service:
        for service in services:
            if service.name == arguments.service:
                return service
        raise UsageError(f"--service {arguments.service}: {arguments.file} holds {names}")
    if len(services) > 1:
        raise UsageError(f"{arguments.file} holds several services ({names}); choose one with --service")
    return services[0]


def state_dir(given: Path | None, name: str) -> Path:
    """`given`, else TTSFLEET_STATE_DIR or the XDG state folder, in a folder called `name`."""
    if given is not None:
        return given.expanduser().absolute()
    return state_root() / name


def state_root() -> Path:
    own = os.environ.get("TTSFLEET_STATE_DIR")
    if own:
        return Path(own).expanduser().absolute()
    xdg = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".local" / "state") / "ttsfleet"


def api_key(given: str) -> str:
    """The key for a server: the option, else TTSFLEET_API_KEY, else none."""
    return given or os.environ.get("TTSFLEET_API_KEY", "")


def port_number(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def positive_count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 1")
    return int(text)
