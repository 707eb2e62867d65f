"""What is wrong with one pod, from its object and its Events. Pure.

Of the kubelet's and the registry's words only known causes and names of objects are taken over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from ttsfleet_operator.status.fetch_codes import FETCH_CONTAINER, digest_of, fetch_reason
from ttsfleet_operator.status.mounts import missing_objects, mount_problem
from ttsfleet_operator.status.reasons import Finding, Reason, finding
from ttsfleet_operator.status.scheduler_message import explain_unschedulable
from ttsfleet_operator.status.wire import Raw, condition, count, items, part, read_time, text

_PULL_CAUSES = (
    (("not found", "manifest unknown", "does not exist"), "the registry has no such image or tag"),
    (
        ("unauthorized", "denied", "forbidden", "authentication", "no basic auth", "authorization failed"),
        "the registry denies access",
    ),
    (("toomanyrequests", "too many requests", "rate limit"), "the registry's rate limit is reached"),
    (("certificate", "x509", "tls:"), "the registry's certificate is not trusted"),
    (
        ("no such host", "timeout", "connection refused", "unreachable", "deadline exceeded", "i/o"),
        "the registry cannot be reached",
    ),
    (("no space left",), "the node's disk is full"),
    (("no match for platform",), "the image is not built for the node's architecture"),
    (("signature",), "the image's signature is not accepted"),
)
_SIGNALS = {134: "aborted", 137: "killed by a signal", 139: "segmentation fault", 143: "terminated by a signal"}
_PULL_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"}
)
_CREATE_REASONS = frozenset(
    {"CreateContainerError", "RunContainerError", "PostStartHookError", "CreatePodSandboxError"}
)
_RESOURCES = re.compile(r"low on resource: ([a-z-]+)")


def diagnose(pod: Raw, lost_nodes: Collection[str] = (), events: Sequence[Raw] = ()) -> Finding | None:
    """The worst thing that is wrong with the pod; None = nothing, or it just needs time.

    `events` may hold those of other pods. A pod that is being deleted has a problem only when its node is lost.
    """
    metadata, status = part(pod, "metadata"), part(pod, "status")
    if _node_lost(pod, lost_nodes):
        return finding(Reason.NODE_LOST, _since(pod, "Ready"))
    if text(status, "phase") == "Failed":
        return _failed(status)
    if metadata.get("deletionTimestamp") or text(status, "phase") == "Succeeded":
        return None
    found = [
        one
        for one in (_unscheduled(pod), mount_problem(pod, events), _lost_readiness(pod), *_containers(pod))
        if one is not None
    ]
    return min(found, key=lambda one: one.reason.rank, default=None)


def is_live(pod: Raw) -> bool:
    """Whether the pod may still come to serve: neither ended nor being deleted."""
    ended = text(part(pod, "status"), "phase") in ("Failed", "Succeeded")
    return not ended and not part(pod, "metadata").get("deletionTimestamp")


def is_ready(pod: Raw) -> bool:
    return is_live(pod) and condition(pod, "Ready").get("status") == "True"


def is_scheduled(pod: Raw) -> bool:
    return bool(text(part(pod, "spec"), "nodeName")) or condition(pod, "PodScheduled").get("status") == "True"


def has_model(pod: Raw) -> bool:
    """Whether the model is there for the pod: fetched by its init container, or nothing had to be fetched."""
    statuses = items(part(pod, "status"), "initContainerStatuses")
    fetch = next((one for one in statuses if one.get("name") == FETCH_CONTAINER), None)
    if fetch is not None:
        return part(fetch, "state", "terminated").get("exitCode") == 0
    if any(one.get("name") == FETCH_CONTAINER for one in items(part(pod, "spec"), "initContainers")):
        return False
    return any(part(one, "state", "running") for one in items(part(pod, "status"), "containerStatuses"))


def is_fetching(pod: Raw) -> bool:
    statuses = items(part(pod, "status"), "initContainerStatuses")
    return any(one.get("name") == FETCH_CONTAINER and part(one, "state", "running") for one in statuses)


def model_digest(pod: Raw) -> str:
    """The digest that the pod's fetch step reported, or ""."""
    for one in items(part(pod, "status"), "initContainerStatuses"):
        ended = part(one, "state", "terminated")
        if one.get("name") == FETCH_CONTAINER and ended.get("exitCode") == 0:
            return digest_of(text(ended, "message"))
    return ""


def _node_lost(pod: Raw, lost_nodes: Collection[str]) -> bool:
    disruption = condition(pod, "DisruptionTarget")
    by_taint = disruption.get("status") == "True" and disruption.get("reason") == "DeletionByTaintManager"
    ended = text(part(pod, "status"), "phase") == "Succeeded"
    on_lost_node = text(part(pod, "spec"), "nodeName") in lost_nodes
    return not ended and (text(part(pod, "status"), "reason") == "NodeLost" or by_taint or on_lost_node)


