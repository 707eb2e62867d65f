"""What a TTSService may hold is what engine.yaml accepts: same names, and no value that only one side allows."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic.fields import FieldInfo

from ttsfleet_operator.api.engine import EngineOverrides, ServerOptions
from ttsfleet_runtime.config.engine import settings

FIELDS: dict[str, FieldInfo] = {**EngineOverrides.model_fields, **ServerOptions.model_fields}
SETTINGS = {setting.path: setting for setting in settings()}


def constraints(annotation: Any) -> tuple[Any, Any]:
    """(least, most) anywhere inside an annotation."""
    least = most = None
    for part in get_args(annotation):
        inner = constraints(part)
        metadata = getattr(part, "metadata", ())
        for constraint in metadata:
            least = getattr(constraint, "ge", getattr(constraint, "gt", least))
            most = getattr(constraint, "le", most)
        least, most = (inner[0] if least is None else least), (inner[1] if most is None else most)
    return least, most


@pytest.mark.parametrize("name", FIELDS)
def test_name_in_a_ttsservice_is_a_setting(name: str) -> None:
    assert name in SETTINGS


@pytest.mark.parametrize("name", [name for name in FIELDS if SETTINGS[name].kind in (int, float)])
def test_number_allowed_in_a_ttsservice_is_allowed_in_the_engine(name: str) -> None:
    least, most = constraints(FIELDS[name].annotation)
    allowed_least, allowed_most = SETTINGS[name].bounds
    assert least is not None
    assert most is not None
    assert allowed_least is not None
    assert allowed_most is not None
    assert allowed_least <= least
    assert most <= allowed_most
