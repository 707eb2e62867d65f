"""When a rollout goes on without a surge pod: the surge pod found no room for `surgeWaitSeconds`. Pure.

A rollout begins with one pod too many. Where no spare device is there for it, it would wait for ever; then an old pod
goes first. When the rollout is over, the next one begins with a surge pod again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ttsfleet_operator.api.workload import RolloutSpec
from ttsfleet_operator.status.deployments import read_rollout
from ttsfleet_operator.status.wire import Raw, condition, part, read_time, text


@dataclass(frozen=True)
class SurgeDecision:
    """`look_again_seconds`: when a wait will be over; None = nothing waits."""

    without_surge: bool
    look_again_seconds: float | None = None


WITH_SURGE = SurgeDecision(without_surge=False)


def decide_surge(
    rollout: RolloutSpec | None, deployment: Raw | None, pods: Sequence[Raw], now: datetime
) -> SurgeDecision:
    """Whether the class's pods are replaced without a surge pod. Only `surge: Auto` asks."""
    spec = rollout or RolloutSpec()
    if spec.surge != "Auto" or deployment is None:
        return WITH_SURGE
    state = read_rollout(deployment)
    if _is_without(deployment):
        return SurgeDecision(without_surge=not state.settled)
    if not state.replacing:
        return WITH_SURGE
    waits = [waited for pod in pods if (waited := _unscheduled_seconds(pod, now)) is not None]
    if not waits:
        return WITH_SURGE
    left = spec.surge_wait_seconds - max(waits)
    return (
        SurgeDecision(without_surge=True)
        if left <= 0
        else SurgeDecision(without_surge=False, look_again_seconds=left)
    )


def _is_without(deployment: Raw) -> bool:
    return part(deployment, "spec", "strategy", "rollingUpdate").get("maxSurge") in (0, "0", "0%")


def _unscheduled_seconds(pod: Raw, now: datetime) -> float | None:
    """How long a pod has had no node; None when it has one or is ending."""
    if text(part(pod, "metadata"), "deletionTimestamp"):
        return None
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") != "False":
        return None
    since = read_time(text(scheduled, "lastTransitionTime"))
    return None if since is None else (now - since).total_seconds()
