"""Why the API server refuses an object, from its words. Pure.

The words themselves are not repeated: an admission webhook could say anything in them. Names and field paths are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from ttsfleet_operator.status.reasons import Finding, Reason, finding

_QUOTA = re.compile(r"exceeded quota: ([^,\s]+), requested: (.*?), used:")
_LEVEL = re.compile(r"violates PodSecurity \"([a-z]+)")
_WEBHOOK = re.compile(r"admission webhook \"([-.a-zA-Z0-9]+)\"")
_POLICY = re.compile(r"ValidatingAdmissionPolicy '([-.a-zA-Z0-9]+)'")
_RBAC = re.compile(r"is forbidden: User \"[^\"]*\" cannot delete resource")
_ACCOUNT = re.compile(r"serviceaccount \"([-.a-z0-9]+)\" not found", re.IGNORECASE)
_PRIORITY = re.compile(r"no PriorityClass with name \"?([-.a-z0-9]+)\"? was found")
_RUNTIME = re.compile(r"RuntimeClass \"([-.a-z0-9]+)\" not found", re.IGNORECASE)
_RUNTIME_KIND = re.compile(r"runtimeclasses?\.node\.k8s\.io \"([-.a-z0-9]+)\" not found", re.IGNORECASE)
_LIMIT_RANGE = re.compile(r"(maximum|minimum) \S+ usage per (Container|Pod)|limit to request ratio")
_FIELD = re.compile(r"\b(?:spec|metadata|data)(?:\.[A-Za-z][A-Za-z0-9]*|\[[0-9]+\])+")
MAX_FIELDS = 4


def explain_refusal(words: str, since: datetime | None = None) -> Finding:
    """Why the pods of a Deployment are refused."""
    return _known(words, since, "the pods") or finding(Reason.PODS_REFUSED, since)


def explain_refusals(refusals: Sequence[str]) -> Finding:
    """Why children are refused; each entry is `Kind/name: the server's words`. The first by name counts."""
    first = min(refusals)
    name, _, words = first.partition(": ")
    known = _known(words, None, name)
    if known is not None:
        return known
    fields = list(dict.fromkeys(_FIELD.findall(words)))[:MAX_FIELDS]
    return finding(Reason.APPLY_REFUSED, object=name, fields=", ".join(fields) or "see the operator's log")


def explain_undeleted(undeleted: Sequence[str]) -> Finding:
    """Why children stay that are not wanted any more; entries as in `explain_refusals`, of which the first counts."""
    name, _, words = min(undeleted).partition(": ")
    causes = (
        (_WEBHOOK, "admission webhook {}"),
        (_POLICY, "admission policy {}"),
        (_RBAC, "its role lacks the verb"),
    )
    found = ((pattern.search(words), form) for pattern, form in causes)
    cause = next((form.format(*match.groups()) for match, form in found if match), "see the operator's log")
    return finding(Reason.DELETE_REFUSED, object=name, cause=cause)


def _known(words: str, since: datetime | None, objects: str) -> Finding | None:
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
            return finding(reason, since, objects=objects, **{fact: form.format(found[1])})
    if _LIMIT_RANGE.search(words):
        return finding(Reason.LIMIT_RANGE_EXCEEDED, since)
    return None
