"""Is what we want already there? desired ⊆ live, in the terms of the Kubernetes API. Pure.

The API server adds defaults and other writers add fields, so equality says nothing. A desired value must be found in
the live object: mappings by key, keyed lists by their merge keys, other lists item by item, quantities by value
(`1000m` is `1`), ports and percentages as int-or-string. What only the live object has is none of our business; a
field that *we* no longer want shows as a difference of the stamp (see `stamped`).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str, ...]

STAMP = "ttsfleet.dev/applied-hash"

# The keys of list maps, as the API's schemas give them. A list that is not here is atomic.
_MERGE_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "containers": (("name",),),
    "initContainers": (("name",),),
    "env": (("name",),),
    "volumes": (("name",),),
    "volumeMounts": (("mountPath",),),
    "imagePullSecrets": (("name",),),
    "ownerReferences": (("uid",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "tolerations": (("key", "operator", "value", "effect"),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
}
_KEY_DEFAULTS = {"protocol": "TCP", "operator": "Equal", "value": "", "effect": "", "key": ""}
_QUANTITY_MAPS = frozenset({"requests", "limits"})
_QUANTITY_FIELDS = frozenset({"sizeLimit", "divisor"})
_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("0.001"),
    "": Decimal(1),
    **{letter: Decimal(1000) ** power for power, letter in enumerate(("k", "M", "G", "T", "P", "E"), start=1)},
    **{letter: Decimal(1024) ** power for power, letter in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}


def differences(desired: Mapping[str, Any], live: Mapping[str, Any]) -> list[Path]:
    """The paths of desired values that the live object lacks or has otherwise; empty = nothing to write."""
    return list(_in_mapping(desired, live, ()))


def shown(path: Path) -> str:
    """A path as a person writes it: `spec.template.spec.containers[name=runtime].image`."""
    text = ""
    for part in path:
        text += part if part.startswith("[") or not text else f".{part}"
    return text


def stamped(desired: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with a hash of itself as an annotation.

    A live object with another stamp holds something that we once wanted and now do not: a difference that desired ⊆
    live cannot see.
    """
    content = json.dumps(desired, sort_keys=True, separators=(",", ":"))
    return annotated(desired, STAMP, hashlib.sha256(content.encode()).hexdigest()[:16])


def annotated(manifest: Mapping[str, Any], name: str, value: str) -> dict[str, Any]:
    """The manifest with one more annotation. It shares with its original everything but metadata and annotations."""
    metadata = manifest.get("metadata", {})
    return {**manifest, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), name: value}}}


def stamp_of(manifest: Mapping[str, Any]) -> str:
    """The stamp that an object carries; empty when none."""
    return str((manifest.get("metadata", {}).get("annotations") or {}).get(STAMP, ""))


def without(desired: Mapping[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    """The manifest less some paths, as `differences` names them."""
    if not paths:
        return dict(desired)
    result = copy.deepcopy(dict(desired))
    for path in paths:
        _drop(result, path)
    return result


def quantity(value: object) -> Decimal | None:
    """The number that a Kubernetes quantity stands for; None when it is none."""
    text = str(value)
    for length in (2, 1, 0):
        suffix = text[len(text) - length :] if length else ""
        if suffix in _SUFFIXES:
            try:
                return Decimal(text[: len(text) - length]) * _SUFFIXES[suffix]
            except InvalidOperation:
                continue
    return None


def _in_mapping(desired: Mapping[str, Any], live: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for key, wanted in desired.items():
        yield from _in_value(wanted, live.get(key), (*path, key))


def _in_value(wanted: object, found: object, path: Path) -> Iterator[Path]:
    if isinstance(wanted, Mapping):
        if not wanted and not found:
            if found is None and len(path) > 1 and path[-1] in _MEANINGFUL_WHEN_EMPTY:
                yield path
            return
        if isinstance(found, Mapping):
            yield from _in_mapping(wanted, found, path)
        else:
            yield path
    elif isinstance(wanted, list | tuple):
        if wanted or found:
            yield from _in_list(wanted, found if isinstance(found, list | tuple) else [], path)
    elif not _equal(wanted, found, path):
        yield path


# `{}` says something in these places; elsewhere an empty mapping is as good as none.
_MEANINGFUL_WHEN_EMPTY = frozenset({"emptyDir", "podSelector", "namespaceSelector"})


def _in_list(wanted: Sequence[Any], found: Sequence[Any], path: Path) -> Iterator[Path]:
    keys = _merge_keys(path[-1], wanted)
    if keys is None:
        if len(wanted) != len(found) or any(
            True for pair in zip(wanted, found, strict=True) for _ in _item(pair, path)
        ):
            yield path
        return
    by_key = {_key(item, keys): item for item in found if isinstance(item, Mapping)}
    for item in wanted:
        key = _key(item, keys)
        yield from _in_value(item, by_key.get(key), (*path, _key_shown(keys, key)))


def _item(pair: tuple[Any, Any], path: Path) -> Iterator[Path]:
    return _in_value(pair[0], pair[1], (*path, "[]"))


def _merge_keys(name: str, items: Sequence[Any]) -> tuple[str, ...] | None:
    for keys in _MERGE_KEYS.get(name, ()):
        if items and all(isinstance(item, Mapping) and keys[0] in item for item in items):
            return keys
    if name == "tolerations" and items:
        return _MERGE_KEYS[name][0]
    return None


def _key(item: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[object, ...]:
    return tuple(item.get(key, _KEY_DEFAULTS.get(key)) for key in keys)


def _key_shown(keys: tuple[str, ...], key: tuple[object, ...]) -> str:
    return "[" + ",".join(f"{name}={value}" for name, value in zip(keys, key, strict=True)) + "]"


def _equal(wanted: object, found: object, path: Path) -> bool:
    if wanted is None or wanted == "":
        return found is None or found == ""
    if wanted == found and isinstance(wanted, bool) == isinstance(found, bool):
        return True
    if found is None:
        return wanted is False or (
            wanted == 0 and not isinstance(wanted, bool) and path[-1] not in _ZERO_IS_NO_DEFAULT
        )
    if _is_quantity(path):
        number = quantity(wanted)
        return number is not None and number == quantity(found)
    mixed = {type(wanted), type(found)} == {int, str}
    return mixed and str(wanted) == str(found)


# Numbers whose absence the API server reads as something other than 0.
_ZERO_IS_NO_DEFAULT = frozenset({"replicas", "maxSurge", "maxUnavailable", "minAvailable", "revisionHistoryLimit"})


def _is_quantity(path: Path) -> bool:
    return path[-1] in _QUANTITY_FIELDS or (len(path) > 1 and path[-2] in _QUANTITY_MAPS)


def _drop(node: Any, path: Path) -> None:
    head, rest = path[0], path[1:]
    if head.startswith("["):
        return
    if not rest:
        node.pop(head, None)
        return
    child = node.get(head)
    if isinstance(child, list) and rest[0].startswith("["):
        _drop_from_list(child, head, rest)
    elif isinstance(child, dict):
        _drop(child, rest)


def _drop_from_list(items: list[Any], name: str, path: Path) -> None:
    keys = _merge_keys(name, items)
    if keys is None:
        return
    for item in list(items):
        if _key_shown(keys, _key(item, keys)) == path[0]:
            if len(path) > 1:
                _drop(item, path[1:])
            else:
                items.remove(item)
