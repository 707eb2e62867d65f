"""The parts of the spec that shape the pods and what stands around them; only a cluster can honour them.

What concerns the network is in `api.network`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, StringConstraints

from ttsfleet_operator.api.base import (
    IMAGE_OR_EMPTY,
    BytesQuantity,
    ConfigKey,
    CoresQuantity,
    LabelKey,
    LabelValue,
    ListMap,
    LocalObjectRef,
    ObjectName,
    OptionalLabelKey,
    OptionalObjectName,
    PositiveBytesQuantity,
    Struct,
)
from ttsfleet_operator.api.quantity import quantity_value
from ttsfleet_operator.api.rules import Rule, unique_names

MIN_EXCLUSIVE_CPUS = 4  # fewer cannot be shared out among the stages
RESERVED_PREFIXES = ("ttsfleet.dev/", "app.kubernetes.io/")

_RESERVED_CEL = " || ".join(f"k.startsWith('{prefix}')" for prefix in RESERVED_PREFIXES)


def _reserved_key(value: Mapping[str, str]) -> Mapping[str, object] | None:
    return next(({"key": key} for key in value if key.startswith(RESERVED_PREFIXES)), None)


NOT_RESERVED = Rule(
    name="reserved_key",
    cel=f"self.all(k, !({_RESERVED_CEL}))",
    message=f"'{{key}}' is the operator's: keys under {' and '.join(RESERVED_PREFIXES)} are refused",
    check=_reserved_key,
    values={"key": f"self.filter(k, {_RESERVED_CEL})[0]"},
)

AnnotationValue: TypeAlias = Annotated[str, StringConstraints(max_length=4096)]
UserLabels: TypeAlias = Annotated[dict[LabelKey, LabelValue], Field(max_length=32), NOT_RESERVED]
UserAnnotations: TypeAlias = Annotated[dict[LabelKey, AnnotationValue], Field(max_length=32), NOT_RESERVED]


class ResourceRequests(Struct):
    """Quantities of compute resources. The GPU is not among them: the class requests one device itself."""

    cpu: CoresQuantity | None = None
    """CPU cores, e.g. 8, "0.5" or 500m. Absent = planned, see requests and limits."""
    memory: BytesQuantity | None = None
    """Memory, e.g. 16Gi. Absent = planned, see requests and limits."""
    ephemeral_storage: BytesQuantity | None = Field(default=None, alias="ephemeral-storage")
    """Local disk for logs, temporary files and an emptyDir model cache, e.g. 20Gi. Absent = none."""


def _within_limit(wire: str, attribute: str) -> Rule:
    """A request does not exceed its limit: no pod could be created."""
    name = wire.replace("-", "__dash__")
    request, limit = f"self.requests.{name}", f"self.limits.{name}"

    def check(resources: ResourcesSpec) -> Mapping[str, object] | None:
        asked, most = getattr(resources.requests, attribute, None), getattr(resources.limits, attribute, None)
        if asked is None or most is None or quantity_value(asked) <= quantity_value(most):
            return None
        return {"request": asked, "limit": most}

    return Rule(
        name="request_exceeds_limit",
        cel=f"!has(self.requests) || !has(self.limits) || !has({request}) || !has({limit}) || "
        f"quantity(string({request})).compareTo(quantity(string({limit}))) <= 0",
        message=f"requests.{wire} {{request}} exceeds limits.{wire} {{limit}}; raise the limit or lower the request",
        check=check,
        values={"request": f"string({request})", "limit": f"string({limit})"},
    )


def _shared_memory_exceeds_limit(resources: ResourcesSpec) -> Mapping[str, object] | None:
    limit = resources.limits.memory if resources.limits is not None else None
    if limit is None or resources.shared_memory is None:
        return None
    if quantity_value(resources.shared_memory) < quantity_value(limit):
        return None
    return {"shared": resources.shared_memory, "limit": limit}


class ResourcesSpec(Struct):
    """Compute resources of each pod, and how its stages use them."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        _within_limit("cpu", "cpu"),
        _within_limit("memory", "memory"),
        _within_limit("ephemeral-storage", "ephemeral_storage"),
        Rule(
            name="shared_memory_exceeds_limit",
            cel="!has(self.sharedMemory) || !has(self.limits) || !has(self.limits.memory) || "
            "quantity(string(self.sharedMemory)).compareTo(quantity(string(self.limits.memory))) < 0",
            message="sharedMemory {shared} counts towards limits.memory {limit} and must be less",
            check=_shared_memory_exceeds_limit,
            values={"shared": "string(self.sharedMemory)", "limit": "string(self.limits.memory)"},
        ),
    )

    requests: ResourceRequests | None = None
    """What the scheduler reserves for a pod. requests.cpu is also the number of cores that the plan counts on. Absent
    values = the limit where one is given, else the operator's: two cores per worker, and 8Gi (one worker) or 16Gi of
    memory; for the CPU class one core and the estimated memory."""
    limits: ResourceRequests | None = None
    """What a pod may use at most. Absent values = none where a request is given, else the operator's: no limit for
    CPU, and twice its memory request."""
    shared_memory: PositiveBytesQuantity | None = None
    """Size of /dev/shm, memory-backed; counts towards limits.memory. Absent = 4Gi, and 1Gi for the CPU class."""
    omp_threads: Annotated[int, Field(ge=1, le=256)] | None = None
    """OpenMP threads of every stage process (OMP_NUM_THREADS). Absent = planned per stage from the cores."""
    nccl_ib_disable: bool | None = Field(default=None, alias="ncclIBDisable")
    """Set NCCL_IB_DISABLE=1 in the pod. Absent = not set."""
    cpu_affinity: Literal["Auto", "Disabled"] | None = None
    """Auto: pin each stage to its share of the pod's CPUs where these are the pod's alone, which needs the static CPU
    manager on the node, limits.cpu of 4 or more whole CPUs, limits.memory, and no lower requests. Absent = Auto."""
    numa: Literal["Auto", "Disabled"] | None = None
    """Auto: share the pinned CPUs out NUMA node by node, LLM and decode on the GPU's. Absent = Auto."""

    @property
    def exclusive_cpus(self) -> int:
        """The CPUs that kubelet's static CPU manager may give to the pod alone; 0 = none, or too few to share out.

        It does so for pods whose requests are their limits (Guaranteed), in whole CPUs.
        """
        limits, requests = self.limits, self.requests
        if limits is None or limits.cpu is None or limits.memory is None:
            return 0
        for name in ("cpu", "memory"):
            asked = getattr(requests, name, None)
            if asked is not None and quantity_value(asked) != quantity_value(getattr(limits, name)):
                return 0
        cores = quantity_value(limits.cpu)
        return int(cores) if cores == int(cores) and cores >= MIN_EXCLUSIVE_CPUS else 0


