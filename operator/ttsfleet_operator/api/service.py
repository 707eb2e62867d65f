"""`TTSService` v1alpha1: the resource that a user writes, whole.

The structs of the spec are in the modules beside this one. Rules over several fields stand in `RULES`: one sentence,
checked here in Python and by the API server in CEL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from ttsfleet_operator.api.base import DNS_1035, DNS_1123, ListMap, SchemaDefault, Struct
from ttsfleet_operator.api.engine import EngineOverrides, ServerOptions
from ttsfleet_operator.api.hardware import MAX_REPLICAS, HardwareSpec
from ttsfleet_operator.api.model import ModelSpec, StyleSpec
from ttsfleet_operator.api.network import NetworkSpec
from ttsfleet_operator.api.rules import Rule, unique_names
from ttsfleet_operator.api.status import TTSServiceStatus
from ttsfleet_operator.api.workload import (
    MonitoringSpec,
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
MAX_NAME = 40


class ObjectMeta(BaseModel):
    """The metadata that we read. What else a live object carries (uid, managedFields, …) is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, alias_generator=to_camel)

    name: Annotated[str, StringConstraints(pattern=DNS_1035, max_length=MAX_NAME)]
    namespace: Annotated[str, StringConstraints(pattern=DNS_1123, max_length=63)] = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: str | None = None
    owner_references: tuple[dict[str, Any], ...] = ()


def _uses_custom_quantisation(spec: TTSServiceSpec) -> bool:
    overrides = [spec.engine, *(one.engine for one in spec.hardware.classes)]
    return any(one is not None and one.quant_type == "custom" for one in overrides)


def _recipe_missing(spec: TTSServiceSpec) -> Mapping[str, object] | None:
    return {} if _uses_custom_quantisation(spec) and spec.quant_config_ref is None else None


def _recipe_unused(spec: TTSServiceSpec) -> Mapping[str, object] | None:
    return {} if not _uses_custom_quantisation(spec) and spec.quant_config_ref is not None else None


_CUSTOM_CEL = (
    "((has(self.engine) && has(self.engine.quant_type) && self.engine.quant_type == 'custom') || "
    "self.hardware.classes.exists(c, has(c.engine) && has(c.engine.quant_type) && c.engine.quant_type == 'custom'))"
)


class TTSServiceSpec(Struct):
    """What the user wants. Nothing of it is written by the operator."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        unique_names("styles", "self.styles", lambda spec: (style.name for style in spec.styles), optional=True),
        Rule(
            name="quant_config",
            cel=f"!{_CUSTOM_CEL} || has(self.quantConfigRef)",
            message="quant_type custom needs quantConfigRef with name and key",
            check=_recipe_missing,
        ),
        Rule(
            name="quant_config",
            cel=f"{_CUSTOM_CEL} || !has(self.quantConfigRef)",
            message="quantConfigRef is allowed only with quant_type custom; remove one",
            check=_recipe_unused,
        ),
    )

    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS), SchemaDefault(1)] = 1
    """Pods that are wanted, over all hardware classes. Written by users and autoscalers, also through the scale
    subresource; never by the operator. Absent = 1."""
    suspend: bool = False
    """true = no pods, while replicas keeps its value. Absent = false."""
    model: ModelSpec
    """The model that is served."""
    styles: Annotated[tuple[StyleSpec, ...], Field(max_length=16), ListMap()] = ()
    """The sets of LLM weights that requests choose by name, each with processes of its own. Absent or empty = the
    styles that the model itself names."""
    engine: EngineOverrides | None = None
    """Engine parameters fixed for all classes. Absent values are planned per class."""
    quant_config_ref: QuantConfigRef | None = None
    """The recipe of quant_type custom; required with it and refused without it. A changed ConfigMap rolls the
    pods."""
    server: ServerOptions | None = None
    """Settings of the HTTP and WebSocket server. Absent values = the runtime's defaults."""
    hardware: HardwareSpec
    """The machines that the service may run on."""
    resources: ResourcesSpec | None = None
    """Compute resources of each pod. Absent = the operator's defaults."""
    rollout: RolloutSpec | None = None
    """How a changed spec reaches the pods. Absent = the defaults."""
    runtime: RuntimeSpec | None = None
    """The container image. Absent = the one of the operator's release."""
    pod: PodSpec | None = None
    """What the pods need from the cluster beyond what the operator decides."""
    network: NetworkSpec | None = None
    """The Service, who may reach the pods, and what they trust. Absent = a ClusterIP Service without an API key."""
    monitoring: MonitoringSpec | None = None
    """What Prometheus gets. Absent = a ServiceMonitor where its CRD is installed."""


class TTSService(Struct):
    """A fleet of text-to-speech pods: a model, the machines it may run on, and how many replicas. The operator plans
    each class of machine and keeps the pods as planned."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            name="name",
            cel=f"self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches(r'{DNS_1035}')",
            message=f"metadata.name must be at most {MAX_NAME} lower-case letters, digits and '-', beginning with a "
            "letter and not ending with '-': a Service and Deployments are named after it",
        ),
    )

    api_version: Literal["ttsfleet.dev/v1alpha1"]
    kind: Literal["TTSService"]
    metadata: ObjectMeta
    spec: TTSServiceSpec
    """What the user wants."""
    status: TTSServiceStatus | None = None
    """What the operator reports."""

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace
