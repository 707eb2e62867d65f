"""The closed set of reasons: what each means as a message, and what a person can do.

A message is its template filled with names and codes. Numbers that drift while nothing happens (free devices, restart
counts, back-off times) are in no template, so an unchanged trouble is an unchanged status. Order = rank: of several
problems of one class the first is shown. One table, so longer than other modules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from ttsfleet_operator.plan import Problem

MAX_MESSAGE = 512


class Urgency(StrEnum):
    """When a problem makes the resource `Stalled`."""

    NONE = "none"  # a state, no problem
    DECIDED = "decided"  # at once: only a change of the spec or the cluster's objects helps
    FAULT = "fault"  # after `FAULT_PATIENCE_SECONDS`: a retry may heal it
    WAIT = "wait"  # after rollout.progressDeadlineSeconds: capacity may come


FAULT_PATIENCE_SECONDS = 60


class Entry(NamedTuple):
    urgency: Urgency
    template: str
    remedy: str


class Reason(StrEnum):
    """Every reason of a condition, a class's problem or an Event."""

    # The operator acts on nothing, or not on everything.
    NAME_CONFLICT = "NameConflict"
    VERSION_SKEW = "VersionSkew"
    INVALID_SPEC = "InvalidSpec"
    APPLY_REFUSED = "ApplyRefused"
    DELETE_REFUSED = "DeleteRefused"
    # No plan.
    INVALID_PLAN = "InvalidPlan"
    OUT_OF_MEMORY = "OutOfMemory"
    UNSUPPORTED_QUANTIZATION = "UnsupportedQuantization"
    UNKNOWN_PROFILE = "UnknownProfile"
    UNKNOWN_PRODUCT = "UnknownProduct"
    MIXED_GPUS = "MixedGPUs"
    MIG_INVALID = "MIGInvalid"
    SHARING_UNKNOWN = "SharingUnknown"
    MISSING_CONFIG_MAP = "MissingConfigMap"
    REPLICAS_EXCEED_CLASSES = "ReplicasExceedClasses"
    # The API server refuses the class's pods.
    QUOTA_EXCEEDED = "QuotaExceeded"
    LIMIT_RANGE_EXCEEDED = "LimitRangeExceeded"
    POD_SECURITY_REFUSED = "PodSecurityRefused"
    ADMISSION_DENIED = "AdmissionDenied"
    SERVICE_ACCOUNT_MISSING = "ServiceAccountMissing"
    PRIORITY_CLASS_MISSING = "PriorityClassMissing"
    RUNTIME_CLASS_MISSING = "RuntimeClassMissing"
    PODS_REFUSED = "PodsRefused"
    # A pod cannot start.
    INVALID_IMAGE_NAME = "InvalidImageName"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    CREATE_CONTAINER_CONFIG_ERROR = "CreateContainerConfigError"
    VOLUME_MOUNT_FAILED = "VolumeMountFailed"
    CREATE_CONTAINER_ERROR = "CreateContainerError"
    NODE_REFUSED_POD = "NodeRefusedPod"
    # The model does not arrive.
    FETCH_FAILED = "FetchFailed"
    FETCH_DENIED = "FetchDenied"
    FETCH_NOT_FOUND = "FetchNotFound"
    FETCH_CHECKSUM_MISMATCH = "FetchChecksumMismatch"
    FETCH_NO_SPACE = "FetchNoSpace"
    FETCH_TIMEOUT = "FetchTimeout"
    FETCH_UNREACHABLE = "FetchUnreachable"
    FETCH_INVALID_SOURCE = "FetchInvalidSource"
    FETCH_UNSAFE_CONTENT = "FetchUnsafeContent"
    FETCH_LOCK_TIMEOUT = "FetchLockTimeout"
    INIT_FAILED = "InitFailed"
    # A pod runs and fails.
    OOM_KILLED = "OOMKilled"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    READINESS_FAILING = "ReadinessFailing"
    # A pod has no node, or lost it.
    INSUFFICIENT_GPU = "InsufficientGPU"
    INSUFFICIENT_CPU = "InsufficientCPU"
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    INSUFFICIENT_RESOURCES = "InsufficientResources"
    VOLUME_NOT_BOUND = "VolumeNotBound"
    NODE_TAINTS = "NodeTaints"
    TOPOLOGY_CONSTRAINT = "TopologyConstraint"
    NO_MATCHING_NODE = "NoMatchingNode"
    SCHEDULING_GATED = "SchedulingGated"
    UNSCHEDULABLE = "Unschedulable"
    NODE_LOST = "NodeLost"
    EVICTED = "Evicted"
    DEVICE_UNHEALTHY = "DeviceUnhealthy"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    # Somebody else writes what is the operator's.
    FIELD_CONFLICT = "FieldConflict"
    FOREIGN_SCALER = "ForeignScaler"
    # States.
    BELOW_DESIRED = "BelowDesired"
    SERVING = "Serving"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"
    SCALED_TO_ZERO = "ScaledToZero"
    FIRST_SIGHT = "FirstSight"
    STARTING = "Starting"
    SCALING_FROM_ZERO = "ScalingFromZero"
    NOT_SERVING = "NotServing"
    ROLLING_OUT = "RollingOut"
    ROLLING_OUT_WITHOUT_SPARE = "RollingOutWithoutSpare"
    SCALING = "Scaling"
    APPLYING = "Applying"
    NOTHING_WANTED = "NothingWanted"
    MODEL_FETCHED = "ModelFetched"
    MODEL_IN_IMAGE = "ModelInImage"
    FETCHING = "Fetching"
    PROFILES_MATCHED = "ProfilesMatched"
    PROFILES_ASSUMED = "ProfilesAssumed"
    ALL_SCHEDULED = "AllScheduled"
    SCHEDULING = "Scheduling"
    AVAILABLE = "Available"
    # Events only.
    PROBLEM_SOLVED = "ProblemSolved"
    PLAN_CHANGED = "PlanChanged"
    PLAN_PENDING = "PlanPending"

    @property
    def urgency(self) -> Urgency:
        return ENTRIES[self].urgency

    @property
    def remedy(self) -> str:
        """What a person can do; "" where nothing is wrong."""
        return ENTRIES[self].remedy

    @property
    def rank(self) -> int:
        return _RANK[self]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `since` is when the cluster says that it began; None = it does not say."""

    reason: Reason
    message: str
    since: datetime | None = None


def say(reason: Reason, /, **facts: object) -> str:
    """The reason's message. Facts are names and codes; each is cut and stripped of control characters."""
    return clip(ENTRIES[reason].template.format(**{name: _plain(value) for name, value in facts.items()}))


