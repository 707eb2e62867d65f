"""The guide's container settings as a compose file: one class of a TTSService on one machine, without Kubernetes.

The container is the pod's: the same engine.yaml, command, user, read-only root and volumes. A secret becomes a file
beside the compose file; a fetched model is expected in the folder `models`, since compose has no init containers.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from ttsfleet_operator.api.quantity import quantity_value
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.engine_config import (
    API_PORT,
    MANAGEMENT_PORT,
    Placement,
    render_engine_yaml,
    serve_command,
)
from ttsfleet_operator.fleet.settings import FleetSettings
from ttsfleet_operator.manifests.containers import STARTUP_SECONDS, compute_threads, runtime_image, shared_memory
from ttsfleet_operator.manifests.names import Manifest
from ttsfleet_operator.manifests.yaml_text import dump_yaml
from ttsfleet_operator.plan import ClassPlan
from ttsfleet_operator.pod_layout import (
    API_KEY_FILE,
    CACHE_DIR,
    ENGINE_FILE,
    MOUNTED_MODEL_DIR,
    TEMPORARY_DIR,
    USER_ID,
    VOICES_DIR,
    pod_placement,
    stream_seconds,
)

# The guide's container.
MEMORY_LIMIT, MEMORY_REQUEST = "32Gi", "16Gi"
STACK_BYTES = 67108864
OPEN_FILES = 65536
_QUANT_FILE = "/etc/ttsfleet-quant.yaml"


def render_compose(service: TTSService, plan: ClassPlan, settings: FleetSettings) -> str:
    """compose.yaml as text, with what to put beside it in its heading."""
    placement = _placement(service)
    volumes = [f"cache:{CACHE_DIR}", f"voices:{VOICES_DIR}"]
    configs: list[Manifest] = [{"source": "engine", "target": ENGINE_FILE}]
    files: Manifest = {"engine": {"content": render_engine_yaml(service, plan, placement).replace("$", "$$")}}
    program, *arguments = serve_command(service, Path(ENGINE_FILE)).arguments
    container: Manifest = {"image": runtime_image(service, settings)}
    beside = []
    if placement.model_dir == MOUNTED_MODEL_DIR:
        volumes.append(f"./models:{MOUNTED_MODEL_DIR}:ro")
        beside.append(f"models/: the directory of the model {service.spec.model.source.hint}")
    if service.spec.quant_config_ref is not None:
        configs.append({"source": "quant", "target": _QUANT_FILE})
        files["quant"] = {"file": "./quant.yaml"}
        beside.append("quant.yaml: the custom quantisation recipe")
    document: Manifest = {"name": service.name, "services": {service.name: container}}
    if service.spec.network is not None and service.spec.network.api_key_secret_ref is not None:
        arguments += ["--api-key-file", API_KEY_FILE]
        container["secrets"] = [{"source": "api-key", "target": API_KEY_FILE}]
        document["secrets"] = {"api-key": {"file": "./api-key"}}
        beside.append(f"api-key: the key that clients send, readable by user {USER_ID}")
    container |= _settings(service, plan) | {
        "entrypoint": [program],
        "command": arguments,
        "configs": configs,
        "volumes": volumes,
    }
    document |= {"configs": files, "volumes": {"cache": {}, "voices": {}}}
    return _heading(service, plan, beside) + dump_yaml(document)


def _placement(service: TTSService) -> Placement:
    planned = pod_placement(service)
    builtin = service.spec.model.source.builtin is not None
    return Placement(
        model_dir=planned.model_dir if builtin else MOUNTED_MODEL_DIR,
        cache_dir=planned.cache_dir,
        voices_dir=planned.voices_dir,
        quant_config=_QUANT_FILE if service.spec.quant_config_ref is not None else "",
        drain_seconds=planned.drain_seconds,
    )


def _settings(service: TTSService, plan: ClassPlan) -> Manifest:
    hardware_class = next(one for one in service.spec.hardware.classes if one.name == plan.class_name)
    resources = service.spec.resources
    requests = resources.requests if resources is not None else None
    limits = resources.limits if resources is not None else None
    nccl = resources.nccl_ib_disable if resources is not None else None
    environment = {
        "HOME": TEMPORARY_DIR,
        "OMP_NUM_THREADS": str(compute_threads(service, plan)),
        **serve_command(service, Path(ENGINE_FILE)).environment,
        **({"NCCL_IB_DISABLE": "1"} if nccl is not False else {}),
    }
    reserved: Manifest = {"memory": _bytes((requests and requests.memory) or MEMORY_REQUEST)}
    limited: Manifest = {"memory": _bytes((limits and limits.memory) or MEMORY_LIMIT)}
    if requests is not None and requests.cpu is not None:
        reserved["cpus"] = _cores(requests.cpu)
    if limits is not None and limits.cpu is not None:
        limited["cpus"] = _cores(limits.cpu)
    if hardware_class.gpu is not None:
        reserved["devices"] = [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    return {
        "restart": "unless-stopped",
        "user": f"{USER_ID}:{USER_ID}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "environment": dict(sorted(environment.items())),
        "ports": [f"{API_PORT}:{API_PORT}", f"127.0.0.1:{MANAGEMENT_PORT}:{MANAGEMENT_PORT}"],
        "tmpfs": [TEMPORARY_DIR],
        "shm_size": _bytes(shared_memory(service, hardware_class)),
        "ulimits": {"memlock": -1, "stack": STACK_BYTES, "nofile": {"soft": OPEN_FILES, "hard": OPEN_FILES}},
        "stop_grace_period": f"{stream_seconds(service) + 20}s",
        "healthcheck": _healthcheck(),
        "deploy": {"resources": {"limits": limited, "reservations": reserved}},
    }


def _healthcheck() -> Manifest:
    url = f"http://127.0.0.1:{MANAGEMENT_PORT}/readyz"
    probe = f"import urllib.request; urllib.request.urlopen('{url}', timeout=3)"
    return {
        "test": ["CMD", "python", "-c", probe],
        "interval": "10s",
        "timeout": "5s",
        "retries": 6,
        "start_period": f"{STARTUP_SECONDS}s",
    }


def _bytes(quantity: str) -> str:
    """A Kubernetes quantity in compose's units, whose k, m and g are powers of 1024."""
    value = quantity_value(quantity)
    for exponent, unit in ((3, "g"), (2, "m"), (1, "k")):
        whole = value / Decimal(1024) ** exponent
        if whole == whole.to_integral_value():
            return f"{int(whole)}{unit}"
    return f"{int(value)}b"


def _cores(quantity: str) -> str:
    return f"{quantity_value(quantity).normalize():f}"


def _heading(service: TTSService, plan: ClassPlan, beside: list[str]) -> str:
    lines = [
        f"Rendered for {service.name}, class {plan.class_name}, profile {plan.profile.name}: `docker compose up`."
    ]
    lines += ["Put beside this file:"] * bool(beside) + [f"- {one}" for one in beside]
    return "".join(f"# {line}\n" for line in lines)
