"""The two containers of a pod: the fetch step, and the runtime. Both under Pod Security `restricted`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ttsfleet_operator.api.hardware import HardwareClass
from ttsfleet_operator.api.quantity import quantity_value
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.api.workload import ResourceRequests
from ttsfleet_operator.engine_config import API_PORT, MANAGEMENT_PORT, PROGRAM, serve_command
from ttsfleet_operator.fleet.settings import FleetSettings
from ttsfleet_operator.manifests.names import Manifest
from ttsfleet_operator.manifests.volumes import Storage
from ttsfleet_operator.plan import ClassPlan
from ttsfleet_operator.pod_layout import API_KEY_FILE, ENGINE_FILE, FETCH_FILE, TEMPORARY_DIR

# Seconds between the end of a pod's endpoint and SIGTERM: proxies still send requests meanwhile.
ENDPOINT_SECONDS = 5
# What an HTTP worker gets beyond the streams' time, plus the end of the stages, with room.
SHUTDOWN_SECONDS = 20
# From the runtime's start to its first readiness: converting a model for the first time, loading it, the self-test.
STARTUP_SECONDS = 1800
_STARTUP_PERIOD = 3
_STUCK_GRACE_SECONDS = 30  # a router that does not answer has no stream to end

_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_FETCH_RESOURCES: Manifest = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}}
# A pod has CPUs of its own only when each of its containers asks for all that it may use.
_EXCLUSIVE_FETCH_RESOURCES: Manifest = {
    "requests": {"cpu": "1", "memory": "2Gi"},
    "limits": {"cpu": "1", "memory": "2Gi"},
}


def runtime_container(
    service: TTSService, hardware_class: HardwareClass, plan: ClassPlan, settings: FleetSettings, storage: Storage
) -> Manifest:
    """The container that serves."""
    command = serve_command(service, Path(ENGINE_FILE))
    arguments = list(command.arguments[1:])
    if service.spec.network is not None and service.spec.network.api_key_secret_ref is not None:
        arguments += ["--api-key-file", API_KEY_FILE]
    environment = {"HOME": TEMPORARY_DIR, "OMP_NUM_THREADS": str(compute_threads(service, plan))}
    if hardware_class.gpu is None:
        environment["NVIDIA_VISIBLE_DEVICES"] = "void"  # images of CUDA show a pod without a device all of the node's
    return {
        "name": "runtime",
        "image": runtime_image(service, settings),
        "imagePullPolicy": settings.image_pull_policy,
        "command": [command.arguments[0]],
        "args": arguments,
        "env": _environment(environment | command.environment),
        "ports": [
            {"name": "http", "containerPort": API_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": MANAGEMENT_PORT, "protocol": "TCP"},
        ],
        "resources": pod_resources(service, hardware_class, plan),
        **_probes(),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(ENDPOINT_SECONDS)]}}},
        "securityContext": _SECURITY,
        "volumeMounts": storage.serving,
    }


def fetch_container(service: TTSService, settings: FleetSettings, storage: Storage) -> Manifest:
    """The init container that gets the model, or checks a mounted one. Only it learns of the proxies."""
    exclusive = service.spec.resources is not None and service.spec.resources.exclusive_cpus > 0
    environment = {
        "HOME": TEMPORARY_DIR,
        "HTTP_PROXY": settings.http_proxy,
        "HTTPS_PROXY": settings.https_proxy,
        "NO_PROXY": settings.no_proxy,
    }
    return {
        "name": "fetch",
        "image": runtime_image(service, settings),
        "imagePullPolicy": settings.image_pull_policy,
        "command": [PROGRAM],
        "args": ["fetch", "--config", FETCH_FILE],
        "env": _environment({name: value for name, value in environment.items() if value}),
        "resources": _EXCLUSIVE_FETCH_RESOURCES if exclusive else _FETCH_RESOURCES,
        "securityContext": _SECURITY,
        "volumeMounts": storage.fetching,
    }


def runtime_image(service: TTSService, settings: FleetSettings) -> str:
    """The image asked for, else the release's."""
    given = service.spec.runtime.image if service.spec.runtime is not None else ""
    return given or settings.runtime_image