class DrainSpec(Struct):
    """How a pod leaves."""

    max_stream_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    """Seconds that running streams get to end after a pod was told to stop; the pod's grace period follows.
    Absent = server.timeout, or 300: no stream is cut."""


class RolloutSpec(Struct):
    """How a changed spec reaches the pods."""

    surge: Literal["Auto", "Always", "Never"] = "Auto"
    """Auto = one extra pod first, and without extra pods when that one cannot be scheduled; Always = only with an
    extra pod; Never = an old pod goes before its successor comes. Absent = Auto."""
    surge_wait_seconds: Annotated[int, Field(ge=0, le=3600)] = 60
    """Seconds that an extra pod may stay unscheduled before surge Auto goes on without it. Absent = 60."""
    plan_changes: Literal["OnSpecChange", "Automatic"] = "OnSpecChange"
    """When a new plan (a new profile row or operator release) takes over: OnSpecChange = with the next change of this
    spec, until then status shows it as pending; Automatic = at once. Absent = OnSpecChange."""
    drain: DrainSpec | None = None
    """How a pod leaves. Absent = the defaults."""
    progress_deadline_seconds: Annotated[int, Field(ge=60, le=86400)] = 3600
    """Seconds without progress after which a rollout counts as failed; must exceed the time of a model fetch.
    Absent = 3600."""


