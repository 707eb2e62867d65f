"""The launch of the tiny service on free ports of this machine, for `say` and `demo`."""

from __future__ import annotations

from pathlib import Path

from ttsfleet_operator.launch import Launch, LaunchOptions, prepare_launch
from ttsfleet_operator.local_server import free_ports
from ttsfleet_operator.machine import detect_machine
from ttsfleet_operator.profiles import builtin_profiles
from ttsfleet_operator.tiny import tiny_service


def tiny_launch(state_dir: Path) -> Launch:
    """Ports are free now; a clash in the moment until they are bound shows as a failed start."""
    port, management_port = free_ports(2)
    options = LaunchOptions(port=port, management_port=management_port)
    return prepare_launch(tiny_service(), builtin_profiles(), detect_machine(), options, state_dir)
