"""`TTSService.status`: what the operator reports. At most 8 KiB; no list per pod or node.

Every text is bounded, and what the bounds add up to with all classes in trouble at once is cut by the builder of the
status (messages of classes first), which keeps to `MAX_STATUS_BYTES`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints

from ttsfleet_operator.api.base import REASON, GuideStruct, ListMap, Struct
from ttsfleet_operator.api.hardware import MAX_CLASSES

MAX_STATUS_BYTES = 8192
MAX_WARNINGS = 4
MAX_WARNING = 200

Text63: TypeAlias = Annotated[str, StringConstraints(max_length=63)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=1_000_000)]
MebiBytes: TypeAlias = Annotated[int, Field(ge=0, le=1_000_000_000)]
Timestamp: TypeAlias = Annotated[str, StringConstraints(max_length=32)]
Reason: TypeAlias = Annotated[str, StringConstraints(pattern=REASON, max_length=64)]


class ModelStatus(Struct):
    """The model as the pods report it."""

    type: Text63 = ""
    """Kind of model, e.g. cosyvoice2. Empty = not yet known."""
    digest: Annotated[str, StringConstraints(max_length=80)] = ""
    """Digest over the model's files. Empty = not yet known."""
    fetched: Count = 0
    """Pods that have the model's files."""


class PlanSummary(GuideStruct):
    """The values of a class's plan that a person asks about first; the engine ConfigMap holds all."""

    workers: Annotated[int, Field(ge=0, le=1024)]
    """Sets of LLM and decoder processes per GPU."""
    decode_process_num: Annotated[int, Field(ge=0, le=1024)]
    """Decoder processes per worker."""
    quant_type: Text63
    """Weight quantisation of the LLM."""
    data_type: Text63
    """Type of the LLM's weights and activations."""


class MemoryStatus(Struct):
    """Memory of one device of the class, as planned."""

    device_mib: MebiBytes = Field(alias="deviceMiB")
    """Memory of the device in MiB; of the smallest matching one."""
    estimated_mib: MebiBytes = Field(alias="estimatedMiB")
    """What the plan needs, in MiB."""
    assumed: bool = False
    """true = no node was seen; the device memory is that of the profile's smallest variant."""


class ProblemStatus(Struct):
    """What is wrong with a class or its pods, and what to do."""

    reason: Reason
    """Cause in one word, e.g. OutOfMemory, ImagePull, Unschedulable."""
    message: Annotated[str, StringConstraints(max_length=512)]
    """What is wrong and what would help."""
    pods: Count = 0
    """Pods that have this problem; 0 = the class itself has it."""
    since: Timestamp = ""
    """When it was first seen (RFC 3339)."""


class ClassStatus(Struct):
    """One hardware class."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=20)]
    """Name of the class in spec.hardware.classes."""
    profile: Text63 = ""
    """Row of the sizing table that the plan comes from."""
    plan_hash: Text63 = ""
    """Hash of the plan in force; it ends the name of the engine ConfigMap."""
    pending_plan_hash: Text63 = ""
    """Hash of a newer plan that waits for the next change of the spec. Empty = none waits."""
    desired: Count = 0
    """Replicas that the class gets of spec.replicas."""
    ready: Count = 0
    """Replicas that serve."""
    deployment: Text63 = ""
    """Name of the Deployment."""
    engine_config_map: Annotated[str, StringConstraints(max_length=100)] = ""
    """Name of the ConfigMap with the whole plan (engine.yaml)."""
    plan: PlanSummary | None = None
    """The plan in force, in short. Absent = there is none."""
    memory: MemoryStatus | None = None
    """The memory estimate of the plan. Absent = there is no plan."""
    warnings: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=MAX_WARNING)], ...], Field(max_length=MAX_WARNINGS)
    ] = ()
    """What a person should know of the plan, e.g. a value that has no effect on the class. Absent = nothing."""
    problem: ProblemStatus | None = None
    """What is wrong. Absent = nothing."""


class Condition(Struct):
    """A condition in the usual shape of Kubernetes."""

    type: Annotated[str, StringConstraints(pattern=REASON, max_length=63)]
    """Ready, ModelReady, ProfileResolved, Scheduled, WorkloadAvailable; only while true: Reconciling, Stalled,
    Degraded."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    reason: Reason
    """Cause of the last change in one word."""
    message: Annotated[str, StringConstraints(max_length=1024)] = ""
    """What is the case, and what to do where something is wrong."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """metadata.generation for which this was found."""
    last_transition_time: Timestamp = ""
    """When status last changed (RFC 3339)."""


class TTSServiceStatus(Struct):
    """What the operator reports."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """metadata.generation that this status is about."""
    replicas: Count = 0
    """Pods that exist, over all classes."""
    desired_replicas: Count = 0
    """Pods that are wanted and have a place in a class."""
    ready_replicas: Count = 0
    """Pods that serve."""
    selector: Annotated[str, StringConstraints(max_length=253)] = ""
    """Label selector of the pods, for autoscalers."""
    url: Annotated[str, StringConstraints(max_length=253)] = ""
    """URL of the API within the cluster."""
    gpu_summary: Annotated[str, StringConstraints(max_length=253)] = ""
    """Replicas per class, e.g. "ada 3, l4 1"."""
    workers_summary: Annotated[str, StringConstraints(max_length=253)] = ""
    """Workers per pod, in the order of the classes, e.g. "3, 2"."""
    model: ModelStatus | None = None
    """The model as the pods report it. Absent = not yet known."""
    classes: Annotated[tuple[ClassStatus, ...], Field(max_length=MAX_CLASSES), ListMap()] = ()
    """The hardware classes, told apart by name."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), ListMap("type")] = ()
    """Conditions, told apart by type."""
