"""What the operator knows besides the resource: its installation, and the ConfigMaps that a service refers to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ttsfleet_operator.api.service import TTSService


@dataclass(frozen=True)
class FleetSettings:
    """The installation's settings, parsed once at start.

    `runtime_image` is the release's; endpoints and proxies are the installation's defaults for the fetch step ("" =
    none); `service_monitors` says whether the cluster has that resource; `denied_networks` are IP ranges out of the
    pods' reach beside link-local ones: the API server's.
    """

    release: str
    runtime_image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    hugging_face_endpoint: str = ""
    model_scope_endpoint: str = ""
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    service_monitors: bool = False
    denied_networks: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class ConfigMapKey:
    """One key of a ConfigMap in the service's namespace."""

    name: str
    key: str

    def __str__(self) -> str:
        return f"{self.name}[{self.key}]"


@dataclass(frozen=True)
class References:
    """Hashes of the content of each referenced ConfigMap key; "" or absent = it does not exist (yet)."""

    hashes: Mapping[ConfigMapKey, str] = field(default_factory=dict)

    def hash_of(self, reference: ConfigMapKey) -> str:
        return self.hashes.get(reference, "")


def referenced_keys(service: TTSService) -> tuple[ConfigMapKey, ...]:
    """The ConfigMap keys that `service` refers to: the custom quantisation recipe and the CA bundle."""
    keys = []
    quant, network = service.spec.quant_config_ref, service.spec.network
    if quant is not None:
        keys.append(ConfigMapKey(quant.name, quant.key))
    if network is not None and network.ca_bundle_config_map_ref is not None:
        ca = network.ca_bundle_config_map_ref
        keys.append(ConfigMapKey(ca.name, ca.key))
    return tuple(keys)
