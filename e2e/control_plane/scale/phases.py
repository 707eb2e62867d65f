"""The scale run, phase by phase. What is known is handed out after each, and a phase that fails is recorded.

The script comes first, on an empty cluster, and its objects stay: the operator has the fuller one.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from control_plane.plane import ControlPlane
from control_plane.scale.load import Load, Told
from control_plane.scale.results import ScaleResult
from control_plane.scale.run import BASELINE, CROWD, ScaleRun, ScaleSettings, prepare

T = TypeVar("T")

Progress = Callable[[str], Told]
Save = Callable[[ScaleResult], None]


async def scale_run(plane: ControlPlane, settings: ScaleSettings, progress: Progress, save: Save) -> ScaleResult:
    """The whole run on a started control plane, as far as it makes sense after a phase that failed."""
    phases = Phases(_nothing_yet(settings), progress, save)
    preparing = asyncio.to_thread(prepare, plane, settings, (BASELINE, CROWD))
    await phases.run("preparation", "nodes and namespaces", lambda _: preparing, lambda known, _: known)
    if phases.result.failures:
        return phases.result
    async with Load.connected(plane.kubeconfig) as load:
        run = ScaleRun(plane, load, settings)
        try:
            await phases.run(
                "baseline",
                "a script applies the children",
                run.apply_by_script,
                lambda known, found: replace(known, baseline=found),
            )
            await phases.run(
                "creation",
                "the operator, from the first create",
                run.create_services,
                lambda known, found: replace(known, creation=found),
            )
            if phases.result.creation is None:  # what is not as wanted yet says nothing of a restart or a change
                return phases.result
            await phases.run(
                "restart",
                "a restart of the operator",
                lambda _: run.restart(),
                lambda known, found: replace(known, restart=found),
            )
            await phases.run(
                "change",
                "a spec change to all",
                run.change_services,
                lambda known, found: replace(known, change=found),
            )
        finally:
            run.stop()
    return phases.result


class Phases:
    """Runs phases one by one and keeps what they found in `result`."""

    def __init__(self, result: ScaleResult, progress: Progress, save: Save) -> None:
        self.result = result
        self._progress = progress
        self._save = save

    async def run(
        self,
        name: str,
        title: str,
        act: Callable[[Told], Awaitable[T]],
        keep: Callable[[ScaleResult, T], ScaleResult],
    ) -> None:
        """`act` gets whom to tell how many objects are as wanted; `keep` puts what it found into the result."""
        told = self._progress(title)
        try:
            self.result = keep(self.result, await act(told))
        except Exception as error:  # noqa: BLE001 - whatever ended a phase: what went before has taken long
            failures = {**self.result.failures, name: f"{type(error).__name__}: {error}"}
            self.result = replace(self.result, failures=failures)
        else:
            told(self.result.services)
        self._save(self.result)


def _nothing_yet(settings: ScaleSettings) -> ScaleResult:
    return ScaleResult(
        services=settings.services,
        nodes=settings.nodes,
        creators=settings.creators,
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cpus=os.cpu_count() or 0,
        load_before=os.getloadavg()[0],
    )
