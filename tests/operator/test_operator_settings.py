"""The operator's environment: defaults, types, and messages that name the variable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ttsfleet_operator.errors import UsageError
from ttsfleet_operator.fleet.settings import ConfigMapKey
from ttsfleet_operator.operator_settings import Address, read_settings


def test_without_anything_the_operator_serves_all_namespaces() -> None:
    settings = read_settings({})
    assert (settings.watch_namespaces, settings.namespaces, settings.read_nodes) == ((), ("",), True)
    assert settings.fleet.runtime_image.endswith(f":{settings.fleet.release}")
    assert settings.metrics == Address("0.0.0.0", 8080)


def test_given_values_are_read() -> None:
    settings = read_settings(
        {
            "TTSFLEET_WATCH_NAMESPACES": "a, b,",
            "TTSFLEET_READ_NODES": "False",
            "TTSFLEET_RUNTIME_IMAGE": "mirror/runtime:1",
            "TTSFLEET_HEALTH_ADDRESS": "[::]:9",
            "POD_NAME": "operator-7",
        }
    )
    assert settings.namespaces == ("a", "b")
    assert (settings.read_nodes, settings.identity) == (False, "operator-7")
    assert settings.fleet.runtime_image == "mirror/runtime:1"
    assert settings.health == Address("::", 9)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"CONFIG_MAP": "corporate-ca"}, ConfigMapKey("corporate-ca", "ca.crt"), id="the usual key"),
        pytest.param({"CONFIG_MAP": "a.b", "KEY": "all.pem"}, ConfigMapKey("a.b", "all.pem"), id="another key"),
        pytest.param({"KEY": "all.pem"}, None, id="a key alone"),
    ],
)
def test_private_ca_of_the_installation(given: dict[str, str], expected: ConfigMapKey | None) -> None:
    environment = {f"TTSFLEET_CA_BUNDLE_{name}": value for name, value in given.items()}
    assert read_settings(environment).fleet.ca_bundle == expected


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("READ_NODES", "maybe", "true or false"),
        ("WORKERS", "0", "a whole number from 1 to 256"),
        ("METRICS_ADDRESS", "8080", "host:port"),
        ("LOG_FORMAT", "xml", "json or text"),
        ("CA_BUNDLE_CONFIG_MAP", "speech/ca", "the name of a ConfigMap"),
        ("CA_BUNDLE_KEY", "..", "a key of a ConfigMap"),
        ("IMAGE_PULL_POLICY", "Sometimes", "IfNotPresent or Always or Never"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(
        UsageError, match=f"TTSFLEET_{name} is '{value.lower()}'|TTSFLEET_{name} is '{value}'"
    ) as error:
        read_settings({f"TTSFLEET_{name}": value})
    assert allowed in str(error.value)


def test_process_without_a_cluster_says_what_to_do(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "ttsfleet_operator.operator_main"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "run it in a pod, or name a kubeconfig in KUBECONFIG" in ended.stderr
