"""What the operator knows besides the resource: its installation, and the ConfigMaps that a service refers to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.pod_layout import FETCHED_SOURCES


@dataclass(frozen=True, order=True)
class ConfigMapKey:
    """One key of a ConfigMap in the service's namespace."""

    name: str
    key: str

    def __str__(self) -> str:
        return f"{self.name}[{self.key}]"


@dataclass(frozen=True)
class FleetSettings:
    """The installation's settings, parsed once at start.

    `runtime_image` is the release's; endpoints, proxies and `ca_bundle` are the installation's defaults for the fetch
    step ("" and None = none; the ConfigMap must be in every service's namespace); `service_monitors` says whether the
    cluster has that resource; `denied_networks` are IP ranges out of the pods' reach beside link-local ones: the API
    server's.
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
    ca_bundle: ConfigMapKey | None = None
    service_monitors: bool = False
    denied_networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class References:
    """Hashes of the content of each referenced ConfigMap key; "" or absent = it does not exist (yet)."""

    hashes: Mapping[ConfigMapKey, str] = field(default_factory=dict)

    def hash_of(self, reference: ConfigMapKey) -> str:
        return self.hashes.get(reference, "")


def referenced_keys(service: TTSService) -> tuple[ConfigMapKey, ...]:
    """The ConfigMap keys that `service` refers to: the custom quantisation recipe and the CA bundle."""
    keys = []
    quant = service.spec.quant_config_ref
    if quant is not None:
        keys.append(ConfigMapKey(quant.name, quant.key))
    ca = own_ca_bundle(service)
    if ca is not None:
        keys.append(ca)
    return tuple(keys)


def own_ca_bundle(service: TTSService) -> ConfigMapKey | None:
    """The certificates that `service` names itself."""
    network = service.spec.network
    if network is None or network.ca_bundle_config_map_ref is None:
        return None
    return ConfigMapKey(network.ca_bundle_config_map_ref.name, network.ca_bundle_config_map_ref.key)


def installation_ca_bundle(service: TTSService, settings: FleetSettings) -> ConfigMapKey | None:
    """The installation's certificates, for a service that fetches over the network and names none itself.

    Not among `referenced_keys`: only a fetch reads them, so their content is no reason to replace a pod.
    """
    fetches = service.spec.model.source.kind in FETCHED_SOURCES
    return settings.ca_bundle if fetches and own_ca_bundle(service) is None else None


def takeover_keys(service: TTSService, settings: FleetSettings) -> tuple[ConfigMapKey, ...]:
    """What must exist, beside `referenced_keys`, before today's plan replaces one in force by itself."""
    rollout = service.spec.rollout
    ca = installation_ca_bundle(service, settings)
    automatic = rollout is not None and rollout.plan_changes == "Automatic"
    return (ca,) if automatic and ca is not None else ()
