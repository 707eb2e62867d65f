"""The operator's settings: read once from the environment at start, checked, frozen, passed in.

In a cluster the chart sets them; `docs/operator.md` explains each. Nothing below this module reads the environment.
"""

from __future__ import annotations

import importlib.metadata
import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from ttsfleet_operator.api.base import CONFIG_KEY, DNS_1123_SUBDOMAIN
from ttsfleet_operator.errors import UsageError
from ttsfleet_operator.fleet.settings import ConfigMapKey, FleetSettings

PREFIX = "TTSFLEET_"
LEASE_NAME = "ttsfleet-operator"

T = TypeVar("T", bound=str)


@dataclass(frozen=True)
class Address:
    host: str
    port: int


@dataclass(frozen=True)
class OperatorSettings:
    """`watch_namespaces` empty = all. `identity` is unique to the process. `kubeconfig` "" = the usual places."""

    fleet: FleetSettings
    namespace: str = "ttsfleet-system"
    identity: str = ""
    watch_namespaces: tuple[str, ...] = ()
    read_nodes: bool = True
    service_monitors: bool = True
    leader_election: bool = True
    workers: int = 16
    metrics: Address = Address("0.0.0.0", 8080)
    health: Address = Address("0.0.0.0", 8081)
    probe_seconds: float = 60.0
    resync_seconds: float = 600.0
    kubeconfig: str = ""
    log_level: str = "info"
    log_format: Literal["text", "json"] = "json"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """What to list: each watched namespace, or "" for all at once."""
        return self.watch_namespaces or ("",)


def read_settings(environment: Mapping[str, str]) -> OperatorSettings:
    """The settings of this process. Raises UsageError that names the variable and what it may be."""
    reader = _Reader(environment)
    release = importlib.metadata.version("ttsfleet-operator")
    fleet = FleetSettings(
        release=release,
        runtime_image=reader.text("RUNTIME_IMAGE", f"ttsfleet/runtime:{release}"),
        image_pull_policy=reader.choice("IMAGE_PULL_POLICY", ("IfNotPresent", "Always", "Never")),
        image_pull_secrets=reader.items("IMAGE_PULL_SECRETS"),
        cluster_domain=reader.text("CLUSTER_DOMAIN", "cluster.local"),
        hugging_face_endpoint=reader.text("HUGGING_FACE_ENDPOINT"),
        model_scope_endpoint=reader.text("MODEL_SCOPE_ENDPOINT"),
        http_proxy=reader.text("HTTP_PROXY"),
        https_proxy=reader.text("HTTPS_PROXY"),
        no_proxy=reader.text("NO_PROXY"),
        ca_bundle=_ca_bundle(reader),
        denied_networks=_denied_networks(reader, environment.get("KUBERNETES_SERVICE_HOST", "")),
    )
    return OperatorSettings(
        fleet=fleet,
        namespace=reader.text("NAMESPACE", "ttsfleet-system"),
        identity=environment.get("POD_NAME") or socket.gethostname(),
        watch_namespaces=reader.items("WATCH_NAMESPACES"),
        read_nodes=reader.switch("READ_NODES", True),
        service_monitors=reader.switch("SERVICE_MONITORS", True),
        leader_election=reader.switch("LEADER_ELECTION", True),
        workers=reader.number("WORKERS", 16, 1, 256),
        metrics=reader.address("METRICS_ADDRESS", "0.0.0.0:8080"),
        health=reader.address("HEALTH_ADDRESS", "0.0.0.0:8081"),
        probe_seconds=float(reader.number("PROBE_SECONDS", 60, 1, 3600)),
        resync_seconds=float(reader.number("RESYNC_SECONDS", 600, 10, 86400)),
        kubeconfig=environment.get("KUBECONFIG", ""),
        log_level=reader.choice("LOG_LEVEL", ("info", "debug", "warning", "error")),
        log_format=reader.choice("LOG_FORMAT", ("json", "text")),
    )


def _ca_bundle(reader: _Reader) -> ConfigMapKey | None:
    name = reader.matching("CA_BUNDLE_CONFIG_MAP", "", DNS_1123_SUBDOMAIN, "the name of a ConfigMap")
    key = reader.matching("CA_BUNDLE_KEY", "ca.crt", CONFIG_KEY, "a key of a ConfigMap")
    return ConfigMapKey(name, key) if name else None


def _denied_networks(reader: _Reader, api_server: str) -> tuple[str, ...]:
    """The ranges that are named, and the API server's service address as every pod knows it."""
    try:
        own = (str(ipaddress.ip_network(api_server)),) if api_server else ()
    except ValueError:  # a host name: the ranges behind it must be named
        own = ()
    return tuple(dict.fromkeys((*reader.networks("DENIED_NETWORKS"), *own)))


class _Reader:
    """Typed values of environment variables, by their names without the prefix."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str = "") -> str:
        return self._environment.get(PREFIX + name, "").strip() or default

    def matching(self, name: str, default: str, pattern: str, meaning: str) -> str:
        value = self.text(name, default)
        if value and (len(value) > 253 or re.search(pattern, value) is None or value in (".", "..")):
            raise self._wrong(name, value, meaning)
        return value

    def items(self, name: str) -> tuple[str, ...]:
        return tuple(item.strip() for item in self.text(name).split(",") if item.strip())

    def networks(self, name: str) -> tuple[str, ...]:
        values = self.items(name)
        for value in values:
            try:
                ipaddress.ip_network(value)
            except ValueError:
                raise self._wrong(name, value, "IP ranges such as 10.0.0.1/32, separated by commas") from None
        return values

    def choice(self, name: str, allowed: tuple[T, ...]) -> T:
        """One of `allowed`; the first is the default."""
        value = self.text(name, allowed[0])
        for one in allowed:
            if value == one:
                return one
        raise self._wrong(name, value, " or ".join(allowed))

    def switch(self, name: str, default: bool) -> bool:
        value = self.text(name, str(default)).lower()
        if value not in ("true", "false"):
            raise self._wrong(name, value, "true or false")
        return value == "true"

    def number(self, name: str, default: int, least: int, most: int) -> int:
        value = self.text(name, str(default))
        if not value.isdigit() or not least <= int(value) <= most:
            raise self._wrong(name, value, f"a whole number from {least} to {most}")
        return int(value)

    def address(self, name: str, default: str) -> Address:
        value = self.text(name, default)
        host, colon, port = value.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            raise self._wrong(name, value, "host:port")
        return Address(host.strip("[]"), int(port))

    @staticmethod
    def _wrong(name: str, value: str, allowed: str) -> UsageError:
        return UsageError(f"{PREFIX}{name} is {value!r}; it must be {allowed}")
