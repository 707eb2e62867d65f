"""What a class's Deployment says: replicas, rollout, refused pods, missed deadline. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ttsfleet_operator.status.reasons import Finding
from ttsfleet_operator.status.refusals import explain_refusal
from ttsfleet_operator.status.wire import Raw, condition, count, part, read_time, text


@dataclass(frozen=True)
class Rollout:
    """The numbers of one Deployment. `settled` = every pod is of the newest template and available."""

    replicas: int
    ready: int
    settled: bool
    replacing: bool
    without_spare: bool
    refusal: Finding | None
    deadline_missed: bool


ABSENT = Rollout(0, 0, settled=False, replacing=False, without_spare=False, refusal=None, deadline_missed=False)


def read_rollout(deployment: Raw | None) -> Rollout:
    """The state of a Deployment; None = it does not exist (yet)."""
    if deployment is None:
        return ABSENT
    spec, status = part(deployment, "spec"), part(deployment, "status")
    wanted, replicas = count(spec, "replicas", 1), count(status, "replicas")
    updated, available = count(status, "updatedReplicas"), count(status, "availableReplicas")
    observed = count(status, "observedGeneration") >= count(part(deployment, "metadata"), "generation")
    replacing = observed and updated < replicas
    progressing = condition(deployment, "Progressing")
    surge = part(spec, "strategy", "rollingUpdate").get("maxSurge")
    return Rollout(
        replicas=replicas,
        ready=count(status, "readyReplicas"),
        settled=observed and updated == replicas == available == wanted,
        replacing=replacing,
        without_spare=replacing and wanted == 1 and surge in (0, "0", "0%"),
        refusal=_refusal(deployment),
        deadline_missed=progressing.get("status") == "False"
        and progressing.get("reason") == "ProgressDeadlineExceeded",
    )


def _refusal(deployment: Raw) -> Finding | None:
    """Why the API server creates no pods."""
    failure = condition(deployment, "ReplicaFailure")
    if failure.get("status") != "True":
        return None
    return explain_refusal(text(failure, "message"), read_time(text(failure, "lastTransitionTime")))
