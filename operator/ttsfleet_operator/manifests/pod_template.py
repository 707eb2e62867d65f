"""The pod template of one class: what a plan stores as pod-template.json.

It holds everything that decides a pod except the name of its ConfigMap, which contains the plan's hash and is filled
in by `deployment`. Nothing here depends on replicas, on nodes or on what runs. Beside `metadata` and `spec` it
carries `fetch.yaml`, the configuration of the fetch step, which goes into that ConfigMap and not into the Deployment.
"""

from __future__ import annotations

import hashlib

from ttsfleet_operator.api.hardware import HardwareClass
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.api.workload import PodSpec, Toleration
from ttsfleet_operator.fleet.affinity import node_selector_terms
from ttsfleet_operator.fleet.settings import FleetSettings, References, referenced_keys
from ttsfleet_operator.manifests.containers import (
    ENDPOINT_SECONDS,
    SHUTDOWN_SECONDS,
    fetch_container,
    runtime_container,
    shared_memory,
)
from ttsfleet_operator.manifests.fetch_config import render_fetch_yaml
from ttsfleet_operator.manifests.names import (
    FETCH_KEY,
    REFERENCES_ANNOTATION,
    Manifest,
    class_labels,
    service_selector,
)
from ttsfleet_operator.manifests.volumes import pod_storage
from ttsfleet_operator.plan import ClassPlan
from ttsfleet_operator.pod_layout import USER_ID, stream_seconds

GPU_TAINT = "nvidia.com/gpu"
NODE_LOST_SECONDS = 30
_SPREAD_KEYS = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")


def pod_template(service: TTSService, plan: ClassPlan, settings: FleetSettings, references: References) -> Manifest:
    """metadata and spec of the pods of `plan`'s class."""
    hardware_class = next(one for one in service.spec.hardware.classes if one.name == plan.class_name)
    pod = service.spec.pod or PodSpec()
    annotations = dict(pod.annotations)
    if referenced_keys(service):
        annotations[REFERENCES_ANNOTATION] = _references_hash(service, references)
    metadata: Manifest = {"labels": {**pod.labels, **class_labels(service.name, plan.class_name)}}
    if annotations:
        metadata["annotations"] = annotations
    template = {"metadata": metadata, "spec": _spec(service, hardware_class, plan, settings, pod)}
    fetch = render_fetch_yaml(service, settings)
    return template | {FETCH_KEY: fetch} if fetch else template


def _spec(
    service: TTSService, hardware_class: HardwareClass, plan: ClassPlan, settings: FleetSettings, pod: PodSpec
) -> Manifest:
    storage = pod_storage(service, shared_memory(service, hardware_class), settings)
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": ENDPOINT_SECONDS + stream_seconds(service) + SHUTDOWN_SECONDS,
        "containers": [runtime_container(service, hardware_class, plan, settings, storage)],
        "volumes": storage.volumes,
        "tolerations": _tolerations(hardware_class, pod),
        "topologySpreadConstraints": [_spread(service, key) for key in _SPREAD_KEYS],
    }
    if storage.fetching:
        spec["initContainers"] = [fetch_container(service, settings, storage)]
    terms = node_selector_terms(hardware_class, plan)
    if terms:
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        spec["affinity"] = {"nodeAffinity": required}
    return spec | _from_user(service, settings, pod)


def _from_user(service: TTSService, settings: FleetSettings, pod: PodSpec) -> Manifest:
    """The fields that are there only when someone gave them."""
    pull_secrets = list(settings.image_pull_secrets)
    if service.spec.runtime is not None:
        pull_secrets += [reference.name for reference in service.spec.runtime.image_pull_secrets]
    fields: Manifest = {
        "serviceAccountName": pod.service_account_name,
        "priorityClassName": pod.priority_class_name,
        "runtimeClassName": pod.runtime_class_name,
        "nodeSelector": dict(pod.node_selector),
        "imagePullSecrets": [{"name": name} for name in dict.fromkeys(pull_secrets)],
    }
    return {name: value for name, value in fields.items() if value}


def _tolerations(hardware_class: HardwareClass, pod: PodSpec) -> list[Manifest]:
    """The user's, the device's taints, and a lost node's for 30 s; a user's word on a lost node replaces ours."""
    result = [_toleration(one) for one in pod.tolerations]
    if hardware_class.gpu is not None:
        for key in dict.fromkeys((GPU_TAINT, hardware_class.gpu.resource_name)):
            result.append({"key": key, "operator": "Exists", "effect": "NoSchedule"})
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if any(one.key in ("", key) and one.effect in ("", "NoExecute") for one in pod.tolerations):
            continue
        result.append(
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOST_SECONDS}
        )
    return list({tuple(sorted(one.items())): one for one in result}.values())


def _toleration(given: Toleration) -> Manifest:
    values: Manifest = {
        "key": given.key,
        "operator": given.operator,
        "value": given.value,
        "effect": given.effect,
        "tolerationSeconds": given.toleration_seconds,
    }
    return {name: value for name, value in values.items() if value not in ("", None)}


def _spread(service: TTSService, key: str) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": service_selector(service.name)},
    }


def _references_hash(service: TTSService, references: References) -> str:
    """Changes with the content of a ConfigMap that the pods mount, so that they are replaced."""
    content = "\n".join(f"{key} {references.hash_of(key)}" for key in referenced_keys(service))
    return hashlib.sha256(content.encode()).hexdigest()[:16]
