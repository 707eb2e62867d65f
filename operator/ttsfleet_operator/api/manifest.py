"""From a file with YAML documents to checked TTSServices, with every problem named by path, line and remedy.

The entry points are `load_services` (a file) and `parse_service` (data that is already parsed, as the API server
delivers it).
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ttsfleet_operator.api.base import PHRASES
from ttsfleet_operator.api.documents import Document, Path, dotted, read_documents
from ttsfleet_operator.api.service import API_VERSION, GROUP, KIND, TTSService
from ttsfleet_operator.api.shape import as_delivered, fields_at
from ttsfleet_operator.errors import ManifestError, ManifestProblem

_TYPES = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def load_services(path: FilePath) -> list[TTSService]:
    """Every TTSService of a file. Documents of other API groups are passed over.

    Raises ManifestError when the file cannot be read, holds no TTSService, or one that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ManifestError([ManifestProblem("", f"cannot be read: {reason}")], str(path)) from error
    return parse_services(text, str(path))


def parse_services(text: str, source: str = "") -> list[TTSService]:
    """As `load_services`, from a text. `source` names it in messages."""
    documents = read_documents(text, source)
    problems: list[ManifestProblem] = []
    services: list[TTSService] = []
    others: list[str] = []
    for document in documents:
        ours = _is_ours(document, problems)
        if not ours:
            others.append(str(document.data.get("kind", "?")) if isinstance(document.data, dict) else "?")
            continue
        try:
            services.append(_validate(document))
        except ManifestError as error:
            problems += error.problems
    if problems:
        raise ManifestError(problems, source)
    if not services:
        found = f"only {', '.join(others)}" if others else "nothing"
        message = f"holds no {KIND}; found {found}. It must begin with apiVersion: {API_VERSION}, kind: {KIND}"
        raise ManifestError([ManifestProblem("", message)], source)
    return services


def parse_service(data: Any) -> TTSService:
    """One TTSService from parsed data. Raises ManifestError."""
    return _validate(Document(data, {}))


def _is_ours(document: Document, problems: list[ManifestProblem]) -> bool:
    """Whether the document is meant to be a TTSService; wrong versions and misspelt kinds are problems."""
    data = document.data
    if not isinstance(data, dict):
        problems.append(ManifestProblem("", "a document must be a mapping", document.line(())))
        return False
    version, kind = data.get("apiVersion"), data.get("kind")
    for key, value in (("apiVersion", version), ("kind", kind)):
        if not isinstance(value, str):
            expected = API_VERSION if key == "apiVersion" else KIND
            problems.append(ManifestProblem(key, f"is required, e.g. {expected}", document.line(())))
    if not isinstance(version, str) or not isinstance(kind, str):
        return False
    group = version.split("/")[0]
    if version == API_VERSION and kind == KIND:
        return True
    if kind == KIND:
        message = f"is {version!r}; a {KIND} has {API_VERSION}"
        problems.append(ManifestProblem("apiVersion", message, document.line(("apiVersion",))))
    elif group == GROUP and kind.lower() == KIND.lower():
        problems.append(ManifestProblem("kind", f"is {kind!r}; did you mean {KIND}?", document.line(("kind",))))
    return False


def _validate(document: Document) -> TTSService:
    """Strictly; what only the API server would set right (a null, a 3.0) is looked at when that fails."""
    try:
        return TTSService.model_validate_json(json.dumps(document.data))
    except (ValidationError, TypeError, ValueError):
        return _validate_as_delivered(document)


def _validate_as_delivered(document: Document) -> TTSService:
    try:
        return TTSService.model_validate_json(json.dumps(as_delivered(document.data, TTSService)))
    except ValidationError as error:
        problems = [_problem(detail, document) for detail in _own_errors(error.errors())]
        raise ManifestError(problems) from None
    except (TypeError, ValueError) as error:
        raise ManifestError([ManifestProblem("", f"holds a value that JSON cannot carry: {error}")]) from error


def _own_errors(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without the echo of an error inside a list: pydantic then calls the list too short as well."""
    paths = [detail["loc"] for detail in details]
    return [
        detail
        for detail in details
        if detail["type"] != "too_short"
        or not any(path[: len(detail["loc"])] == detail["loc"] and path != detail["loc"] for path in paths)
    ]


def _problem(detail: ErrorDetails, document: Document) -> ManifestProblem:
    path: Path = tuple(detail["loc"])
    return ManifestProblem(dotted(path), _message(detail, path), document.line(path))


def _message(detail: ErrorDetails, path: Path) -> str:
    kind, value = detail["type"], detail["input"]
    context = detail.get("ctx", {})
    shown = _shown(value)
    if kind == "extra_forbidden":
        return f"unknown field{_did_you_mean(str(path[-1]), fields_at(TTSService, path[:-1]))}"
    if kind == "missing":
        return "is required"
    if kind == "literal_error":
        allowed = [word.strip().strip("'") for word in str(context["expected"]).replace(" or ", ",").split(",")]
        return f"is {shown}; allowed: {', '.join(allowed)}{_did_you_mean(str(value), allowed)}"
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        return f"is {shown}; must be {PHRASES.get(pattern, f'a match of {pattern}')}"
    if kind in ("too_short", "too_long"):
        limit = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"has {context['actual_length']} entries; must have {limit}"
    if kind in _TYPES:
        return f"is {shown}; must be {_TYPES[kind]}"
    if kind == "string_too_long":
        return f"is {shown}, {len(value)} characters; at most {context['max_length']}"
    bounds = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
    bounds |= {"greater_than": ("gt", "more than"), "less_than": ("lt", "less than")}
    if kind in bounds:
        key, word = bounds[kind]
        return f"is {shown}; must be {word} {context[key]}"
    return str(detail["msg"])


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "…"


def _did_you_mean(word: str, known: list[str]) -> str:
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {by_lower[close[0]]}?"
    return f"; known: {', '.join(known)}" if known and len(known) <= 16 else ""
