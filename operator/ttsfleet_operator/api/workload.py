"""The parts of the spec that shape the pods and what stands around them; only a cluster can honour them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints

from ttsfleet_operator.api.base import (
    ConfigMapKeyRef,
    LocalObjectRef,
    ObjectName,
    Quantity,
    SecretKeyRef,
    Struct,
    refuse,
)

RESERVED_PREFIXES = ("ttsfleet.dev/", "app.kubernetes.io/")


def _no_reserved_keys(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if key.startswith(RESERVED_PREFIXES):
            raise refuse(
                "reserved_key",
                f"{key!r} is the operator's: keys under {' and '.join(RESERVED_PREFIXES)} are refused",
            )
    return value


UserKeys: TypeAlias = Annotated[dict[str, str], AfterValidator(_no_reserved_keys)]


class ResourceRequests(Struct):
    cpu: Quantity | None = None
    memory: Quantity | None = None
    ephemeral_storage: Quantity | None = Field(default=None, alias="ephemeral-storage")


class ResourcesSpec(Struct):
    requests: ResourceRequests | None = None
    limits: ResourceRequests | None = None
    shared_memory: Quantity | None = None
    omp_threads: Annotated[int, Field(ge=1, le=256)] | None = None
    nccl_ib_disable: bool | None = Field(default=None, alias="ncclIBDisable")
    cpu_affinity: Literal["Auto", "Disabled"] | None = None
    numa: Literal["Auto", "Disabled"] | None = None


class DrainSpec(Struct):
    max_stream_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None


class RolloutSpec(Struct):
    """`surge: Auto` starts with one surge pod and falls back to none when that pod cannot be scheduled."""

    surge: Literal["Auto", "Always", "Never"] = "Auto"
    surge_wait_seconds: Annotated[int, Field(ge=0, le=3600)] = 60
    plan_changes: Literal["OnSpecChange", "Automatic"] = "OnSpecChange"
    drain: DrainSpec | None = None
    progress_deadline_seconds: Annotated[int, Field(ge=60, le=86400)] = 3600


class RuntimeSpec(Struct):
    """The runtime image; "" is the one of the operator's release."""

    image: str = ""
    image_pull_secrets: tuple[LocalObjectRef, ...] = ()


class Toleration(Struct):
    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    toleration_seconds: int | None = None


class PodSpec(Struct):
    service_account_name: str = ""
    priority_class_name: str = ""
    runtime_class_name: str = ""
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    labels: UserKeys = Field(default_factory=dict)
    annotations: UserKeys = Field(default_factory=dict)


class LabelSelectorRequirement(Struct):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(Struct):
    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class IPBlock(Struct):
    cidr: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+/\d{1,3}$")]
    except_: tuple[str, ...] = Field(default=(), alias="except")


class NetworkPolicyPeer(Struct):
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicySpec(Struct):
    ingress_from: tuple[NetworkPolicyPeer, ...] = ()
    egress_to: tuple[NetworkPolicyPeer, ...] = ()


class ServiceSpec(Struct):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    annotations: UserKeys = Field(default_factory=dict)


class NetworkSpec(Struct):
    service: ServiceSpec | None = None
    api_key_secret_ref: SecretKeyRef | None = None
    policy: NetworkPolicySpec | None = None
    ca_bundle_config_map_ref: ConfigMapKeyRef | None = None


class MonitoringSpec(Struct):
    service_monitor: Literal["Auto", "Enabled", "Disabled"] = "Auto"


class QuantConfigRef(Struct):
    """The ConfigMap key that holds the custom quantisation recipe."""

    name: ObjectName
    key: Annotated[str, StringConstraints(min_length=1, max_length=253)]