def pod_resources(service: TTSService, hardware_class: HardwareClass, plan: ClassPlan) -> Manifest:
    """Requests and limits. A user who gives one of the two for a resource decides both: we add none that might
    contradict."""
    asked = service.spec.resources
    user_requests = _given(asked.requests if asked is not None else None)
    user_limits = _given(asked.limits if asked is not None else None)
    requests, limits = _planned(hardware_class, plan)
    decided = user_requests.keys() | user_limits.keys()
    requests = {name: value for name, value in requests.items() if name not in decided} | user_requests
    limits = {name: value for name, value in limits.items() if name not in decided} | user_limits
    for name in limits.keys() - requests.keys():
        requests[name] = limits[name]  # what Kubernetes would default to; said here, so that nothing differs
    if hardware_class.gpu is not None:
        requests[hardware_class.gpu.resource_name] = limits[hardware_class.gpu.resource_name] = "1"
    return {"requests": dict(sorted(requests.items())), "limits": dict(sorted(limits.items()))}


def shared_memory(service: TTSService, hardware_class: HardwareClass) -> str:
    """The size of /dev/shm: as given, else the guide's 4 GiB (1 GiB for the CPU class), but at most half of a memory
    limit that the user gives, since it counts towards that."""
    resources = service.spec.resources
    if resources is not None and resources.shared_memory is not None:
        return resources.shared_memory
    usual = "1Gi" if hardware_class.gpu is None else "4Gi"
    limit = resources.limits.memory if resources is not None and resources.limits is not None else None
    if limit is None or quantity_value(limit) >= 2 * quantity_value(usual):
        return usual
    return f"{max(1, int(quantity_value(limit)) >> 21)}Mi"


def _planned(hardware_class: HardwareClass, plan: ClassPlan) -> tuple[dict[str, str], dict[str, str]]:
    """Requests and limits where the user gives none.

    On a GPU the guide's container (16 GiB, 32 GiB), and half for a single worker, whose machines are small; on the
    CPU by the memory estimate. Cores: two per worker, so that a pod fits the smallest machines that are sold with
    its card; without a limit it uses what is idle.
    """
    if hardware_class.gpu is None:
        memory = 256 * -(-plan.memory.total_mib // 256)
        return {"cpu": "1", "memory": f"{memory}Mi"}, {"memory": f"{2 * memory}Mi"}
    workers = plan.engine()["workers"]
    assert isinstance(workers, int)
    cores = max(1, min(2 * workers, plan.site.cores // 2))
    request, limit = ("8Gi", "16Gi") if workers == 1 else ("16Gi", "32Gi")
    return {"cpu": str(cores), "memory": request}, {"memory": limit}


def _given(resources: ResourceRequests | None) -> dict[str, str]:
    return {} if resources is None else resources.model_dump(exclude_none=True)


def compute_threads(service: TTSService, plan: ClassPlan) -> int:
    """OMP_NUM_THREADS: as asked, else the most that a stage gets. Stages have their own number in engine.yaml; this
    one is for what runs before them, such as the conversion of the model."""
    asked = service.spec.resources.omp_threads if service.spec.resources is not None else None
    if asked is not None:
        return asked
    counts = [value for name, value in plan.engine().items() if name.startswith("threads.")]
    return max([1, *(count for count in counts if isinstance(count, int))])


def _environment(values: Mapping[str, str]) -> list[Manifest]:
    return [{"name": name, "value": value} for name, value in sorted(values.items())]


def _probes() -> Manifest:
    """Startup by readiness, so that the other two begin with a loaded model; afterwards readiness every two seconds,
    and liveness slowly: a router that is merely busy must not be killed."""
    ready = {"httpGet": {"path": "/readyz", "port": "metrics", "scheme": "HTTP"}}
    live = {"httpGet": {"path": "/livez", "port": "metrics", "scheme": "HTTP"}}
    return {
        "startupProbe": {
            **ready,
            "periodSeconds": _STARTUP_PERIOD,
            "timeoutSeconds": 3,
            "failureThreshold": STARTUP_SECONDS // _STARTUP_PERIOD,
            "terminationGracePeriodSeconds": _STUCK_GRACE_SECONDS,
        },
        "readinessProbe": {**ready, "periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 2},
        "livenessProbe": {
            **live,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
            "terminationGracePeriodSeconds": _STUCK_GRACE_SECONDS,
        },
    }
