"""Volumes of a pod and where the containers mount them.

One list per container: the serving one never sees the credentials of the fetch, the fetching one no API key. Secrets
and ConfigMaps are mounted as directories, never by subPath, so that a rotated Secret arrives in a running pod.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.bundle import ENGINE_KEY
from ttsfleet_operator.fleet.settings import FleetSettings, installation_ca_bundle, own_ca_bundle
from ttsfleet_operator.manifests.fetch_config import needs_fetch
from ttsfleet_operator.manifests.names import FETCH_KEY, Manifest, claim_name
from ttsfleet_operator.pod_layout import (
    API_KEY_DIR,
    API_KEY_FILE,
    CA_DIR,
    CACHE_DIR,
    CONFIG_DIR,
    CREDENTIALS_DIR,
    MOUNTED_MODEL_DIR,
    QUANT_DIR,
    SHARED_MEMORY_DIR,
    TEMPORARY_DIR,
    TOKEN_FILE,
    VOICES_DIR,
)

ENGINE_VOLUME = "engine"
_SECRET_MODE = 0o440  # readable by the pod's group, which fsGroup makes ours


@dataclass
class Storage:
    """The volumes of a pod, and what each of its two containers mounts."""

    volumes: list[Manifest] = field(default_factory=list)
    serving: list[Manifest] = field(default_factory=list)
    fetching: list[Manifest] = field(default_factory=list)

    def add(self, name: str, source: Manifest) -> None:
        self.volumes.append({"name": name, **source})


def pod_storage(service: TTSService, shared_memory: str, settings: FleetSettings) -> Storage:
    """Everything that a pod of `service` mounts. The engine volume's ConfigMap has no name yet."""
    storage = Storage()
    _add_common(storage, service, shared_memory)
    _add_model(storage, service)
    _add_recipe(storage, service)
    _add_certificates(storage, service, settings)
    _add_api_key(storage, service)
    if not needs_fetch(service):
        storage.fetching.clear()
    return storage


def _add_common(storage: Storage, service: TTSService, shared_memory: str) -> None:
    keys = [ENGINE_KEY, FETCH_KEY] if needs_fetch(service) else [ENGINE_KEY]
    items = [{"key": key, "path": key} for key in keys]
    storage.add(ENGINE_VOLUME, {"configMap": {"name": "", "items": items}})
    storage.add("shm", {"emptyDir": {"medium": "Memory", "sizeLimit": shared_memory}})
    storage.add("tmp", {"emptyDir": {}})
    storage.add("cache", _cache(service))
    storage.add("voices", {"emptyDir": {}})
    storage.serving += [
        _mount(ENGINE_VOLUME, CONFIG_DIR, read_only=True),
        _mount("shm", SHARED_MEMORY_DIR),
        _mount("tmp", TEMPORARY_DIR),
        _mount("cache", CACHE_DIR),
        _mount("voices", VOICES_DIR),
    ]
    storage.fetching += [
        _mount(ENGINE_VOLUME, CONFIG_DIR, read_only=True),
        _mount("tmp", TEMPORARY_DIR),
        _mount("cache", CACHE_DIR),
    ]


def _cache(service: TTSService) -> Manifest:
    cache = service.spec.model.cache
    if cache is None:
        return {"emptyDir": {}}
    return {"persistentVolumeClaim": {"claimName": cache.existing_claim or claim_name(service.name)}}


def _add_model(storage: Storage, service: TTSService) -> None:
    """A mounted model is read-only in both containers; a fetched one lies in the cache, its secret in the fetch."""
    source = service.spec.model.source
    sub_path = ""
    if source.pvc is not None:
        storage.add("model", {"persistentVolumeClaim": {"claimName": source.pvc.claim_name, "readOnly": True}})
        sub_path = source.pvc.sub_path
    elif source.oci is not None:
        storage.add("model", {"image": {"reference": source.oci.reference, "pullPolicy": source.oci.pull_policy}})
    if source.pvc is not None or source.oci is not None:
        for mounts in (storage.serving, storage.fetching):
            mounts.append(_mount("model", MOUNTED_MODEL_DIR, read_only=True, sub_path=sub_path))
    hub = source.hugging_face or source.model_scope
    if hub is not None and hub.token_secret_ref is not None:
        token = hub.token_secret_ref
        storage.add("credentials", _secret(token.name, token.key, TOKEN_FILE))
    elif source.s3 is not None and source.s3.secret_ref is not None:
        storage.add("credentials", _secret(source.s3.secret_ref.name))
    else:
        return
    storage.fetching.append(_mount("credentials", CREDENTIALS_DIR, read_only=True))


def _add_recipe(storage: Storage, service: TTSService) -> None:
    quant = service.spec.quant_config_ref
    if quant is not None:
        storage.add("quant", _config_map(quant.name, quant.key))
        storage.serving.append(_mount("quant", QUANT_DIR, read_only=True))


def _add_certificates(storage: Storage, service: TTSService, settings: FleetSettings) -> None:
    """The service's own certificates in both containers, or the installation's in the fetch.

    Never `optional`: a fetch without them would fail for an untrusted certificate, whereas the kubelet names the
    missing ConfigMap and goes on by itself once it is there.
    """
    own, shared = own_ca_bundle(service), installation_ca_bundle(service, settings)
    ca = own or shared
    if ca is None:
        return
    storage.add("ca", _config_map(ca.name, ca.key))
    for mounts in (storage.serving, storage.fetching) if own is not None else (storage.fetching,):
        mounts.append(_mount("ca", CA_DIR, read_only=True))


def _add_api_key(storage: Storage, service: TTSService) -> None:
    network = service.spec.network
    if network is not None and network.api_key_secret_ref is not None:
        key = network.api_key_secret_ref
        storage.add("api-key", _secret(key.name, key.key, API_KEY_FILE))
        storage.serving.append(_mount("api-key", API_KEY_DIR, read_only=True))


def _config_map(name: str, key: str) -> Manifest:
    return {"configMap": {"name": name, "items": [{"key": key, "path": key}]}}


def _secret(name: str, key: str = "", file: str = "") -> Manifest:
    """One key of a Secret as `file`, or all of its keys."""
    source: dict[str, Any] = {"secretName": name, "defaultMode": _SECRET_MODE}
    if key:
        source["items"] = [{"key": key, "path": file.rpartition("/")[2]}]
    return {"secret": source}


def _mount(name: str, path: str, *, read_only: bool = False, sub_path: str = "") -> Manifest:
    mount: Manifest = {"name": name, "mountPath": path}
    if read_only:
        mount["readOnly"] = True
    if sub_path:
        mount["subPath"] = sub_path
    return mount
