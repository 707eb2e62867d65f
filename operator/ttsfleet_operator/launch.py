"""From a TTSService to a process on this machine: which class, which model, which files. Decides, starts nothing.

The operator renders a pod from the same plan and the same command; only `Placement` differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ttsfleet_operator.api.hardware import CPUSelector, HardwareClass
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.engine_config import Command, Placement, render_engine_yaml, serve_command
from ttsfleet_operator.errors import PlanError, UsageError
from ttsfleet_operator.machine import Machine
from ttsfleet_operator.plan import ClassPlan, plan_class
from ttsfleet_operator.profiles import ProfileTable
from ttsfleet_operator.sites import Site, site_of_machine

_FETCHED = {
    "huggingFace": "a Hugging Face repository",
    "modelScope": "a ModelScope repository",
    "s3": "an S3 bucket",
    "https": "an archive behind a URL",
    "oci": "an OCI image",
}


@dataclass(frozen=True)
class LaunchOptions:
    """What the command line adds to the manifest."""

    class_name: str = ""
    force_cpu: bool = False
    model_dir: str = ""
    quant_config: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    management_port: int = 8081


@dataclass(frozen=True)
class Launch:
    """Everything to start: write `engine_yaml` to `config_path`, then execute `command`."""

    service: TTSService
    plan: ClassPlan
    placement: Placement
    config_path: Path
    engine_yaml: str
    command: Command

    @property
    def url(self) -> str:
        return f"http://{reachable(self.placement.host)}:{self.placement.port}"

    @property
    def management_url(self) -> str:
        return f"http://{reachable(self.placement.management_host)}:{self.placement.management_port}"


def prepare_launch(
    service: TTSService, table: ProfileTable, machine: Machine, options: LaunchOptions, state_dir: Path
) -> Launch:
    """Plan `service` for this machine. Raises PlanError when no class fits it, UsageError for a wrong option."""
    hardware_class, site = choose_class(service, table, machine, options)
    plan = plan_class(service, hardware_class, table, site)
    if plan.problem is not None:
        raise PlanError(f"class {plan.class_name} cannot run here: {plan.problem.message}")
    quant_config = options.quant_config
    if plan.engine().get("quant_type") == "custom" and not quant_config:
        raise UsageError("quant_type custom takes its recipe from a ConfigMap; here give --quant-config FILE")
    placement = Placement(
        model_dir=model_reference(service, options.model_dir),
        host=options.host,
        port=options.port,
        management_host="127.0.0.1",
        management_port=options.management_port,
        quant_config=str(Path(quant_config).absolute()) if quant_config else "",
    )
    config_path = state_dir / "engine.yaml"
    return Launch(
        service=service,
        plan=plan,
        placement=placement,
        config_path=config_path,
        engine_yaml=render_engine_yaml(service, plan, placement),
        command=serve_command(service, config_path),
    )


def choose_class(
    service: TTSService, table: ProfileTable, machine: Machine, options: LaunchOptions
) -> tuple[HardwareClass, Site]:
    """The first class, in the manifest's order, that this machine can host; never silently the CPU."""
    classes = service.spec.hardware.classes
    if options.class_name:
        classes = tuple(one for one in classes if one.name == options.class_name)
        if not classes:
            names = ", ".join(one.name for one in service.spec.hardware.classes)
            raise UsageError(f"--class {options.class_name}: {service.name} has the classes {names}")
    if options.force_cpu:
        classes = tuple(one for one in classes if one.cpu is not None) or (
            HardwareClass(name="cpu", cpu=CPUSelector()),
        )
    for one in classes:
        site = site_of_machine(service, one, table, machine)
        if site is not None:
            return one, site
    found = ", ".join(f"{gpu.product} ({gpu.memory_mib} MiB)" for gpu in machine.gpus) or "no GPU"
    wanted = "; ".join(f"{one.name}: {_wanted(one)}" for one in classes)
    raise PlanError(
        f"no class of {service.name} fits this machine, which has {found}. Classes: {wanted}. Add a class with "
        "`cpu: {}`, or give --cpu to run on the CPU"
    )


def model_reference(service: TTSService, model_dir: str) -> str:
    """The runtime's model_dir: `builtin:<name>` or a directory.

    Raises UsageError when the model would have to be fetched, or the directory does not exist.
    """
    source = service.spec.model.source
    if model_dir:
        path = Path(model_dir).expanduser().absolute()
        if not path.is_dir():
            raise UsageError(f"--model-dir {model_dir}: no such directory")
        return str(path)
    if source.builtin is not None:
        return f"builtin:{source.builtin.name}"
    if source.pvc is not None:
        raise UsageError(
            f"spec.model.source.pvc: claim {source.pvc.claim_name} is a cluster's; "
            "give --model-dir DIR with its content"
        )
    raise UsageError(
        f"spec.model.source.{source.kind}: {source.hint} is {_FETCHED[source.kind]}, which the pod's fetch step "
        "downloads; this command does not download yet. Fetch it yourself and give --model-dir DIR"
    )


def reachable(host: str) -> str:
    """The address at which a client on this machine reaches a server that listens on `host`."""
    if host in ("", "0.0.0.0"):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def _wanted(hardware_class: HardwareClass) -> str:
    if hardware_class.gpu is None:
        return "CPU"
    products = ", ".join(hardware_class.gpu.products) or "any GPU"
    memory = hardware_class.gpu.memory_mib
    return f"{products}, from {memory.min} MiB" if memory is not None and memory.min else products
