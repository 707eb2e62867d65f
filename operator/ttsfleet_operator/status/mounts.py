"""Why a pod's volumes are not mounted, from Events. Pure.

Nothing else says it: the pod just stays in ContainerCreating. The kubelet repeats its Events as long as the trouble
lasts, at first within seconds, later every few minutes, and each volume has its own. Of their words only known causes
and names of objects are taken over; several causes are told in one order, so that the message does not alternate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from ttsfleet_operator.status.reasons import Finding, Reason, finding
from ttsfleet_operator.status.wire import Raw, condition, items, part, read_time, text

PATIENCE = timedelta(seconds=10)
MEMORY = timedelta(minutes=10)
MOUNT_REASONS = frozenset({"FailedMount", "FailedAttachVolume"})
MAX_MISSING = 3
_BEFORE_START = frozenset({"", "ContainerCreating", "PodInitializing"})

_MISSING_OBJECT = re.compile(
    r"\b(secret|configmap|persistentvolumeclaim)s? \"([-.a-z0-9]{1,253})\" not found", re.IGNORECASE
)
_MISSING_KEY = re.compile(r"couldn't find key ([-._A-Za-z0-9]+) in (Secret|ConfigMap) ([-./a-z0-9]+)")
_MISSING_ITEM = re.compile(r"references non-existent (secret|config) key: ([-._A-Za-z0-9]+)")
_KINDS = {"secret": "Secret", "configmap": "ConfigMap", "persistentvolumeclaim": "claim"}

# Fragments of the kubelet's and the drivers' words, all lower case; of several causes the first counts.
_CAUSES = (
    (
        ("multi-attach", "exclusively attached", "already used by pod"),
        "it is attached to another node, and its claim allows only one (accessModes)",
    ),
    (("pvc is being deleted",), "its claim is being deleted"),
    (("pvc is not bound",), "its claim is not bound"),
    (("list of registered csi drivers",), "the node lacks the driver of its StorageClass"),
    (("access denied", "permission denied", "not permitted", "forbidden"), "the storage denies access"),
    (("no space left",), "the node's disk is full"),
    (("wrong fs type", "bad superblock", "needs cleaning"), "its file system cannot be read"),
    (
        ("no such host", "connection refused", "no route to host", "connection timed out", "i/o timeout"),
        "the storage cannot be reached",
    ),
    (("timed out waiting", "deadline exceeded", "timeout"), "it was not there in time"),
)
_UNKNOWN = "the pod's Events tell why"


def waits_for_volumes(pod: Raw, now: datetime) -> bool:
    """Whether the pod has had a node for a while and nothing of it has started: its Events may say why."""
    scheduled = condition(pod, "PodScheduled")
    since = read_time(text(scheduled, "lastTransitionTime"))
    waited = scheduled.get("status") == "True" and since is not None and now - since >= PATIENCE
    return waited and text(part(pod, "status"), "phase") == "Pending" and not _has_volumes(pod)


def mount_problem(pod: Raw, events: Sequence[Raw]) -> Finding | None:
    """What keeps the pod's volumes from it; None = nothing is known, or it has them. `events` may hold others."""
    about = [] if _has_volumes(pod) else [one for one in events if _is_about(one, pod)]
    if not about:
        return None
    newest = max(_time(one) for one in about)
    recent = [one for one in about if newest - _time(one) <= MEMORY]
    began = [read_time(text(one, "firstTimestamp")) for one in recent]
    since = min((one for one in began if one is not None), default=None)
    return finding(
        Reason.VOLUME_MOUNT_FAILED, since, cause=_cause([text(one, "message") or text(one, "note") for one in recent])
    )


def missing_objects(words: str) -> str:
    """`Secret hf is missing`, from a kubelet's words; "" when they say something else."""
    return " and ".join(sorted(_missing(words))[:MAX_MISSING])


def _has_volumes(pod: Raw) -> bool:
    """The kubelet mounts all volumes before it makes the sandbox, pulls an image or starts a container."""
    if condition(pod, "PodReadyToStartContainers").get("status") == "True":
        return True
    status = part(pod, "status")
    return any(
        part(one, "state", "running")
        or part(one, "state", "terminated")
        or text(part(one, "state", "waiting"), "reason") not in _BEFORE_START
        for one in (*items(status, "initContainerStatuses"), *items(status, "containerStatuses"))
    )


def _is_about(event: Raw, pod: Raw) -> bool:
    about, metadata = part(event, "involvedObject") or part(event, "regarding"), part(pod, "metadata")
    same = text(about, "name") == text(metadata, "name") and text(about, "uid") in ("", text(metadata, "uid"))
    return same and text(event, "reason") in MOUNT_REASONS


def _time(event: Raw) -> datetime:
    """When the Event was last seen."""
    times = (text(part(event, "series"), "lastObservedTime"), text(event, "lastTimestamp"), text(event, "eventTime"))
    known = [found for found in map(read_time, times) if found is not None]
    return max(known, default=datetime.min.replace(tzinfo=UTC))


def _cause(messages: Iterable[str]) -> str:
    words = " ".join(messages)
    lower = words.lower()
    known = (cause for fragments, cause in _CAUSES if any(one in lower for one in fragments))
    return missing_objects(words) or next(known, _UNKNOWN)


def _missing(words: str) -> set[str]:
    found = {f"{_KINDS[kind.lower()]} {name} is missing" for kind, name in _MISSING_OBJECT.findall(words)}
    found |= {f"{kind} {name.rpartition('/')[2]} has no key {key}" for key, kind, name in _MISSING_KEY.findall(words)}
    kinds = {"secret": "Secret", "config": "ConfigMap"}
    return found | {f"a {kinds[kind]} has no key {key}" for kind, key in _MISSING_ITEM.findall(words)}