def finding(reason: Reason, since: datetime | None = None, /, **facts: object) -> Finding:
    return Finding(reason, say(reason, **facts), since)


def of_plan(problem: Problem, class_name: str = "") -> Finding:
    """A problem of the plan: its message is the plan's own, which quotes nothing but the spec and node labels."""
    known = Reason(problem.reason) if problem.reason in _VALUES else Reason.INVALID_PLAN
    return Finding(known, clip(problem.message.removeprefix(f"class {class_name}: ")))


def clip(text: str, limit: int = MAX_MESSAGE) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _plain(value: object) -> object:
    if not isinstance(value, str):
        return value
    return clip(re.sub(r"[\x00-\x1f\x7f]+", " ", value), 256)


def _decided(template: str, remedy: str) -> Entry:
    return Entry(Urgency.DECIDED, template, remedy)


def _fault(template: str, remedy: str) -> Entry:
    return Entry(Urgency.FAULT, template, remedy)


def _wait(template: str, remedy: str) -> Entry:
    return Entry(Urgency.WAIT, template, remedy)


def _state(template: str, remedy: str = "") -> Entry:
    return Entry(Urgency.NONE, template, remedy)


_SERVES = "{ready} of {desired} replicas serve"

ENTRIES: dict[Reason, Entry] = {
    Reason.NAME_CONFLICT: _decided(
        "{objects} exists and is not ours; it is left alone",
        "rename the TTSService, or delete or rename the object",
    ),
    Reason.VERSION_SKEW: _decided(
        "runtime {image} cannot be run by operator {release}",
        "set spec.runtime.image to an image of the operator's release, or leave it empty; or upgrade the operator",
    ),
    Reason.INVALID_SPEC: _decided(
        "{message}", "correct the fields that the message names; the definition in the cluster may be an older one"
    ),
    Reason.APPLY_REFUSED: _decided(
        "the API server refuses {object} ({fields})",
        "correct the part of the spec that the fields come from; the operator's log has the API server's words",
    ),
    Reason.DELETE_REFUSED: _decided(
        "{object} is not wanted any more, and the API server refuses to delete it ({cause})",
        "allow the operator to delete it, or delete it yourself; the operator's log has the API server's words",
    ),
    Reason.INVALID_PLAN: _decided("{message}", "change the values that the message names"),
    Reason.OUT_OF_MEMORY: _decided(
        "{message}", "lower the values that the message names, or give the class a larger device"
    ),
    Reason.UNSUPPORTED_QUANTIZATION: _decided("{message}", "use quant_type triton_int8weight, or a newer device"),
    Reason.UNKNOWN_PROFILE: _decided(
        "{message}", "correct classes[].profile, or create a TTSGPUProfile of that name"
    ),
    Reason.UNKNOWN_PRODUCT: _decided(
        "{message}", "give gpu.memoryMiB.min or a profile, or create a TTSGPUProfile for the product"
    ),
    Reason.MIXED_GPUS: _decided(
        "{message}", "label nodes by one product each, or select a product that is alone on its nodes"
    ),
    Reason.MIG_INVALID: _decided("{message}", "repair the MIG configuration of the node"),
    Reason.SHARING_UNKNOWN: _decided(
        "{message}", "update GPU feature discovery, or label the node with nvidia.com/gpu.replicas"
    ),
    Reason.MISSING_CONFIG_MAP: _fault("{message}", "create the ConfigMap with that key in the service's namespace"),
    Reason.REPLICAS_EXCEED_CLASSES: _state(
        "{message}", "raise classes[].maxReplicas, add a class, or lower spec.replicas"
    ),
    Reason.QUOTA_EXCEEDED: _wait(
        "quota {quota} of the namespace has not enough {resources} left",
        "raise the ResourceQuota, or lower spec.replicas",
    ),
    Reason.LIMIT_RANGE_EXCEEDED: _decided(
        "a LimitRange of the namespace refuses the pods' resources", "change spec.resources or the LimitRange"
    ),
    Reason.POD_SECURITY_REFUSED: _decided(
        "the namespace's Pod Security level {level} refuses the pods",
        "look at spec.pod and spec.model.source for what the level forbids, or use another namespace",
    ),
    Reason.ADMISSION_DENIED: _decided(
        "{webhook} denies {objects}",
        "ask who runs that admission control; `kubectl describe replicaset` has its words",
    ),
    Reason.SERVICE_ACCOUNT_MISSING: _decided(
        "ServiceAccount {name} does not exist", "create it, or correct spec.pod.serviceAccountName"
    ),
    Reason.PRIORITY_CLASS_MISSING: _decided(
        "PriorityClass {name} does not exist", "create it, or correct spec.pod.priorityClassName"
    ),
    Reason.RUNTIME_CLASS_MISSING: _decided(
        "RuntimeClass {name} does not exist", "create it, or correct spec.pod.runtimeClassName"
    ),
    Reason.PODS_REFUSED: _fault(
        "the API server refuses to create the pods", "`kubectl describe replicaset` has the API server's words"
    ),
    Reason.INVALID_IMAGE_NAME: _decided("{image} is no valid image name", "correct spec.runtime.image"),
    Reason.IMAGE_PULL_BACK_OFF: _fault(
        "image {image} cannot be pulled: {cause}",
        "check the image's name and tag, spec.runtime.imagePullSecrets, and that nodes reach the registry",
    ),
    Reason.CREATE_CONTAINER_CONFIG_ERROR: _fault(
        "container {container} cannot be configured: {cause}", "create the Secret or ConfigMap, with that key"
    ),
    Reason.VOLUME_MOUNT_FAILED: _fault(
        "a volume cannot be mounted: {cause}",
        "create the missing Secret, ConfigMap or claim; `kubectl describe pod` has the kubelet's words",
    ),
    Reason.CREATE_CONTAINER_ERROR: _fault(
        "container {container} cannot be created ({cause})", "`kubectl describe pod` has the kubelet's words"
    ),
    Reason.NODE_REFUSED_POD: _fault(
        "the node's kubelet refused the pod ({cause})", "check the device plugin and the kubelet of the node"
    ),
    Reason.FETCH_FAILED: _fault(
        "fetching the model failed (exit code {code})", "`kubectl logs POD -c fetch` tells more"
    ),
    Reason.FETCH_DENIED: _fault(
        "the model's source denies access",
        "check the token or keys in the Secret that spec.model.source names, and that its owner may read the model",
    ),
    Reason.FETCH_NOT_FOUND: _fault(
        "the model's source has no such repository, revision or file", "correct spec.model.source"
    ),
    Reason.FETCH_CHECKSUM_MISMATCH: _fault(
        "the fetched model does not have the checksum that was asked for",
        "correct sha256 or manifestSHA256, or find out who changed the model",
    ),
    Reason.FETCH_NO_SPACE: _fault(
        "the model's volume is full", "enlarge spec.model.cache.claim.size or the node's ephemeral storage"
    ),
    Reason.FETCH_TIMEOUT: _fault(
        "the model's source stopped sending", "check the network and its speed; the fetch is tried again"
    ),
    Reason.FETCH_UNREACHABLE: _fault(
        "the model's source cannot be reached",
        "check DNS, proxy, private CA (spec.network.caBundleConfigMapRef, or caBundle of the chart) and "
        "spec.network.policy.egressTo",
    ),
    Reason.FETCH_INVALID_SOURCE: _fault(
        "the fetch step refuses spec.model.source or its Secret", "correct spec.model.source and the Secret's keys"
    ),
    Reason.FETCH_UNSAFE_CONTENT: _fault(
        "the model's source holds paths, links or sizes that are refused",
        "use a model directory as published; `kubectl logs POD -c fetch` names the file",
    ),
    Reason.FETCH_LOCK_TIMEOUT: _fault(
        "another pod holds the model volume's lock and does not finish", "look at the pods that use the claim"
    ),
    Reason.INIT_FAILED: _fault(
        "init container {container} failed (exit code {code})", "`kubectl logs POD -c CONTAINER` tells more"
    ),
    Reason.OOM_KILLED: _fault(
        "container {container} was killed: its memory limit is too small",
        "raise spec.resources.limits.memory, or lower workers and encode_process_num",
    ),
    Reason.CRASH_LOOP_BACK_OFF: _fault(
        "container {container} ends again and again ({cause})", "`kubectl logs POD --previous` tells why"
    ),
    Reason.READINESS_FAILING: _fault(
        "a pod that was ready is not ready any more",
        "`kubectl logs POD` and its /readyz tell which stage does not answer",
    ),
    Reason.INSUFFICIENT_GPU: _wait(
        "{causes}", "wait for a free device, add nodes, lower spec.replicas, or add a class for other devices"
    ),
    Reason.INSUFFICIENT_CPU: _wait("{causes}", "lower spec.resources.requests.cpu, or free or add nodes"),
    Reason.INSUFFICIENT_MEMORY: _wait("{causes}", "lower spec.resources.requests.memory, or free or add nodes"),
    Reason.INSUFFICIENT_RESOURCES: _wait("{causes}", "lower spec.resources.requests, or free or add nodes"),
    Reason.VOLUME_NOT_BOUND: _wait(
        "{causes}", "check the claim, its StorageClass, and whether its volume lies in another zone"
    ),
    Reason.NODE_TAINTS: _wait("{causes}", "add spec.pod.tolerations, or remove the taint"),
    Reason.TOPOLOGY_CONSTRAINT: _wait("{causes}", "free or add nodes in the zones or on the hosts that lack pods"),
    Reason.NO_MATCHING_NODE: _wait(
        "{causes}", "check classes[].gpu and spec.pod.nodeSelector against `kubectl get nodes --show-labels`"
    ),
    Reason.SCHEDULING_GATED: _wait("{causes}", "find out who set the gate (queues such as Kueue do) and open it"),
    Reason.UNSCHEDULABLE: _wait("{causes}", "`kubectl describe pod` has the scheduler's words"),
    Reason.NODE_LOST: _wait("the pod's node does not answer", "look at the node; the pod is replaced after 30 s"),
    Reason.EVICTED: _wait("the pod was evicted ({cause})", "look at what the node ran short of, or who drained it"),
    Reason.DEVICE_UNHEALTHY: _wait(
        "{message}", "look at the node's devices (`nvidia-smi`) and its device plugin; delete the pod on a broken one"
    ),
    Reason.PROGRESS_DEADLINE_EXCEEDED: _decided(
        "no progress within rollout.progressDeadlineSeconds ({seconds} s)",
        "look at the class's pods; correct the spec or raise the deadline",
    ),
    Reason.FIELD_CONFLICT: _state(
        "{objects}: somebody changes our fields back again and again; the operator has stopped correcting them",
        "`kubectl get OBJECT -o yaml --show-managed-fields` names the other writer: stop it, or change the spec",
    ),
    Reason.FOREIGN_SCALER: _state(
        "{objects} scales a Deployment of ours; replicas are not split over classes as asked",
        "aim the HorizontalPodAutoscaler at the TTSService instead",
    ),
    Reason.BELOW_DESIRED: _state(_SERVES, "look at Reconciling, Stalled and each class's problem"),
    Reason.SERVING: _state(_SERVES),
    Reason.PAUSED: _state(_SERVES + "; reconciliation is paused by annotation"),
    Reason.SUSPENDED: _state("spec.suspend is true: no replica is wanted"),
    Reason.SCALED_TO_ZERO: _state("spec.replicas is 0: no replica is wanted"),
    Reason.FIRST_SIGHT: _state("nothing is known of the fleet yet"),
    Reason.STARTING: _state("the first of {desired} replicas is starting"),
    Reason.SCALING_FROM_ZERO: _state("the first of {desired} replicas is starting after none was wanted"),
    Reason.NOT_SERVING: _state(
        "none of {desired} replicas serves", "look at the pods: `kubectl get pods -l SELECTOR`"
    ),
    Reason.ROLLING_OUT: _state("pods are being replaced"),
    Reason.ROLLING_OUT_WITHOUT_SPARE: _state(
        "the only replica is replaced without a spare device: new requests are refused until it is back",
        "use two replicas, or keep a device free, to roll without refusing requests",
    ),
    Reason.SCALING: _state("replicas are starting or ending"),
    Reason.APPLYING: _state("objects are being created"),
    Reason.NOTHING_WANTED: _state("no replica is wanted"),
    Reason.MODEL_FETCHED: _state("the model is there"),
    Reason.MODEL_IN_IMAGE: _state("the model comes with the runtime"),
    Reason.FETCHING: _state("the model is being fetched"),
    Reason.PROFILES_MATCHED: _state("every class has a plan for devices that were seen"),
    Reason.PROFILES_ASSUMED: _state("no node of {classes} was seen; the profile's smallest memory is assumed"),
    Reason.ALL_SCHEDULED: _state("every pod has a node"),
    Reason.SCHEDULING: _state("pods wait for a node"),
    Reason.AVAILABLE: _state("every class has its replicas"),
    Reason.PROBLEM_SOLVED: _state("class {name}: {reason} is over"),
    Reason.PLAN_CHANGED: _state("class {name} runs plan {plan}"),
    Reason.PLAN_PENDING: _state(
        "class {name}: plan {plan} waits for a change of the spec",
        "`ttsfleet plan` shows it; rollout.planChanges: Automatic takes such plans over",
    ),
}
_VALUES = frozenset(reason.value for reason in Reason)
_RANK = {reason: index for index, reason in enumerate(Reason)}
