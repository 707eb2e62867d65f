"""Which fields of a TTSService only a cluster can honour, and what `ttsfleet run` does instead. Pure.

A field that someone wrote and that has no effect here must be said, not dropped.
"""

from __future__ import annotations

from pydantic import BaseModel

from ttsfleet_operator.api.service import TTSService

_SPEC_NOTES = {
    "replicas": "one machine runs one replica",
    "suspend": "a local run starts anyway",
    "rollout": "nothing is rolled out here; only drain.maxStreamSeconds acts",
    "runtime": "the installed ttsfleet-runtime is used, not an image",
    "pod": "there is no pod",
    "network": "there is no Service and no NetworkPolicy; give --host to listen "
    "beyond this machine, and set TTSFLEET_API_KEY for a key",
    "monitoring": "scrape /metrics on the management port",
    "quant_config_ref": "a ConfigMap lives in a cluster; give --quant-config FILE",
}
_RESOURCE_NOTES = {
    "requests": "processes are not limited here; requests.cpu only lowers the number of planned cores",
    "limits": "processes are not limited here",
    "shared_memory": "the machine's /dev/shm is used",
}


def cluster_notes(service: TTSService) -> list[str]:
    """One sentence per given field that needs a cluster, in the manifest's order."""
    spec = service.spec
    notes = []
    if "namespace" in service.metadata.model_fields_set:
        notes.append(_note("metadata.namespace", "there are no namespaces here"))
    notes += _given("spec", spec, _SPEC_NOTES)
    if spec.model.cache is not None:
        notes.append(_note("spec.model.cache", "weights are kept in this user's cache folder"))
    if spec.model.manifest_sha256:
        notes.append(_note("spec.model.manifestSHA256", "checked by the pod's fetch step"))
    if spec.resources is not None:
        notes += _given("spec.resources", spec.resources, _RESOURCE_NOTES)
    if spec.hardware.distribution is not None:
        notes.append(_note("spec.hardware.distribution", "one class runs here"))
    for one in spec.hardware.classes:
        replicas = {"weight", "min_replicas", "max_replicas"} & one.model_fields_set
        if replicas:
            where = f"spec.hardware.classes[{one.name}]"
            notes.append(_note(f"{where} replica bounds and weight", "one machine runs one replica"))
    return notes


def _given(prefix: str, struct: BaseModel, notes: dict[str, str]) -> list[str]:
    fields = type(struct).model_fields
    return [
        _note(f"{prefix}.{fields[name].alias or name}", reason)
        for name, reason in notes.items()
        if name in struct.model_fields_set
    ]


def _note(path: str, reason: str) -> str:
    return f"{path}: needs a cluster; ignored by `ttsfleet run` ({reason})"
