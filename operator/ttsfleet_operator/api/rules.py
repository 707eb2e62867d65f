"""Rules over several fields, said once: the CEL that the API server evaluates, the check in Python, one sentence.

`Struct.RULES` lists the rules of a struct; `Annotated[..., rule]` puts one on a single value. The sentence is a
template; each placeholder has a CEL expression for the API server and a value from the check for Python, so both
refuse with the same words. A rule about a change (it names `oldSelf`) has no check: only the API server sees both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Check: TypeAlias = Callable[[Any], Mapping[str, object] | None]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Rule:
    """`cel` is true and `check` returns None where the rule holds; otherwise `check` returns the placeholders."""

    name: str
    cel: str
    message: str
    check: Check | None = None
    values: Mapping[str, str] = field(default_factory=dict)

    def enforce(self, value: Any) -> None:
        """Raise the pydantic error with the rule's sentence when `value` breaks it."""
        broken = self.check(value) if self.check is not None else None
        if broken is not None:
            text = _PLACEHOLDER.sub(lambda match: shown(broken[match[1]]), self.message)
            raise PydanticCustomError(self.name, "{text}", {"text": text})

    def validation(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`."""
        if not _PLACEHOLDER.search(self.message):
            return {"rule": self.cel, "message": self.message}
        return {"rule": self.cel, "messageExpression": self._message_expression()}

    def _message_expression(self) -> str:
        """`format`, not `+`: the API server's estimate of a sum of texts exceeds its budget."""
        names = _PLACEHOLDER.findall(self.message)
        arguments = ", ".join(self.values.get(name, f"self.{name}") for name in names)
        text = _PLACEHOLDER.sub("%s", self.message.replace("%", "%%"))
        return f"{cel_text(text)}.format([{arguments}])"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: Any) -> Any:
            self.enforce(value)
            return value

        return core_schema.no_info_after_validator_function(validate, handler(source))


def shown(value: object) -> str:
    """A value as CEL's `string()` writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def cel_text(text: str) -> str:
    """A CEL string literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def exactly_one(
    what: str, members: Mapping[str, str], values: Callable[[Any], Mapping[str, object]] | None = None
) -> Rule:
    """A union of optional members, wire name → attribute. `what` may hold placeholders, which `values` fills."""
    present = ", ".join(f"has(self.{wire})" for wire in members)

    def check(struct: Any) -> Mapping[str, object] | None:
        given = [wire for wire, attribute in members.items() if getattr(struct, attribute) is not None]
        if len(given) == 1:
            return None
        found = {wire: f" {wire}" if wire in given else "" for wire in members}
        return {**found, "none": "" if given else " none", **(values(struct) if values is not None else {})}

    return Rule(
        name="union",
        cel=f"[{present}].filter(given, given).size() == 1",
        message=f"{what} must have exactly one of {', '.join(members)}; found:"
        + "".join(f"{{{wire}}}" for wire in (*members, "none")),
        check=check,
        values={wire: f"has(self.{wire}) ? ' {wire}' : ''" for wire in members}
        | {"none": f"{' || '.join(f'has(self.{wire})' for wire in members)} ? '' : ' none'"},
    )


def unique_names(what: str, items: str, names: Callable[[Any], Iterable[str]], optional: bool = False) -> Rule:
    """The names of a list map differ. `items` is the list in CEL; `names` reads them in Python."""

    def check(value: Any) -> Mapping[str, object] | None:
        seen: set[str] = set()
        for name in names(value):
            if name in seen:
                return {"name": name}
            seen.add(name)
        return None

    guard = f"!has({items}) || " if optional else ""
    once = f"{items}.exists_one(b, b.name == a.name)"
    return Rule(
        name="duplicate_key",
        cel=f"{guard}{items}.all(a, {once})",
        message=f"two {what} are named '{{name}}'; names are identities and must differ",
        check=check,
        values={"name": f"{items}.filter(a, !{once})[0].name"},
    )
