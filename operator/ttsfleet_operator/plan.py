"""From a TTSService, the sizing table and a site to the plan of one hardware class. Pure: no cluster, no clock.

Layers, later ones win: guide rules, profile, `spec.engine`, `classes[].engine`. What no user has fixed and the
device cannot do is replaced; the memory model then checks the whole and lowers what no user has fixed. What still
does not fit is a `Problem` that says what would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ttsfleet_operator.api.engine import EngineOverrides
from ttsfleet_operator.api.hardware import HardwareClass
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.memory import MemoryEstimate, ModelShape, estimate_gpu, estimate_host, guess_shape
from ttsfleet_operator.memory_fit import Lowering, lower_to_fit
from ttsfleet_operator.plan_rules import GPU_ONLY, guide_values, thread_values
from ttsfleet_operator.profiles import (
    BF16_CAPABILITY,
    FP8_CAPABILITY,
    TENSORRT_RTX_CAPABILITIES,
    Profile,
    ProfileTable,
)
from ttsfleet_operator.sites import Site, label_values


class Origin(StrEnum):
    """Who decided a value."""

    GUIDE = "guide rule"
    PROFILE = "profile"
    SPEC = "spec.engine"
    CLASS = "class override"
    RESOURCES = "spec.resources"
    MEMORY = "memory model"
    DEVICE = "device"


FP8_QUANT = "triton-fp8w8a8-b128"
USER_ORIGINS = frozenset({Origin.SPEC, Origin.CLASS, Origin.RESOURCES})


@dataclass(frozen=True)
class PlannedValue:
    """One engine value; `name` is dotted as in engine.yaml."""

    name: str
    value: object
    origin: Origin
    reason: str


@dataclass(frozen=True)
class Problem:
    """Why a class cannot run as asked. `reason` is the condition's reason, `message` says what would help."""

    reason: str
    message: str


@dataclass(frozen=True)
class ClassPlan:
    """Everything decided for one class. `problem` set = it must not be started."""

    class_name: str
    site: Site
    profile: Profile
    shape: ModelShape
    values: tuple[PlannedValue, ...]
    memory: MemoryEstimate
    problem: Problem | None
    warnings: tuple[str, ...]
    products: tuple[str, ...] = ()  # of a GPU class: every label value that names one of its products; empty = any

    def engine(self) -> dict[str, object]:
        """The engine values by dotted name."""
        return {value.name: value.value for value in self.values}


def plan_class(service: TTSService, hardware_class: HardwareClass, table: ProfileTable, site: Site) -> ClassPlan:
    """The plan of one class on `site`. Raises PlanError when the class names an unknown profile."""
    profile = table.named(hardware_class.profile) if hardware_class.profile else site.profile
    values = _layered(service, hardware_class, profile, site)
    shape, known = guess_shape(service.spec.model.source.hint)
    warnings = [] if known else [f"the model is not a known one: memory is estimated as for {shape.name}"]
    warnings += _warnings(values, site)
    problem = _contradiction(values, shape if known else None, site)
    values, memory, lack = _fitted(values, service, shape, site)
    return ClassPlan(
        class_name=hardware_class.name,
        site=site,
        profile=profile,
        shape=shape,
        values=tuple(sorted(values.values(), key=lambda value: value.name)),
        memory=memory,
        problem=problem or lack,
        warnings=tuple(warnings),
        products=() if hardware_class.gpu is None else label_values(hardware_class.gpu, table),
    )


def estimate_memory(
    service: TTSService, shape: ModelShape, site: Site, engine: Mapping[str, object]
) -> MemoryEstimate:
    """What `engine`, with every value of a plan, takes on `site`."""
    measure = estimate_gpu if site.on_gpu else estimate_host
    return measure(shape, engine, site.memory_mib, len(service.spec.styles))


