"""Every parameter is documented, and the committed table is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ttsfleet_runtime.config.engine import settings
from ttsfleet_runtime.config.parameter import Setting
from ttsfleet_runtime.config.table import render

TABLE = Path(__file__).parents[2] / "docs" / "engine-parameters.md"

GUIDE_NAMES = [
    "encode_process_num",
    "encode_paral_num",
    "encode_max_batch_size",
    "gpt_paral_num",
    "batch_max_tokens",
    "router_max_wait_tokens",
    "decode_process_num",
    "decode_paral_num",
    "decode_max_batch_size",
    "graph_max_batch_size",
    "graph_max_len_in_batch",
    "disable_cudagraph",
    "max_total_token_num",
    "max_req_total_len",
    "cache_capacity",
    "kv_cache_mode",
    "enable_kv_cache_quant",
    "quant_type",
    "custom_cfg_path",
    "data_type",
    "load_trt",
    "trt_max_batch_size",
    "trt_precision",
    "trt_workspace_size",
    "use_flash_attention",
    "fa_kernel_type",
    "enable_gqa",
    "gqa_group_size",
    "httpserver_workers",
    "worker_connections",
    "max_requests",
    "max_requests_jitter",
    "timeout",
    "keepalive",
    "ws_max_size",
    "ws_ping_interval",
    "ws_ping_timeout",
    "ws_max_queue",
    "workers",
]


@pytest.mark.parametrize("name", GUIDE_NAMES)
def test_guides_parameter_exists_under_its_name(name: str) -> None:
    assert name in {setting.path for setting in settings()}


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.path)
def test_parameter_says_what_it_means(setting: Setting) -> None:
    parameter = setting.parameter
    assert parameter.meaning
    assert parameter.default
    assert parameter.acts_on
    assert bool(parameter.recommended) == bool(parameter.reason)
    if parameter.recommended:
        least, most = setting.bounds
        assert least is not None
        assert least <= parameter.recommended[0] < parameter.recommended[1]
        assert most is None or parameter.recommended[1] <= most


def test_committed_table_is_what_the_code_says() -> None:
    assert TABLE.read_text() == render(), "run `make docs`"
