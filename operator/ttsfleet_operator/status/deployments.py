"""What a class's Deployment says: replicas, rollout, refused pods, missed deadline. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ttsfleet_operator.status.reasons import Finding, Reason, finding
from ttsfleet_operator.status.wire import Raw, condition, count, part, read_time, text

_QUOTA = re.compile(r"exceeded quota: ([^,\s]+), requested: (.*?), used:")
_LEVEL = re.compile(r"violates PodSecurity \"([a-z]+)")
_WEBHOOK = re.compile(r"admission webhook \"([-.a-zA-Z0-9]+)\"")
_POLICY = re.compile(r"ValidatingAdmissionPolicy '([-.a-zA-Z0-9]+)'")
_ACCOUNT = re.compile(r"serviceaccount \"([-.a-z0-9]+)\" not found", re.IGNORECASE)
_PRIORITY = re.compile(r"no PriorityClass with name \"?([-.a-z0-9]+)\"? was found")
_RUNTIME = re.compile(r"RuntimeClass \"([-.a-z0-9]+)\" not found", re.IGNORECASE)
_RUNTIME_KIND = re.compile(r"runtimeclasses?\.node\.k8s\.io \"([-.a-z0-9]+)\" not found", re.IGNORECASE)
_LIMIT_RANGE = re.compile(r"(maximum|minimum) \S+ usage per (Container|Pod)|limit to request ratio")


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
    """Why the API server creates no pods. Its words are not repeated: a webhook could say anything in them."""
    failure = condition(deployment, "ReplicaFailure")
    if failure.get("status") != "True":
        return None
    words, since = text(failure, "message"), read_time(text(failure, "lastTransitionTime"))
    quota = _QUOTA.search(words)
    if quota is not None:
        resources = ", ".join(one.split("=")[0].strip() for one in quota[2].split(","))
        return finding(Reason.QUOTA_EXCEEDED, since, quota=quota[1], resources=resources)
    named = (
        (_WEBHOOK, Reason.ADMISSION_DENIED, "webhook", "admission webhook {}"),
        (_POLICY, Reason.ADMISSION_DENIED, "webhook", "admission policy {}"),
        (_LEVEL, Reason.POD_SECURITY_REFUSED, "level", "{}"),
        (_ACCOUNT, Reason.SERVICE_ACCOUNT_MISSING, "name", "{}"),
        (_PRIORITY, Reason.PRIORITY_CLASS_MISSING, "name", "{}"),
        (_RUNTIME, Reason.RUNTIME_CLASS_MISSING, "name", "{}"),
        (_RUNTIME_KIND, Reason.RUNTIME_CLASS_MISSING, "name", "{}"),
    )
    for pattern, reason, fact, form in named:
        found = pattern.search(words)
        if found is not None:
            return finding(reason, since, **{fact: form.format(found[1])})
    if _LIMIT_RANGE.search(words):
        return finding(Reason.LIMIT_RANGE_EXCEEDED, since)
    return finding(Reason.PODS_REFUSED, since)