def _layered(
    service: TTSService, hardware_class: HardwareClass, profile: Profile, site: Site
) -> dict[str, PlannedValue]:
    values = {
        name: PlannedValue(name, value, Origin.GUIDE, reason)
        for name, (value, reason) in guide_values(site.on_gpu, site.cores).items()
    }
    layers: tuple[tuple[EngineOverrides | None, Origin, str], ...] = (
        (profile.engine, Origin.PROFILE, profile.name),
        (service.spec.engine, Origin.SPEC, "given for all classes"),
        (hardware_class.engine, Origin.CLASS, f"given for class {hardware_class.name}"),
    )
    for overrides, origin, reason in layers:
        for name, value in _as_planned(overrides).items():
            values[name] = PlannedValue(name, value, origin, reason)
    return _with_dependents(_as_the_device_can(values, site), service, site)


def _as_the_device_can(values: dict[str, PlannedValue], site: Site) -> dict[str, PlannedValue]:
    """A profile may stand for a device that can more than one of the site's: replace what nobody has asked for."""
    if not site.on_gpu:
        return values
    without_tensorrt = not site.all_capabilities <= TENSORRT_RTX_CAPABILITIES
    rules: tuple[tuple[str, object, bool, object, str], ...] = (
        ("quant_type", FP8_QUANT, site.capability < FP8_CAPABILITY, "triton_int8weight", "compute capability 8.9"),
        ("data_type", "bf16", site.capability < BF16_CAPABILITY, "fp16", "compute capability 8.0"),
        ("load_trt", True, without_tensorrt, False, "a card that TensorRT for RTX supports"),
    )
    for name, unable, applies, instead, need in rules:
        given = values.get(name)
        if applies and given is not None and given.value == unable and given.origin not in USER_ORIGINS:
            reason = f"{_shown(unable)} ({given.origin}) needs {need}"
            values[name] = PlannedValue(name, instead, Origin.DEVICE, reason)
    return values


def _as_planned(overrides: EngineOverrides | None) -> dict[str, object]:
    """The given values, with the older switch of the KV cache turned into the mode that decides."""
    given = {} if overrides is None else overrides.given()
    switch = given.pop("enable_kv_cache_quant", None)
    if switch is not None:
        given.setdefault("kv_cache_mode", "int8" if switch else "none")
    return given


def _with_dependents(values: dict[str, PlannedValue], service: TTSService, site: Site) -> dict[str, PlannedValue]:
    """Values that follow from others: threads from the decoder count, and the request length from the pool."""
    decoders = values["decode_process_num"].value
    assert isinstance(decoders, int)
    for name, (value, reason) in thread_values(site.on_gpu, site.cores, decoders).items():
        values[name] = PlannedValue(name, value, Origin.GUIDE, reason)
    threads = service.spec.resources.omp_threads if service.spec.resources else None
    if threads is not None:
        for stage in ("encode", "llm", "decode"):
            name = f"threads.{stage}"
            values[name] = PlannedValue(name, threads, Origin.RESOURCES, "ompThreads")
    return _with_consistent_lengths(values)


def _with_consistent_lengths(values: dict[str, PlannedValue]) -> dict[str, PlannedValue]:
    """Where a user fixed one of two related values the other follows; `_contradiction` judges two fixed ones."""
    pairs = (
        ("max_req_total_len", "max_total_token_num", "a request must fit the pool"),
        ("gpt_paral_num", "batch_max_tokens", "each sequence takes one position of a step"),
    )
    for lesser_name, greater_name, rule in pairs:
        lesser, greater = values[lesser_name], values[greater_name]
        if _number(lesser) <= _number(greater):
            continue
        if greater.origin not in USER_ORIGINS and lesser.origin in USER_ORIGINS:
            reason = f"{rule}: {lesser_name} is {lesser.value} ({lesser.origin})"
            values[greater_name] = replace(greater, value=lesser.value, reason=reason)
        elif lesser.origin not in USER_ORIGINS:
            reason = f"{rule}: {greater_name} is {greater.value} ({greater.origin})"
            values[lesser_name] = replace(lesser, value=greater.value, reason=reason)
    return values


