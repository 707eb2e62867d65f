"""The sizing table and the memory model."""

from __future__ import annotations

import pytest

from ttsfleet_operator.errors import PlanError, ProfileError
from ttsfleet_operator.machine import parse_gpu_list
from ttsfleet_operator.memory import COSYVOICE2, estimate_gpu, guess_shape, kv_bytes_per_token
from ttsfleet_operator.plan_rules import guide_values
from ttsfleet_operator.profiles import (
    FP8_CAPABILITY,
    TENSORRT_RTX_CAPABILITIES,
    builtin_profiles,
    generic_profile,
    read_profiles,
)

TABLE = builtin_profiles()


@pytest.mark.parametrize(
    ("product", "memory_mib", "name"),
    [
        ("NVIDIA-GeForce-RTX-4090", 24564, "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", None, "rtx-4090"),
        ("NVIDIA-L4-SHARED", 23034, "l4"),
        ("nvidia-l4", None, "l4"),
        ("nvidia-tesla-t4", None, "t4"),
        ("NVIDIA-GeForce-RTX-3080", 10240, "rtx-3080-10gb"),
        ("NVIDIA-GeForce-RTX-3080", 12288, "rtx-3080-12gb"),
        ("NVIDIA-A10", 21500, "a10"),
        ("rtx-4090", None, "rtx-4090"),
        ("NVIDIA-H100-NVL", None, "h100-nvl"),
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", None, None),
        ("Voodoo-3", None, None),
    ],
)
def test_label_finds_its_row(product: str, memory_mib: int | None, name: str | None) -> None:
    profile = TABLE.match(product, memory_mib)
    assert (profile.name if profile else None) == name


def test_rows_respect_what_the_cards_can_do() -> None:
    for row in TABLE.rows:
        if row.engine.quant_type == "triton-fp8w8a8-b128":
            assert row.capability >= FP8_CAPABILITY, row.name
        if row.engine.load_trt:
            assert row.capability in TENSORRT_RTX_CAPABILITIES, row.name
        if row.engine.data_type == "bf16":
            assert row.capability >= (8, 0), row.name


def test_added_row_replaces_one_of_its_name() -> None:
    row = TABLE.named("l4").model_copy(update={"memory_mib": 1})
    assert TABLE.extended([row]).named("l4").memory_mib == 1
    assert len(TABLE.extended([row]).rows) == len(TABLE.rows)


def test_unknown_profile_suggests_the_nearest() -> None:
    with pytest.raises(PlanError, match="did you mean rtx-4090"):
        TABLE.named("rtx4090")


def test_malformed_table_names_row_and_field() -> None:
    with pytest.raises(ProfileError, match=r"profiles\[0\]\.memoryMiB"):
        read_profiles("profiles: [{name: x, computeCapability: '8.0', engine: {}}]")


@pytest.mark.parametrize(
    ("memory_mib", "capability", "workers", "quant_type", "data_type"),
    [
        (11264, (7, 5), 1, "triton_int8weight", "fp16"),
        (24000, (8, 6), 2, "triton_int8weight", "bf16"),
        (49152, (12, 0), 4, "triton-fp8w8a8-b128", "bf16"),
    ],
)
def test_generic_row_follows_memory_and_capability(
    memory_mib: int, capability: tuple[int, int], workers: int, quant_type: str, data_type: str
) -> None:
    engine = generic_profile(memory_mib, capability).engine
    assert (engine.workers, engine.quant_type, engine.data_type) == (workers, quant_type, data_type)


def test_kv_cache_of_the_released_model_is_12_kib_a_token() -> None:
    assert kv_bytes_per_token(COSYVOICE2, "bf16", "none") == 12 * 1024
    assert kv_bytes_per_token(COSYVOICE2, "bf16", "int8") == 24 * 2 * 2 * 66


def _engine(**changes: object) -> dict[str, object]:
    return {name: value for name, (value, _) in guide_values(True, 8).items()} | changes


def _total(**changes: object) -> int:
    return estimate_gpu(COSYVOICE2, _engine(**changes), 24564, 0).total_mib


def test_every_lever_of_the_memory_model_moves_the_estimate() -> None:
    base = _total()
    assert _total(workers=2) == pytest.approx(2 * base, rel=0.01)
    assert _total(quant_type="triton_int8weight") < base
    assert _total(kv_cache_mode="int8") < base
    assert _total(data_type="fp32") > base
    assert _total(max_total_token_num=131072) - base == pytest.approx(768, abs=2)
    assert _total(decode_process_num=2) > base
    assert _total(decode_process_num=0) == base - 450
    assert _total(disable_cudagraph=True) < base
    assert _total(load_trt=True) > base
    assert _total(batch_max_tokens=16384) > base
    assert _total(decode_max_batch_size=16) > base


@pytest.mark.parametrize(
    ("hint", "name", "known"),
    [
        ("FunAudioLLM/CosyVoice2-0.5B", "cosyvoice2-0.5b", True),
        ("FunAudioLLM/Fun-CosyVoice3-0.5B-2512", "cosyvoice3-0.5b", True),
        ("tiny-en", "tiny-en", True),
        ("someone/voice", "cosyvoice3-0.5b", False),
    ],
)
def test_model_is_guessed_from_its_source(hint: str, name: str, known: bool) -> None:
    shape, sure = guess_shape(hint)
    assert (shape.name, sure) == (name, known)


def test_nvidia_smi_lines_become_devices() -> None:
    answer = "0, NVIDIA GeForce RTX 4090, 24564, 8.9\n1, NVIDIA L4, 23034, [N/A]\nNo devices\n"
    first, second = parse_gpu_list(answer)
    assert (first.product, first.memory_mib, first.capability) == ("NVIDIA-GeForce-RTX-4090", 24564, (8, 9))
    assert second.capability == (0, 0)
