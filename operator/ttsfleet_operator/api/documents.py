"""YAML to plain data with the line of every value. Knows nothing of TTSService.

It reads YAML 1.1 as kubectl does, whose plain scalars differ a little from PyYAML's; unlike there, a key given twice
is an error, since the loser would vanish silently. Sizes are bounded: aliases cannot expand without limit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from ttsfleet_operator.errors import ManifestError, ManifestProblem

Path: TypeAlias = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_NODES = 50_000
MAX_DEPTH = 64


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads plain scalars as kubectl does: `y` and `n` are booleans, `1e3` is a number, a timestamp
    and `22:30` are text."""


_BOOLEANS = {
    word: value for value, words in ((True, "y yes true on"), (False, "n no false off")) for word in words.split()
}
_SCALARS = {
    "bool": (r"^(?:[yYnN]|[yY]es|YES|[nN]o|NO|[tT]rue|TRUE|[fF]alse|FALSE|[oO]n|ON|[oO]ff|OFF)$", "yYnNtTfFoO"),
    "int": (r"^[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$", "-+0123456789"),
    "float": (
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
}
_REPLACED = {f"tag:yaml.org,2002:{name}" for name in (*_SCALARS, "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), list(_first))


def _integer(text: str) -> int:
    """`010` is octal as YAML 1.1 has it, `08` is 8."""
    digits = text.replace("_", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if digits[:2].lower() in ("0b", "0o", "0x"):
        return sign * int(digits, 0)
    octal = digits.startswith("0") and not set(digits) - set("01234567")
    return sign * int(digits, 8 if octal else 10)


_Loader.add_constructor("tag:yaml.org,2002:bool", lambda _, node: _BOOLEANS[node.value.lower()])
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: _integer(node.value))


@dataclass(frozen=True)
class Document:
    """One YAML document: its data, and the 1-based line where each path stands."""

    data: Any
    lines: dict[Path, int]

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of its nearest ancestor that is in the text."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


@dataclass
class _Walk:
    loader: _Loader
    source: str
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[ManifestProblem] = field(default_factory=list)
    nodes: int = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(path) > MAX_DEPTH:
            raise ManifestError(
                [ManifestProblem("", "the document is too deep or too large; is an alias referring to itself?")],
                self.source,
            )
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        try:
            return self.loader.construct_object(node, deep=True)
        except (AttributeError, KeyError, ValueError):  # an explicit tag on a text that is no such value
            message = f"{node.value!r} is not a value of its tag {node.tag}; remove the tag"
            self.problems.append(ManifestProblem(dotted(path), message, node.start_mark.line + 1))
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        written = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        self._report_duplicates(node, written, path)
        self.loader.flatten_mapping(node)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                message = f"the key {key!r} is not a string; quote it"
                self.problems.append(ManifestProblem(dotted(path), message, line))
                continue
            self.lines[(*path, key)] = line
            result[key] = self.build(value_node, (*path, key))
        return result

    def _report_duplicates(self, node: yaml.MappingNode, written: list[str], path: Path) -> None:
        seen: set[str] = set()
        for (key_node, _), key in zip(node.value, written, strict=False):
            if key in seen and key != "<<":
                line = key_node.start_mark.line + 1
                message = "is given twice in one mapping; remove one"
                self.problems.append(ManifestProblem(dotted((*path, key)), message, line))
            seen.add(key)


def dotted(path: Path) -> str:
    """`("spec", "classes", 0)` as `spec.classes[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_documents(text: str, source: str = "") -> list[Document]:
    """All non-empty documents of a YAML text. Raises ManifestError with line numbers."""
    if len(text.encode()) > MAX_BYTES:
        raise ManifestError([ManifestProblem("", f"is larger than {MAX_BYTES} bytes")], source)
    loader = _Loader(text)
    documents: list[Document] = []
    problems: list[ManifestProblem] = []
    try:
        while loader.check_node():
            root = loader.get_node()
            if root is None:
                break
            walk = _Walk(loader, source)
            data = walk.build(root, ())
            problems += walk.problems
            if data is not None:
                documents.append(Document(data, walk.lines))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else None
        reason = getattr(error, "problem", None) or str(error)
        raise ManifestError([ManifestProblem("", f"is not valid YAML: {reason}", line)], source) from error
    finally:
        loader.dispose()
    if problems:
        raise ManifestError(problems, source)
    return documents