class RuntimeSpec(Struct):
    """The container image of the pods."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        unique_names(
            "imagePullSecrets",
            "self.imagePullSecrets",
            lambda runtime: (secret.name for secret in runtime.image_pull_secrets),
            optional=True,
        ),
    )

    image: Annotated[str, StringConstraints(pattern=IMAGE_OR_EMPTY, max_length=512)] = ""
    """Runtime image. Absent or empty = the one of the operator's release."""
    image_pull_secrets: Annotated[tuple[LocalObjectRef, ...], Field(max_length=16), ListMap()] = ()
    """Secrets for pulling the image, told apart by name. Absent = those of the service account."""


def _exists_with_value(toleration: Toleration) -> Mapping[str, object] | None:
    return {} if toleration.operator == "Exists" and toleration.value else None


def _empty_key(toleration: Toleration) -> Mapping[str, object] | None:
    return {} if not toleration.key and toleration.operator != "Exists" else None


def _seconds_without_effect(toleration: Toleration) -> Mapping[str, object] | None:
    return {} if toleration.toleration_seconds is not None and toleration.effect != "NoExecute" else None


class Toleration(Struct):
    """A taint that the pods tolerate, as in a pod's spec."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            name="toleration_value",
            cel="!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            message="operator Exists takes no value; remove value or use operator Equal",
            check=_exists_with_value,
        ),
        Rule(
            name="toleration_key",
            cel="(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
            message="key is empty: that tolerates every taint and needs operator Exists",
            check=_empty_key,
        ),
        Rule(
            name="toleration_seconds",
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            message="tolerationSeconds needs effect NoExecute",
            check=_seconds_without_effect,
        ),
    )

    key: OptionalLabelKey = ""
    """Key of the taint. Absent or empty = every taint, with operator Exists."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Equal compares the value, Exists does not. Absent = Equal."""
    value: LabelValue = ""
    """Value of the taint, for operator Equal. Absent = the empty value."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Effect of the taint. Absent or empty = every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Seconds that a pod stays after such a NoExecute taint appears. Absent = for ever."""


class PodSpec(Struct):
    """What the pods need from the cluster beyond what the operator decides."""

    service_account_name: OptionalObjectName = ""
    """ServiceAccount of the pods; its token is never mounted. Absent or empty = default."""
    priority_class_name: OptionalObjectName = ""
    """PriorityClass of the pods. Absent or empty = the cluster's default."""
    runtime_class_name: OptionalObjectName = ""
    """RuntimeClass of the pods, e.g. nvidia. Absent or empty = the cluster's default."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    """Labels that a node must have, beside those of the hardware class."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that the pods tolerate, beside that of the device's resource name. Absent = no more."""
    labels: UserLabels = Field(default_factory=dict)
    """More labels of the pods. Keys under ttsfleet.dev/ and app.kubernetes.io/ are the operator's."""
    annotations: UserAnnotations = Field(default_factory=dict)
    """More annotations of the pods. Keys under ttsfleet.dev/ and app.kubernetes.io/ are the operator's."""


class MonitoringSpec(Struct):
    """What Prometheus gets."""

    service_monitor: Literal["Auto", "Enabled", "Disabled"] = "Auto"
    """Auto = a ServiceMonitor where its CRD is installed; Enabled = wanted, its absence is reported; Disabled = none.
    Absent = Auto."""


class QuantConfigRef(Struct):
    """The ConfigMap key that holds the custom quantisation recipe."""

    name: ObjectName
    """Name of the ConfigMap in the service's namespace."""
    key: ConfigKey
    """Key within the ConfigMap."""
