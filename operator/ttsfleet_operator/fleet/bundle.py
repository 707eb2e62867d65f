"""A plan in force as a file (docs/adr/0006): what decides a class's pods, how it is stored, when another takes over.

Stored in the immutable ConfigMap `<service>-<class>-<hash>` under `ENGINE_KEY` and `TEMPLATE_KEY`; the annotation
`INPUTS_ANNOTATION` holds the hash of the user's inputs that it was rendered from. The class's Deployment carries the
full digest (`DIGEST_ANNOTATION`): a stored plan is believed only where both agree, since whoever may write ConfigMaps
need not be allowed to create pods. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ttsfleet_operator.api.hardware import HardwareClass
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.settings import References, referenced_keys

ENGINE_KEY = "engine.yaml"
TEMPLATE_KEY = "pod-template.json"
INPUTS_ANNOTATION = "ttsfleet.dev/inputs-hash"
DISTRIBUTION_ANNOTATION = "ttsfleet.dev/distribution-hash"
DIGEST_ANNOTATION = "ttsfleet.dev/plan-digest"

# What decides nothing of a pod: counts and their split, how a change is carried out, and what stands around the pods.
_SPEC_WITHOUT_EFFECT = frozenset({"replicas", "suspend", "monitoring"})
_ROLLOUT_WITHOUT_EFFECT = frozenset({"surge", "surgeWaitSeconds", "planChanges", "progressDeadlineSeconds"})
_NETWORK_WITHOUT_EFFECT = frozenset({"service", "policy"})
_CLAIM_WITHOUT_EFFECT = frozenset({"size", "storageClassName", "accessModes", "retain"})
_CLASS_DISTRIBUTION = frozenset({"weight", "minReplicas", "maxReplicas"})


@dataclass(frozen=True)
class PlanBundle:
    """Everything that decides a class's pods. `hash` names the ConfigMap that holds it."""

    hash: str
    engine_yaml: str
    pod_template: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the content, as 64 hexadecimal digits."""
        return _plan_digest(self.engine_yaml, _canonical(self.pod_template))

    def engine(self) -> dict[str, object]:
        """The values of engine.yaml by dotted name; empty when it cannot be read."""
        try:
            loaded = yaml.safe_load(self.engine_yaml)
        except yaml.YAMLError:
            return {}
        flat: dict[str, object] = {}
        for name, value in loaded.items() if isinstance(loaded, dict) else ():
            nested = value.items() if isinstance(value, dict) else ((None, value),)
            flat |= {f"{name}.{leaf}" if leaf else str(name): inner for leaf, inner in nested}
        return flat

    def same_pods(self, other: PlanBundle) -> bool:
        return self.engine_yaml == other.engine_yaml and self.pod_template == other.pod_template


@dataclass(frozen=True)
class RunningClass:
    """What the cluster has of one class.

    `bundle` is read from the ConfigMap that the class's Deployment refers to and vouches for, `inputs_hash` from that
    ConfigMap's annotation, `distribution_hash` from the Deployment's ("" where unknown). `replicas` is the
    Deployment's spec.replicas, `ready` its status.readyReplicas.
    """

    class_name: str
    bundle: PlanBundle | None
    inputs_hash: str
    ready: int
    replicas: int
    distribution_hash: str = ""


@dataclass(frozen=True)
class Choice:
    """What shall run, the hash of the inputs that it stands for, and what would run if the inputs changed now."""

    bundle: PlanBundle | None
    inputs_hash: str
    pending: PlanBundle | None


def make_bundle(engine_yaml: str, pod_template: Mapping[str, Any]) -> PlanBundle:
    """The bundle of a rendered pair, in the form in which it is read back."""
    text = _canonical(pod_template)
    return PlanBundle(_plan_digest(engine_yaml, text)[:8], engine_yaml, json.loads(text))


def bundle_data(bundle: PlanBundle) -> dict[str, str]:
    """The `data` of the ConfigMap."""
    return {ENGINE_KEY: bundle.engine_yaml, TEMPLATE_KEY: _canonical(bundle.pod_template)}


def read_bundle(digest: str, data: Mapping[str, str]) -> PlanBundle | None:
    """The bundle in a ConfigMap's `data`; None when it is not the one of `digest` (then today's plan takes over)."""
    try:
        template = json.loads(data[TEMPLATE_KEY])
    except (KeyError, ValueError):
        return None
    engine_yaml = data.get(ENGINE_KEY)
    if not isinstance(template, dict) or not engine_yaml:
        return None
    bundle = PlanBundle(digest[:8], engine_yaml, template)
    return bundle if bundle.digest == digest else None


def choose_bundle(
    rendered: PlanBundle | None, inputs: str, running: RunningClass | None, automatic: bool, settled: bool
) -> Choice:
    """Today's bundle, or the stored one.

    rendered: today's; None = there is no plan, so what runs goes on
    automatic: planChanges Automatic
    settled: False while today's bundle stands on something missing (a node, a ConfigMap): nothing rolls to that
    """
    stored = running.bundle if running is not None else None
    if running is None or stored is None:
        return Choice(rendered, inputs, None)
    if rendered is None:
        return Choice(stored, running.inputs_hash, None)
    if rendered.same_pods(stored):
        return Choice(stored, inputs, None)
    if running.inputs_hash != inputs or (automatic and settled):
        return Choice(rendered, inputs, None)
    return Choice(stored, running.inputs_hash, rendered if settled else None)


def inputs_hash(service: TTSService, hardware_class: HardwareClass, references: References) -> str:
    """Of everything that the user controls and that decides this class's pods.

    Defaults are left out, so that a field which a later release adds changes no hash.
    """
    spec = _dump(service.spec, _SPEC_WITHOUT_EFFECT | {"hardware"})
    for part, without in (("rollout", _ROLLOUT_WITHOUT_EFFECT), ("network", _NETWORK_WITHOUT_EFFECT)):
        if part in spec:
            spec[part] = {name: value for name, value in spec[part].items() if name not in without}
    cache = spec["model"].get("cache", {})
    if "claim" in cache:
        kept = {name: value for name, value in cache["claim"].items() if name not in _CLAIM_WITHOUT_EFFECT}
        spec["model"]["cache"] = {"claim": kept}
    contents = {str(key): references.hash_of(key) for key in referenced_keys(service)}
    inputs = {
        "name": service.name,
        "spec": {name: value for name, value in spec.items() if value != {}},
        "class": _dump(hardware_class, _CLASS_DISTRIBUTION),
        "references": contents,
    }
    return _digest(inputs)


def distribution_hash(service: TTSService) -> str:
    """Of everything in the spec that decides the split of a given number of replicas."""
    hardware = service.spec.hardware
    shares = [(one.name, one.weight, one.min_replicas, one.max_replicas) for one in hardware.classes]
    return _digest([policy_of(service), shares])


def policy_of(service: TTSService) -> str:
    distribution = service.spec.hardware.distribution
    return "Priority" if distribution is None else distribution.policy


def _dump(struct: Any, without: frozenset[str]) -> dict[str, Any]:
    wire: dict[str, Any] = struct.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {name: value for name, value in wire.items() if name not in without}


def _plan_digest(engine_yaml: str, template: str) -> str:
    return hashlib.sha256(json.dumps([engine_yaml, template]).encode()).hexdigest()


def _digest(value: object) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:16]


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
