"""`ttsfleet run`: plan a TTSService for this machine, start the pod's command as local processes, serve."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from rich.console import Console

from ttsfleet_operator.cli.options import (
    add_launch_arguments,
    add_manifest_arguments,
    launch_options,
    read_service,
    state_dir,
)
from ttsfleet_operator.cli.serving import StopRequests, serving
from ttsfleet_operator.cluster_notes import cluster_notes
from ttsfleet_operator.errors import ServerStartError
from ttsfleet_operator.launch import Launch, prepare_launch
from ttsfleet_operator.local_server import LocalServer
from ttsfleet_operator.machine import detect_machine
from ttsfleet_operator.profiles import builtin_profiles


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_manifest_arguments(parser)
    add_launch_arguments(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Serve until a signal. 0 after a clean stop, 1 when the runtime ended by itself or with an error."""
    service = read_service(arguments)
    folder = state_dir(arguments.state_dir, service.name)
    launch = prepare_launch(service, builtin_profiles(), detect_machine(), launch_options(arguments), folder)
    console = Console()
    describe(launch, console)
    for note in cluster_notes(service):
        console.print(f"  [dim]{note}[/dim]", highlight=False, soft_wrap=True)
    return asyncio.run(_serve(launch, folder, arguments.ready_timeout, console))


def describe(launch: Launch, console: Console) -> None:
    """What is about to start, in a few lines."""
    plan, engine = launch.plan, launch.plan.engine()
    console.print(
        f"[bold]{launch.service.name}[/bold]: class {plan.class_name} on {plan.site.product} "
        f"({plan.site.cores} cores), profile {plan.profile.name}",
        highlight=False,
        soft_wrap=True,
    )
    sizes = ("workers", "encode_process_num", "decode_process_num", "data_type")
    shown = ", ".join(f"{name} {engine[name]}" for name in sizes)
    console.print(f"  plan: {shown}; about {plan.memory.total_mib} MiB", highlight=False, soft_wrap=True)
    for warning in plan.warnings:
        console.print(f"  [yellow]warning[/yellow]: {warning}", highlight=False, soft_wrap=True)
    console.print(f"  config: {launch.config_path}", highlight=False, soft_wrap=True)
    console.print(f"  command: {' '.join(launch.command.arguments)}", highlight=False, soft_wrap=True)


async def _serve(launch: Launch, folder: Path, ready_timeout_seconds: float, console: Console) -> int:
    stop = StopRequests()
    stop.install()
    try:
        async with serving(launch, folder, ready_timeout_seconds, console, stop) as server:
            _announce(launch, console)
            await _until_end(server, stop)
            console.print("stopping: streams that run may finish; Ctrl-C again to cut them")
            code = await server.stop(impatient=stop.impatient)
    except KeyboardInterrupt:
        console.print("stopped before it was ready")
        return 130
    finally:
        stop.remove()
    console.print("stopped")
    return 0 if code == 0 else 1


async def _until_end(server: LocalServer, stop: StopRequests) -> None:
    """Until a stop is asked. Raises ServerStartError when the runtime ends first."""
    ended = asyncio.create_task(server.wait())
    asked = asyncio.create_task(stop.asked.wait())
    await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
    for task in (ended, asked):
        task.cancel()
    if not stop.asked.is_set():
        raise ServerStartError(f"the runtime ended by itself\n{server.tail()}")


def _announce(launch: Launch, console: Console) -> None:
    console.print(f"[bold green]ready[/bold green]  {launch.url}/v1/audio/speech", highlight=False, soft_wrap=True)
    console.print(f"  health and metrics: {launch.management_url}/readyz, /metrics, /status", highlight=False)
    console.print(f'  try: ttsfleet say "Hello there." --url {launch.url}', highlight=False, soft_wrap=True)
    console.print("  Ctrl-C stops it")
