"""The Deployment of a class, and the immutable ConfigMap that holds the plan in force."""

from __future__ import annotations

import copy

from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.api.workload import RolloutSpec
from ttsfleet_operator.fleet.bundle import (
    DIGEST_ANNOTATION,
    DISTRIBUTION_ANNOTATION,
    INPUTS_ANNOTATION,
    PlanBundle,
    bundle_data,
)
from ttsfleet_operator.manifests.names import (
    FETCH_KEY,
    Manifest,
    class_labels,
    class_selector,
    config_map_name,
    deployment_name,
    metadata,
)
from ttsfleet_operator.manifests.volumes import ENGINE_VOLUME

REVISION_HISTORY = 3


def config_map(service: TTSService, class_name: str, bundle: PlanBundle, inputs_hash: str) -> Manifest:
    """engine.yaml for the pods, and the pod template for the operator that comes after this one."""
    data = bundle_data(bundle)
    if FETCH_KEY in bundle.pod_template:
        data[FETCH_KEY] = bundle.pod_template[FETCH_KEY]
    name = config_map_name(service.name, class_name, bundle.hash)
    labels = class_labels(service.name, class_name)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(service, name, labels, {INPUTS_ANNOTATION: inputs_hash} if inputs_hash else None),
        "immutable": True,
        "data": data,
    }


def deployment(
    service: TTSService,
    class_name: str,
    bundle: PlanBundle,
    *,
    replicas: int,
    distribution_hash: str = "",
    surge: bool = True,
) -> Manifest:
    """The Deployment of a class. `surge` False: an old pod goes before its successor comes."""
    rollout = service.spec.rollout or RolloutSpec()
    annotations = {DIGEST_ANNOTATION: bundle.digest}
    if distribution_hash:
        annotations[DISTRIBUTION_ANNOTATION] = distribution_hash
    labels = class_labels(service.name, class_name)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(service, deployment_name(service.name, class_name), labels, annotations),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": REVISION_HISTORY,
            "minReadySeconds": 0,
            "progressDeadlineSeconds": rollout.progress_deadline_seconds,
            "selector": {"matchLabels": class_selector(service.name, class_name)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _strategy(rollout, surge)},
            "template": _template(bundle, config_map_name(service.name, class_name, bundle.hash)),
        },
    }


def _strategy(rollout: RolloutSpec, surge: bool) -> Manifest:
    with_surge = rollout.surge == "Always" or (rollout.surge == "Auto" and surge)
    return {"maxSurge": 1, "maxUnavailable": 0} if with_surge else {"maxSurge": 0, "maxUnavailable": 1}


def _template(bundle: PlanBundle, config_map: str) -> Manifest:
    template: Manifest = {name: copy.deepcopy(bundle.pod_template[name]) for name in ("metadata", "spec")}
    for volume in template["spec"]["volumes"]:
        if volume["name"] == ENGINE_VOLUME:
            volume["configMap"]["name"] = config_map
    return template
