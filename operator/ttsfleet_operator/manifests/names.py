"""Names, labels and annotations of the children, and the reference to their owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ttsfleet_operator.api.service import API_VERSION, KIND, TTSService
from ttsfleet_operator.labels import APPLICATION, CLASS_LABEL, MANAGED_LABEL, MANAGER, NAME_LABEL, SERVICE_LABEL

Manifest: TypeAlias = dict[str, Any]

FIELD_MANAGER = "ttsfleet-operator"
REFERENCES_ANNOTATION = "ttsfleet.dev/references-hash"
FETCH_KEY = "fetch.yaml"

_FIXED_LABELS = {NAME_LABEL: APPLICATION, MANAGED_LABEL: MANAGER}


def deployment_name(service_name: str, class_name: str) -> str:
    return f"{service_name}-{class_name}"


def config_map_name(service_name: str, class_name: str, bundle_hash: str) -> str:
    return f"{service_name}-{class_name}-{bundle_hash}"


def claim_name(service_name: str) -> str:
    """The claim of the model cache, where we create one."""
    return f"{service_name}-models"


def service_labels(service_name: str) -> dict[str, str]:
    return {**_FIXED_LABELS, SERVICE_LABEL: service_name}


def class_labels(service_name: str, class_name: str) -> dict[str, str]:
    return {**service_labels(service_name), CLASS_LABEL: class_name}


def service_selector(service_name: str) -> dict[str, str]:
    """Selects the pods of all classes; the same as status.selector."""
    return {NAME_LABEL: APPLICATION, SERVICE_LABEL: service_name}


def class_selector(service_name: str, class_name: str) -> dict[str, str]:
    """A Deployment's selector. It can never change: nothing else may come in here."""
    return {SERVICE_LABEL: service_name, CLASS_LABEL: class_name}


def metadata(
    service: TTSService,
    name: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str] | None = None,
    *,
    owned: bool = True,
) -> Manifest:
    """metadata of a child. Without a uid (rendered from a file) there is no owner to refer to."""
    result: Manifest = {"name": name, "namespace": service.namespace, "labels": dict(labels)}
    if annotations:
        result["annotations"] = dict(annotations)
    if owned and service.metadata.uid:
        result["ownerReferences"] = [owner_reference(service)]
    return result


def owner_reference(service: TTSService) -> Manifest:
    """Makes the garbage collector remove the child with its TTSService.

    No blockOwnerDeletion: a foreground deletion of the TTSService must not wait for a child.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": service.name,
        "uid": service.metadata.uid,
        "controller": True,
    }
