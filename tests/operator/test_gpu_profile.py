"""TTSGPUProfile: the same rows as profiles.yaml, one by one, judged as the API server judges them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ttsfleet_operator.api.gpu_profile import parse_gpu_profile
from ttsfleet_operator.profiles import Profile, builtin_profiles


def document(name: str, **spec: Any) -> dict[str, Any]:
    whole = {"memoryMiB": 24564, "computeCapability": "8.9", "engine": {"workers": 2}, **spec}
    return {"apiVersion": "ttsfleet.dev/v1alpha1", "kind": "TTSGPUProfile", "metadata": {"name": name}, "spec": whole}


@pytest.mark.parametrize("row", builtin_profiles().rows, ids=lambda row: row.name)
def test_every_builtin_row_can_be_written_as_a_profile(row: Profile) -> None:
    spec = row.model_dump(mode="json", exclude_unset=True)
    name = spec.pop("name")
    assert Profile.model_validate(parse_gpu_profile(document(name, **spec)).row(), strict=False) == row


def test_profile_of_a_builtin_name_replaces_the_row_and_a_new_one_adds_one() -> None:
    table = builtin_profiles()
    rows = [parse_gpu_profile(document(name)).row() for name in ("l4", "rtx-5090")]
    extended = table.extended([Profile.model_validate(row) for row in rows])
    assert len(extended.rows) == len(table.rows) + 1
    assert extended.named("l4").engine.given() == {"workers": 2}
    assert extended.named("rtx-5090").capability == (8, 9)


def test_higher_priority_comes_first_then_the_name() -> None:
    rows = [parse_gpu_profile(document(name, priority=value)).row() for name, value in (("b", 1), ("c", 2), ("a", 1))]
    extended = builtin_profiles().extended([Profile.model_validate(row) for row in rows])
    assert [row.name for row in extended.rows[:3]] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        pytest.param(document("x", computeCapability="ampere"), "should match pattern", id="family name"),
        pytest.param(document("x", computeCapability=8.9), "valid string", id="without quotes"),
        pytest.param(
            document("x", memoryMiB=0), "memoryMiB and computeCapability belong together", id="half a device"
        ),
        pytest.param(
            document("x", memoryMiB=0, computeCapability=""),
            "memoryMiB 0 (no device) is for the row cpu",
            id="no device",
        ),
        pytest.param(document("cpu"), "is for the row cpu alone, which has no other", id="a card called cpu"),
        pytest.param(
            document("x", computeCapability="8.6", engine={"quant_type": "triton-fp8w8a8-b128"}),
            "needs compute capability 8.9, this profile has 8.6; use triton_int8weight",
            id="fp8 too early",
        ),
        pytest.param(document("x", engine={"quant_type": "custom"}), "ask for it in the TTSService", id="custom"),
        pytest.param(document("x", engine={"worker": 1}), "Extra inputs are not permitted", id="unknown parameter"),
        pytest.param(document("a.b"), "should match pattern", id="name with a dot"),
    ],
)
def test_wrong_profile_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_gpu_profile(wrong)
    assert message in str(caught.value)
