"""What to do about one child: nothing, create it, repair it, or leave it to its owner. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from ttsfleet_operator.cluster.diff import Path, annotated, differences, stamp_of, stamped
from ttsfleet_operator.cluster.kinds import CLAIMS, SERVICES_OF_USERS
from ttsfleet_operator.labels import MANAGED_LABEL, RETAIN_ANNOTATION, SERVICE_LABEL

SPLIT = "ttsfleet.dev/replicas"
_REPLICAS: Path = ("spec", "replicas")

Raw: TypeAlias = Mapping[str, Any]


class Standing(Enum):
    """Whose object is it that has our child's name?"""

    ABSENT = "absent"
    OURS = "ours"
    FOREIGN = "foreign"
    LEFTOVER = "leftover"  # of a deleted TTSService of the same name: the garbage collector will take it


@dataclass(frozen=True)
class Comparison:
    """paths: where the live object differs. drift: it has our newest stamp, so somebody else changed it.

    scaled: replicas that somebody else chose since our last split; they are left alone.
    """

    body: dict[str, Any]
    paths: tuple[Path, ...]
    drift: bool
    scaled: int | None = None


def standing(desired: Raw, live: Raw | None, uid: str) -> Standing:
    """Whose the live object is, for the TTSService of that uid.

    A claim that outlives its TTSService has no owner: its labels and its annotation tell whose it was.
    """
    if live is None:
        return Standing.ABSENT
    if is_owned(live, uid):
        return Standing.OURS
    owners = live["metadata"].get("ownerReferences") or []
    service = desired["metadata"]["labels"][SERVICE_LABEL]
    if any((one.get("kind"), one.get("name")) == (SERVICES_OF_USERS.name, service) for one in owners):
        return Standing.LEFTOVER
    return Standing.OURS if not owners and _is_kept_claim(desired, live) else Standing.FOREIGN


def is_owned(live: Raw, uid: str) -> bool:
    return any(one.get("uid") == uid for one in live["metadata"].get("ownerReferences") or [])


def to_create(desired: Raw) -> dict[str, Any]:
    """What to apply where nothing is."""
    return stamped(_with_split(desired))


def compare(desired: Raw, live: Raw) -> Comparison:
    """Where the live object is not what we want, and the body that repairs it.

    The replicas of a Deployment are written once per change of the split. Between two changes the live value is
    repeated in the body, with the resource version as a condition, so that no other writer's value is ever undone.
    """
    body = to_create(desired)
    paths = differences(body, live)
    scaled = None
    if _is_split(desired) and _split_of(live) == _split_of(body):
        current = live["spec"].get("replicas")
        scaled = current if current != body["spec"]["replicas"] else None
        paths = [path for path in paths if path != _REPLICAS]
        body["spec"] = {**body["spec"], "replicas": current}
        body["metadata"] = {**body["metadata"], "resourceVersion": live["metadata"].get("resourceVersion")}
    return Comparison(body, tuple(paths), drift=stamp_of(live) == stamp_of(body), scaled=scaled)


def config_map_names(deployment: Raw) -> set[str]:
    """The ConfigMaps that a Deployment's or ReplicaSet's pods mount."""
    volumes: Sequence[Raw] = deployment["spec"]["template"]["spec"].get("volumes") or []
    names = {volume["configMap"].get("name", "") for volume in volumes if "configMap" in volume}
    for volume in volumes:
        sources = (volume.get("projected") or {}).get("sources") or []
        names |= {source["configMap"].get("name", "") for source in sources if "configMap" in source}
    return names - {""}


def _is_kept_claim(desired: Raw, live: Raw) -> bool:
    metadata = live["metadata"]
    labels, wanted = metadata.get("labels") or {}, desired["metadata"]["labels"]
    same = all(labels.get(name) == wanted.get(name) for name in (SERVICE_LABEL, MANAGED_LABEL))
    kept = (metadata.get("annotations") or {}).get(RETAIN_ANNOTATION) == "true"
    return desired["kind"] == CLAIMS.name and same and kept


def _is_split(desired: Raw) -> bool:
    return desired["kind"] == "Deployment" and "replicas" in desired["spec"]


def _split_of(manifest: Raw) -> str | None:
    return (manifest["metadata"].get("annotations") or {}).get(SPLIT)


def _with_split(desired: Raw) -> dict[str, Any]:
    return annotated(desired, SPLIT, str(desired["spec"]["replicas"])) if _is_split(desired) else dict(desired)
