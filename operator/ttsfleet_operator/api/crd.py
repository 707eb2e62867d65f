"""The CustomResourceDefinitions, and the program that writes them: `python -m ttsfleet_operator.api.crd [DIRECTORY]`.

One pydantic source: `api.schema` turns the structs into the schema, this module adds what the resources are called,
their columns and subresources. A test compares the files in crds/ with what this writes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from ttsfleet_operator.api.gpu_profile import PROFILE_KIND, TTSGPUProfile
from ttsfleet_operator.api.schema import Schema, struct_schema
from ttsfleet_operator.api.service import GROUP, KIND, VERSION, TTSService

CATEGORY = "ttsfleet"
_HEADING = "# Generated from operator/ttsfleet_operator/api by `make docs`; do not edit.\n"
_TYPE_META = {
    "apiVersion": {"type": "string", "description": "Version of the schema of this object."},
    "kind": {"type": "string", "description": "Kind of this object."},
    "metadata": {"type": "object"},
}


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: str
    type: str = "string"
    description: str = ""

    def definition(self) -> dict[str, object]:
        described = {"description": self.description} if self.description else {}
        return {"name": self.name, "type": self.type, **described, "jsonPath": self.path}


@dataclass(frozen=True)
class Resource:
    """What a kind is called, and what surrounds its schema."""

    kind: str
    plural: str
    short_name: str
    scope: str
    struct: type[BaseModel]
    columns: tuple[Column, ...]
    subresources: dict[str, Any]

    @property
    def file_name(self) -> str:
        return f"{GROUP}_{self.plural}.yaml"


_READY = '.status.conditions[?(@.type=="Ready")]'
SERVICES = Resource(
    kind=KIND,
    plural="ttsservices",
    short_name="tts",
    scope="Namespaced",
    struct=TTSService,
    columns=(
        Column("Ready", f"{_READY}.status", description="Whether the service can speak."),
        Column("Replicas", ".status.readyReplicas", "integer", "Pods that serve."),
        Column("Desired", ".status.desiredReplicas", "integer", "Pods that are wanted."),
        Column("GPU", ".status.gpuSummary", description="Replicas per hardware class."),
        Column("Workers", ".status.workersSummary", description="Workers per pod of each class."),
        Column("Reason", f"{_READY}.reason", description="Why the service is ready or not."),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
    subresources={
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    },
)
PROFILES = Resource(
    kind=PROFILE_KIND,
    plural="ttsgpuprofiles",
    short_name="ttsgpu",
    scope="Cluster",
    struct=TTSGPUProfile,
    columns=(
        Column("Memory", ".spec.memoryMiB", "integer", "Memory of the device in MiB."),
        Column("Capability", ".spec.computeCapability", description="Compute capability of the device."),
        Column("Workers", ".spec.engine.workers", "integer", "Workers per device."),
        Column("Quantisation", ".spec.engine.quant_type", description="Weight quantisation of the LLM."),
        Column("Priority", ".spec.priority", "integer", "Decides between rows that match equally well."),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
    subresources={},
)
RESOURCES = (SERVICES, PROFILES)


def definition(resource: Resource) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": root_schema(resource.struct)},
        "additionalPrinterColumns": [column.definition() for column in resource.columns],
    }
    if resource.subresources:
        version["subresources"] = resource.subresources
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [resource.short_name],
                "categories": [CATEGORY],
            },
            "scope": resource.scope,
            "conversion": {"strategy": "None"},
            "versions": [version],
        },
    }


def root_schema(struct: type[BaseModel]) -> Schema:
    """The schema of a whole resource: of its metadata only the name is ours to judge."""
    schema = struct_schema(struct, _TYPE_META)
    schema["required"] = ["spec"]
    return schema


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(resource: Resource) -> str:
    """The file of a kind's CustomResourceDefinition."""
    return _HEADING + yaml.dump(definition(resource), Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)


def write_all(directory: Path) -> None:
    """Write every file into `directory`."""
    for resource in RESOURCES:
        (directory / resource.file_name).write_text(render(resource), encoding="utf-8")


if __name__ == "__main__":
    write_all(Path(sys.argv[1] if len(sys.argv) > 1 else "crds"))