def _failed(status: Raw) -> Finding:
    reason = text(status, "reason")
    if reason in ("Evicted", "Preempting", "Preempted", "Terminated", "NodeShutdown", "Shutdown"):
        lack = _RESOURCES.search(text(status, "message"))
        cause = f"the node ran short of {lack[1]}" if lack else reason
        return finding(Reason.EVICTED, cause=cause)
    if reason and re.fullmatch(r"[A-Za-z]{1,40}", reason):
        return finding(Reason.NODE_REFUSED_POD, cause=reason)
    return finding(Reason.EVICTED, cause="it failed as a whole")


def _unscheduled(pod: Raw) -> Finding | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") != "False":
        return None
    since = read_time(text(scheduled, "lastTransitionTime"))
    if scheduled.get("reason") == "SchedulingGated":
        return finding(Reason.SCHEDULING_GATED, since, causes="a scheduling gate keeps the pod from the scheduler")
    if scheduled.get("reason") != "Unschedulable":
        return None
    why = explain_unschedulable(text(scheduled, "message"))
    return finding(why.reason, since, causes=why.causes)


def _lost_readiness(pod: Raw) -> Finding | None:
    """A container that was ready and is not any more; one that is still loading has no problem."""
    since = _since(pod, "Ready")
    if condition(pod, "Ready").get("status") != "False" or since is None:
        return None
    for one in items(part(pod, "status"), "containerStatuses"):
        started = read_time(text(part(one, "state", "running"), "startedAt"))
        if started is not None and not one.get("ready") and started < since:
            return finding(Reason.READINESS_FAILING, since)
    return None


def _containers(pod: Raw) -> Iterator[Finding | None]:
    for one in items(part(pod, "status"), "initContainerStatuses"):
        yield _waiting(one) or _init_failure(one)
    for one in items(part(pod, "status"), "containerStatuses"):
        yield _waiting(one) or _crash(one)


def _waiting(container: Raw) -> Finding | None:
    waiting = part(container, "state", "waiting")
    reason, words = text(waiting, "reason"), text(waiting, "message")
    image, name = text(container, "image"), text(container, "name")
    if reason == "InvalidImageName":
        return finding(Reason.INVALID_IMAGE_NAME, image=image)
    if reason in _PULL_REASONS or reason == "SignatureValidationFailed":
        return finding(Reason.IMAGE_PULL_BACK_OFF, image=image, cause=_pull_cause(reason, words))
    if reason == "CreateContainerConfigError":
        cause = missing_objects(words) or "a Secret or ConfigMap is missing, or the image's user is refused"
        return finding(Reason.CREATE_CONTAINER_CONFIG_ERROR, container=name, cause=cause)
    if reason in _CREATE_REASONS:
        return finding(Reason.CREATE_CONTAINER_ERROR, container=name, cause=reason)
    return None


def _pull_cause(reason: str, words: str) -> str:
    if reason == "ErrImageNeverPull":
        return "it is not on the node, and the pull policy is Never"
    lower = words.lower()
    return next(
        (cause for fragments, cause in _PULL_CAUSES if any(one in lower for one in fragments)), "see its Events"
    )


def _init_failure(container: Raw) -> Finding | None:
    """An init container that ended with 0 has done its work, however often it was tried before."""
    ended = _failure(container)
    if ended is None or not count(ended, "exitCode"):
        return None
    name, code = text(container, "name"), count(ended, "exitCode")
    if text(ended, "reason") == "OOMKilled":
        return finding(Reason.OOM_KILLED, container=name)
    if name == FETCH_CONTAINER:
        return finding(fetch_reason(code), code=code)
    return finding(Reason.INIT_FAILED, container=name, code=code)


def _crash(container: Raw) -> Finding | None:
    ended = None if container.get("ready") else _failure(container)
    if ended is None:
        return None
    name, code = text(container, "name"), count(ended, "exitCode")
    if text(ended, "reason") == "OOMKilled":
        return finding(Reason.OOM_KILLED, container=name)
    cause = f"exit code {code}, {_SIGNALS[code]}" if code in _SIGNALS else f"exit code {code}"
    return finding(Reason.CRASH_LOOP_BACK_OFF, container=name, cause=cause)


def _failure(container: Raw) -> Raw | None:
    """How the container last ended, if it ended and did not get well since."""
    state = part(container, "state")
    now, last = part(state, "terminated"), part(container, "lastState", "terminated")
    if now:
        return now if count(now, "exitCode") or count(container, "restartCount") else None
    looping = text(part(state, "waiting"), "reason") == "CrashLoopBackOff"
    return last if last and (count(last, "exitCode") or looping) else None


def _since(pod: Raw, kind: str) -> datetime | None:
    return read_time(text(condition(pod, kind), "lastTransitionTime"))
