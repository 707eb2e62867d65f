"""`cosyvoice2.yaml` as data: HyperPyYAML tags are kept, references and arithmetic are evaluated, nothing is run.

A published yaml describes Python objects to build (`!new:`, `!name:`, `!apply:`) and refers to other values
(`!ref <chunk_size> * <token_mel_ratio>`). Here a tagged node is only a `Tagged` value; references are resolved
when a value is asked for, so that the training half of a file may hold anything. No torch.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ttsfleet_runtime.errors import CheckpointError

Number = int | float
_REFERENCE = re.compile(r"<([^<>]+)>")
_MAX_DEPTH = 32
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True)
class Tagged:
    """A node with a tag, e.g. tag `new:cosyvoice.flow.flow.X`; `value` is what was written under it."""

    tag: str
    value: Any

    @property
    def class_name(self) -> str:
        """Last part of the dotted name: `X`."""
        return self.tag.rpartition(".")[2]


class _TagLoader(yaml.SafeLoader):
    """SafeLoader that keeps every `!tag` as data. Python tags (`!!python/...`) stay refused."""


def _construct_tagged(loader: _TagLoader, suffix: str, node: yaml.Node) -> Tagged:
    if isinstance(node, yaml.MappingNode):
        return Tagged(suffix, loader.construct_mapping(node, deep=True))
    if isinstance(node, yaml.SequenceNode):
        return Tagged(suffix, loader.construct_sequence(node, deep=True))
    return Tagged(suffix, loader.construct_scalar(node))  # type: ignore[arg-type]


_TagLoader.add_multi_constructor("!", _construct_tagged)


class Recipe:
    """A parsed yaml with typed access by dotted path, e.g. `recipe.integer("flow.encoder.num_blocks")`.

    Paths go through tagged nodes and references alike. All accessors raise CheckpointError with the file, the
    path and the value when it is missing or of another type.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            document = yaml.load(path.read_text(encoding="utf-8"), Loader=_TagLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            raise CheckpointError(f"{path}: cannot be read as yaml: {error}") from error
        if not isinstance(document, dict):
            raise CheckpointError(f"{path}: the document is not a mapping")
        self._document: dict[str, Any] = document

    def value(self, key: str) -> Any:
        """The resolved value at a dotted path; a tagged node is returned as `Tagged`."""
        return self._lookup(key, 0)

    def integer(self, key: str) -> int:
        value = self._number(key)
        if value != int(value):
            raise self._wrong(key, value, "a whole number")
        return int(value)

    def number(self, key: str) -> float:
        return float(self._number(key))

    def integers(self, key: str) -> list[int]:
        value = self.value(key)
        if not isinstance(value, list) or not all(_is_integer(item) for item in value):
            raise self._wrong(key, value, "a list of whole numbers")
        return list(value)

    def integer_lists(self, key: str) -> list[list[int]]:
        value = self.value(key)
        if not isinstance(value, list) or not all(
            isinstance(row, list) and all(_is_integer(item) for item in row) for row in value
        ):
            raise self._wrong(key, value, "a list of lists of whole numbers")
        return [list(row) for row in value]

    def require(self, key: str, expected: object) -> None:
        """Raise unless the value at `key` is `expected` (for a tagged node: its class name)."""
        value = self.value(key)
        if isinstance(value, Tagged):
            value = value.class_name
        if value != expected:
            raise self._wrong(key, value, f"{expected!r} (nothing else is implemented)")

    def _number(self, key: str) -> Number:
        value = self.value(key)
        if isinstance(value, str):
            # YAML 1.1 reads 1e-06 (no dot) as a string
            try:
                value = float(value)
            except ValueError:
                raise self._wrong(key, value, "a number") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, value, "a number")
        return value

    def _wrong(self, key: str, value: object, allowed: str) -> CheckpointError:
        shown = repr(value)
        return CheckpointError(f"{self.path}: {key} is {shown[:80]}, expected {allowed}")

    def _lookup(self, key: str, depth: int) -> Any:
        node: Any = self._document
        for part in key.split("."):
            if isinstance(node, Tagged):
                node = node.value
            if not isinstance(node, dict) or part not in node:
                raise CheckpointError(f"{self.path}: key {key} is missing")
            node = self._resolve(node[part], key, depth)
        return node

    def _resolve(self, node: Any, key: str, depth: int) -> Any:
        if isinstance(node, Tagged) and node.tag == "ref":
            return self._evaluate(str(node.value), key, depth + 1)
        return node

    def _evaluate(self, expression: str, key: str, depth: int) -> Any:
        """A reference: one `<name>` (any value), or arithmetic on several. Never runs anything."""
        if depth > _MAX_DEPTH:
            raise CheckpointError(f"{self.path}: {key}: references go in a circle (!ref {expression})")
        names = _REFERENCE.findall(expression)
        if _REFERENCE.fullmatch(expression.strip()):
            return self._lookup(names[0], depth)
        values = [self._lookup(name, depth) for name in names]
        if not all(isinstance(value, int | float) for value in values):
            # text around references, e.g. a path; none of the values read here is built that way
            return _REFERENCE.sub(lambda match: str(self._lookup(match[1], depth)), expression)
        numbers = iter(values)
        source = _REFERENCE.sub(lambda _: f"({next(numbers)!r})", expression)
        try:
            return _arithmetic(ast.parse(source.strip(), mode="eval").body)
        except (SyntaxError, ValueError, ArithmeticError) as error:
            raise CheckpointError(f"{self.path}: {key}: !ref {expression}: {error}") from error


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _arithmetic(node: ast.expr) -> Number:
    """+ - * / // % and signs on numbers; any other syntax is a ValueError."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        operand = _arithmetic(node.operand)
        return -operand if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_arithmetic(node.left), _arithmetic(node.right))
    raise ValueError("only + - * / // % on numbers and <references> are allowed")
