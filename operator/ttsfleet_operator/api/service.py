"""`TTSService` v1alpha1: the resource that a user writes, whole.

The structs of the spec are in the modules beside this one. Rules over several fields are validators here and CEL in
the CRD; both carry the same sentence.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from ttsfleet_operator.api.base import DNS_1035, DNS_1123, Struct, check_unique_names, refuse
from ttsfleet_operator.api.engine import EngineOverrides, ServerOptions
from ttsfleet_operator.api.hardware import HardwareSpec
from ttsfleet_operator.api.model import ModelSpec, StyleSpec
from ttsfleet_operator.api.status import TTSServiceStatus
from ttsfleet_operator.api.workload import (
    MonitoringSpec,
    NetworkSpec,
    PodSpec,
    QuantConfigRef,
    ResourcesSpec,
    RolloutSpec,
    RuntimeSpec,
)

GROUP = "ttsfleet.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "TTSService"


class ObjectMeta(BaseModel):
    """The metadata that we read. What else a live object carries (uid, managedFields, …) is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, alias_generator=to_camel)

    name: Annotated[str, StringConstraints(pattern=DNS_1035, max_length=40)]
    namespace: Annotated[str, StringConstraints(pattern=DNS_1123, max_length=63)] = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: str | None = None
    owner_references: tuple[dict[str, Any], ...] = ()


class TTSServiceSpec(Struct):
    """What the user wants. Planner values (engine, server) have no defaults; see api.engine."""

    replicas: Annotated[int, Field(ge=0)] = 1
    suspend: bool = False
    model: ModelSpec
    styles: tuple[StyleSpec, ...] = ()
    engine: EngineOverrides | None = None
    quant_config_ref: QuantConfigRef | None = None
    server: ServerOptions | None = None
    hardware: HardwareSpec
    resources: ResourcesSpec | None = None
    rollout: RolloutSpec | None = None
    runtime: RuntimeSpec | None = None
    pod: PodSpec | None = None
    network: NetworkSpec | None = None
    monitoring: MonitoringSpec | None = None

    @model_validator(mode="after")
    def _style_names_are_identities(self) -> TTSServiceSpec:
        check_unique_names("styles", (style.name for style in self.styles))
        return self

    @model_validator(mode="after")
    def _quant_config_exactly_with_custom(self) -> TTSServiceSpec:
        overrides = [self.engine, *(one.engine for one in self.hardware.classes)]
        custom = any(one is not None and one.quant_type == "custom" for one in overrides)
        if custom and self.quant_config_ref is None:
            raise refuse("quant_config", "quant_type custom needs quantConfigRef {name, key}")
        if not custom and self.quant_config_ref is not None:
            raise refuse("quant_config", "quantConfigRef is allowed only with quant_type custom; remove one")
        return self


class TTSService(Struct):
    """The resource. Build it with `api.manifest.load_services`, which gives errors with path, line and remedy."""

    api_version: Literal["ttsfleet.dev/v1alpha1"]
    kind: Literal["TTSService"]
    metadata: ObjectMeta
    spec: TTSServiceSpec
    status: TTSServiceStatus | None = None

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace
