"""What the annotations of the structs say: the type and marks of a field, and the struct that stands at a path."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import GroupedMetadata
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from ttsfleet_operator.api.documents import Path


def unwrapped(annotation: Any) -> tuple[Any, list[Any]]:
    """The type inside Optional and Annotated, with the marks found on the way."""
    marks: list[Any] = []
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            marks = [*flattened(more), *marks]
        elif origin in (Union, types.UnionType):
            (annotation,) = (one for one in get_args(annotation) if one is not type(None))
        else:
            return annotation, marks


def flattened(metadata: Sequence[Any]) -> Iterator[Any]:
    """Marks without the groups that pydantic puts them in."""
    for mark in metadata:
        if isinstance(mark, FieldInfo):
            yield from flattened(mark.metadata)
        elif isinstance(mark, GroupedMetadata) and not isinstance(mark, StringConstraints):
            yield from flattened(list(mark))
        else:
            yield mark


def is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def fields(struct: type[BaseModel]) -> Mapping[str, Any]:
    """The types of a struct's fields, without their marks, by wire name."""
    return {info.alias or name: unwrapped(info.annotation)[0] for name, info in struct.model_fields.items()}


def fields_at(root: type[BaseModel], path: Path) -> list[str]:
    """The wire names of the struct that stands at `path` below `root`; empty where there is none."""
    kind: Any = root
    for part in path:
        if isinstance(part, int):
            kind = unwrapped(get_args(kind)[0])[0] if get_origin(kind) is tuple else None
        else:
            kind = fields(kind).get(part) if is_struct(kind) else None
    return list(fields(kind)) if is_struct(kind) else []


def as_delivered(data: Any, kind: Any) -> Any:
    """`data` as the API server would hand it out: a null member is an absent one, and 3.0 is the integer 3."""
    if isinstance(data, float) and data.is_integer() and kind is not float:
        return int(data)
    if isinstance(data, list) and get_origin(kind) is tuple:
        item = unwrapped(get_args(kind)[0])[0]
        return [as_delivered(value, item) for value in data]
    if isinstance(data, dict) and get_origin(kind) is dict:
        return {key: value for key, value in data.items() if value is not None}
    if not isinstance(data, dict) or not is_struct(kind):
        return data
    known = fields(kind)
    return {
        key: as_delivered(value, known.get(key))
        for key, value in data.items()
        if value is not None or key not in known
    }
