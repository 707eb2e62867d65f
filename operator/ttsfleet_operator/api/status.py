"""`TTSService.status`: what the operator reports. At most 8 KiB; no list per pod or node."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ttsfleet_operator.api.base import GuideStruct, Struct


class ModelStatus(Struct):
    type: str = ""
    digest: str = ""
    fetched: int = 0


class PlanSummary(GuideStruct):
    """The values of a class's plan that a person asks about first."""

    workers: int
    decode_process_num: int
    quant_type: str
    data_type: str


class MemoryStatus(Struct):
    """`assumed` = no node was seen: the device memory is the profile's smallest variant."""

    device_mib: int = Field(alias="deviceMiB")
    estimated_mib: int = Field(alias="estimatedMiB")
    assumed: bool = False


class ProblemStatus(Struct):
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z]*$", max_length=64)]
    message: Annotated[str, StringConstraints(max_length=512)]
    pods: int = 0
    since: str = ""


class ClassStatus(Struct):
    name: str
    profile: str = ""
    plan_hash: str = ""
    pending_plan_hash: str = ""
    desired: int = 0
    ready: int = 0
    deployment: str = ""
    engine_config_map: str = ""
    plan: PlanSummary | None = None
    memory: MemoryStatus | None = None
    problem: ProblemStatus | None = None


class Condition(Struct):
    type: str
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    message: Annotated[str, StringConstraints(max_length=32768)] = ""
    observed_generation: int | None = None
    last_transition_time: str = ""


class TTSServiceStatus(Struct):
    observed_generation: int = 0
    replicas: int = 0
    desired_replicas: int = 0
    ready_replicas: int = 0
    selector: str = ""
    url: str = ""
    gpu_summary: str = ""
    workers_summary: str = ""
    model: ModelStatus | None = None
    classes: tuple[ClassStatus, ...] = ()
    conditions: tuple[Condition, ...] = ()