def _contradiction(values: Mapping[str, PlannedValue], shape: ModelShape | None, site: Site) -> Problem | None:
    """What no memory can heal: values that the device, the model or each other exclude."""
    for lesser, greater in (("max_req_total_len", "max_total_token_num"), ("gpt_paral_num", "batch_max_tokens")):
        low, high = values[lesser], values[greater]
        if _number(low) > _number(high):
            message = (
                f"{lesser} {low.value} ({low.origin}) exceeds {greater} {high.value} ({high.origin}); "
                "lower the first or raise the second"
            )
            return Problem("InvalidPlan", message)
    quant = values.get("quant_type")
    fp8 = quant is not None and quant.value == FP8_QUANT
    if site.on_gpu and quant is not None and fp8 and site.capability < FP8_CAPABILITY:
        return Problem(
            "UnsupportedQuantization",
            f"quant_type {quant.value} ({quant.origin}) needs compute capability 8.9; {site.product} has "
            f"{site.capability[0]}.{site.capability[1]}; use triton_int8weight",
        )
    return None if shape is None else _attention_contradiction(values, shape)


def _attention_contradiction(values: Mapping[str, PlannedValue], shape: ModelShape) -> Problem | None:
    group = shape.query_heads // shape.kv_heads
    for name, right in (("enable_gqa", group > 1), ("gqa_group_size", group)):
        if name in values and values[name].value != right:
            return Problem(
                "InvalidPlan",
                f"{name} {_shown(values[name].value)} contradicts the model {shape.name}, which has "
                f"{shape.query_heads} query and {shape.kv_heads} KV heads; remove {name}, it is read from the model",
            )
    return None


def _warnings(values: Mapping[str, PlannedValue], site: Site) -> list[str]:
    warnings = []
    if not site.on_gpu:
        for name, value in values.items():
            if name in GPU_ONLY and value.value not in ("none", False):
                warnings.append(f"{name} {_shown(value.value)} ({value.origin}) needs a GPU: no effect here")
        if values["data_type"].value != "fp32":
            warnings.append(f"data_type {values['data_type'].value} needs a GPU: the CPU computes in fp32")
    warnings += site.notes
    if site.assumed and not site.notes:
        seen = f"no device was seen: memory and capability are those of profile {site.profile.name}"
        limit = "no memory limit is given (spec.resources.limits.memory): the guide's container is assumed"
        warnings.append(f"{seen if site.on_gpu else limit}, {site.memory_mib} MiB")
    return warnings


def _fitted(
    values: dict[str, PlannedValue], service: TTSService, shape: ModelShape, site: Site
) -> tuple[dict[str, PlannedValue], MemoryEstimate, Problem | None]:
    """Lower what no user fixed until the plan fits; otherwise keep it and say what would fit."""

    def estimate(engine: Mapping[str, object]) -> MemoryEstimate:
        return estimate_memory(service, shape, site, engine)

    wanted = {name: value.value for name, value in values.items()}
    first = estimate(wanted)
    if first.fits:
        return values, first, None
    fixed = frozenset(name for name, value in values.items() if value.origin in USER_ORIGINS)
    lowering = lower_to_fit(wanted, fixed, estimate)
    if lowering is not None:
        return _lowered(values, lowering, first), lowering.estimate, None
    return values, first, _lack(first, lower_to_fit(wanted, frozenset(), estimate), site, fixed)


def _lowered(values: dict[str, PlannedValue], lowering: Lowering, first: MemoryEstimate) -> dict[str, PlannedValue]:
    result = dict(values)
    for name, value in lowering.changes.items():
        before = values[name]
        reason = f"{_shown(before.value)} ({before.origin}) needs {first.total_mib} of {first.usable_mib} usable MiB"
        result[name] = PlannedValue(name, value, Origin.MEMORY, reason)
    return result


def _lack(first: MemoryEstimate, free: Lowering | None, site: Site, fixed: frozenset[str]) -> Problem:
    needs = (
        f"the plan needs {first.total_mib} MiB; {site.product} has {first.usable_mib} usable of {first.device_mib}"
    )
    if free is None:
        return Problem("OutOfMemory", f"{needs}, and no smaller plan fits; use a larger device")
    asked = [name for name in free.changes if name in fixed]
    changes = ", ".join(f"{name}: {_shown(free.changes[name])}" for name in asked)
    return Problem("OutOfMemory", f"{needs}; {changes} would fit ({free.estimate.total_mib} MiB)")


def _number(value: PlannedValue) -> int:
    assert isinstance(value.value, int), value.name
    return value.value


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
