"""Where things lie in a pod: paths, ports, the user, and how long streams may take to end. Data, and two look-ups.

Everything below /etc/ttsfleet is read-only and mounted; what is written goes to volumes, since the root is read-only.
The model cache holds what the fetch step got (`models/`) and the compute-ready forms made from it (`bundles/`): on a
claim both outlive the pod, so that a restart neither downloads nor converts.
"""

from __future__ import annotations

import hashlib
import json
import re

from ttsfleet_operator.api.model import ModelSource
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.engine_config import Placement

USER_ID = 10001
CONFIG_DIR = "/etc/ttsfleet"
ENGINE_FILE = f"{CONFIG_DIR}/engine.yaml"
FETCH_FILE = f"{CONFIG_DIR}/fetch.yaml"
# Beside CONFIG_DIR, not below it: a volume cannot be mounted into a read-only volume.
QUANT_DIR = "/etc/ttsfleet-quant"
CA_DIR = "/etc/ttsfleet-ca"
API_KEY_DIR = "/etc/ttsfleet-api-key"
API_KEY_FILE = f"{API_KEY_DIR}/key"
CREDENTIALS_DIR = "/etc/ttsfleet-credentials"
TOKEN_FILE = f"{CREDENTIALS_DIR}/token"
CACHE_DIR = "/var/cache/ttsfleet"
FETCHED_DIR = f"{CACHE_DIR}/models"
BUNDLES_DIR = f"{CACHE_DIR}/bundles"
MOUNTED_MODEL_DIR = "/models"
VOICES_DIR = "/var/lib/ttsfleet/voices"
SHARED_MEMORY_DIR = "/dev/shm"
TEMPORARY_DIR = "/tmp"

DEFAULT_REQUEST_SECONDS = 300  # the runtime's deadline of a request: no stream is longer
FETCHED_SOURCES = frozenset({"huggingFace", "modelScope", "s3", "https"})


def pod_placement(service: TTSService) -> Placement:
    """Where the files and ports of `service` are in its pods."""
    quant = service.spec.quant_config_ref
    resources = service.spec.resources
    return Placement(
        model_dir=pod_model_dir(service.spec.model.source),
        cache_dir=BUNDLES_DIR,
        voices_dir=VOICES_DIR,
        quant_config=f"{QUANT_DIR}/{quant.key}" if quant is not None else "",
        exclusive_cpus=resources.exclusive_cpus
        if resources is not None and resources.cpu_affinity != "Disabled"
        else 0,
        exclusive_by_node=resources is not None and resources.numa != "Disabled",
        drain_seconds=float(stream_seconds(service)),
    )


def pod_model_dir(source: ModelSource) -> str:
    """The runtime's model_dir: fetched into the cache, mounted, or built in."""
    if source.builtin is not None:
        return f"builtin:{source.builtin.name}"
    if source.kind in FETCHED_SOURCES:
        return f"{FETCHED_DIR}/{_folder_name(source)}"
    return MOUNTED_MODEL_DIR


def stream_seconds(service: TTSService) -> int:
    """How long streams may take to end in a pod that must go: as given, else the deadline of a request."""
    rollout, server = service.spec.rollout, service.spec.server
    if rollout is not None and rollout.drain is not None and rollout.drain.max_stream_seconds is not None:
        return rollout.drain.max_stream_seconds
    if server is not None and server.timeout is not None:
        return round(server.timeout)
    return DEFAULT_REQUEST_SECONDS


def _folder_name(source: ModelSource) -> str:
    """A folder per model and revision, so that a changed source never mixes with what an old pod still reads.

    Endpoints of hubs and credentials are left out: a mirror has the same files. Defaults too, so that a field which a
    later release adds moves no model.
    """
    wire = source.model_dump(exclude_defaults=True)[source.kind]
    for name in ("tokenSecretRef", "secretRef", *(("endpoint",) if "repo" in wire else ())):
        wire.pop(name, None)
    digest = hashlib.sha256(json.dumps([source.kind, wire], sort_keys=True).encode()).hexdigest()[:8]
    last = source.hint.rstrip("/").rpartition("/")[2].lower()
    slug = re.sub(r"[^a-z0-9.]+", "-", last).strip("-.")[:40].strip("-.")
    return f"{slug}-{digest}" if slug else digest
