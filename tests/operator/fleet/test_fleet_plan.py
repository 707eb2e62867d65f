"""A whole fleet over time: which changes roll the pods of a class, what waits as pending, and where replicas go."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import yaml

from ttsfleet_operator.api.manifest import parse_services
from ttsfleet_operator.api.service import TTSService
from ttsfleet_operator.fleet.bundle import bundle_data, read_bundle
from ttsfleet_operator.fleet.nodes import NodeFacts, read_node
from ttsfleet_operator.fleet.plan import ClassDecision, FleetPlan, RunningClass, plan_fleet
from ttsfleet_operator.fleet.settings import ConfigMapKey, FleetSettings, References, referenced_keys
from ttsfleet_operator.plan import ClassPlan
from ttsfleet_operator.profiles import ProfileTable, builtin_profiles

TABLE = builtin_profiles()
SETTINGS = FleetSettings(release="1.0.0", runtime_image="ttsfleet/runtime:1.0.0")
NEXT_RELEASE = FleetSettings(release="1.1.0", runtime_image="ttsfleet/runtime:1.1.0")
CA = ConfigMapKey("ca", "ca.crt")


def service(spec: str = "", classes: str = "[{name: ada, gpu: {products: [rtx-4090]}}]") -> TTSService:
    document = yaml.safe_load(f"""\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {{name: narrator, namespace: speech}}
spec:
  replicas: 3
  model: {{source: {{huggingFace: {{repo: FunAudioLLM/CosyVoice2-0.5B}}}}}}
  hardware: {{classes: {classes}}}
""")
    changes = yaml.safe_load(spec or "{}")
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(document["spec"].get(name), dict):
            document["spec"][name] |= value
        else:
            document["spec"][name] = value
    return parse_services(yaml.safe_dump(document))[0]


def nodes(product: str = "NVIDIA-GeForce-RTX-4090", memory: int = 24564, capability: str = "8.9", count: int = 8,
          name: str = "n") -> NodeFacts:  # fmt: skip
    major, minor = capability.split(".")
    labels = {
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.memory": str(memory),
        "nvidia.com/gpu.compute.major": major,
        "nvidia.com/gpu.compute.minor": minor,
    }
    status = {
        "allocatable": {"nvidia.com/gpu": str(count)},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    return read_node({"metadata": {"name": name, "labels": labels}, "status": status})


def template(service: TTSService, plan: ClassPlan, settings: FleetSettings, references: References) -> dict[str, Any]:
    """The parts of a pod template that come from each of the inputs."""
    spec = service.spec
    return {
        "image": (spec.runtime.image if spec.runtime else "") or settings.runtime_image,
        "nodes": list(plan.products),
        "references": [references.hash_of(key) for key in referenced_keys(service)],
        "user": spec.pod.labels if spec.pod else {},
        "resources": spec.resources.model_dump(mode="json") if spec.resources else {},
        "network": spec.network.model_dump(mode="json", include={"api_key_secret_ref"}) if spec.network else {},
    }


def planned(
    asked: TTSService,
    running: Mapping[str, RunningClass] | None = None,
    *,
    on: Sequence[NodeFacts] | None = (nodes(),),
    settings: FleetSettings = SETTINGS,
    table: ProfileTable = TABLE,
    references: References = References({CA: "1"}),  # noqa: B008 - frozen
) -> FleetPlan:
    return plan_fleet(asked, table, on, running or {}, settings, references, template)


def applied(plan: FleetPlan) -> dict[str, RunningClass]:
    """The cluster after `plan` was applied and all pods are ready, as it is read back."""
    running = {}
    for one in plan.classes:
        if one.bundle is not None:
            stored = read_bundle(one.bundle.digest, bundle_data(one.bundle))
            running[one.name] = RunningClass(
                one.name, stored, one.inputs_hash, one.desired, one.desired, plan.distribution_hash
            )
    return running


def shares(plan: FleetPlan) -> list[int]:
    return [one.desired for one in plan.classes]


def only(plan: FleetPlan) -> ClassDecision:
    assert len(plan.classes) == 1
    return plan.classes[0]


FIRST = service("{network: {caBundleConfigMapRef: {name: ca, key: ca.crt}}}")
ROLLING = [
    pytest.param("{engine: {workers: 1}}", id="engine"),
    pytest.param("{model: {source: {builtin: {name: tiny-en}}}}", id="model"),
    pytest.param("{styles: [{name: news, path: styles/news}]}", id="styles"),
    pytest.param("{server: {timeout: 100}}", id="server"),
    pytest.param("{resources: {requests: {cpu: '4'}}}", id="resources"),
    pytest.param("{rollout: {drain: {maxStreamSeconds: 60}}}", id="drain"),
    pytest.param("{runtime: {image: 'x/y:1'}}", id="image"),
    pytest.param("{pod: {labels: {team: tts}}}", id="pod"),
    pytest.param("{network: {apiKeySecretRef: {name: keys, key: k}}}", id="API key"),
    pytest.param("{hardware: {classes: [{name: ada, gpu: {}}]}}", id="the class's devices"),
    pytest.param("{hardware: {classes: [{name: ada, gpu: {products: [rtx-4090]}, profile: l4}]}}", id="profile"),
    pytest.param(
        "{hardware: {classes: [{name: ada, gpu: {products: [rtx-4090]}, engine: {workers: 1}}]}}", id="class engine"
    ),
]
QUIET = [
    pytest.param("{replicas: 7}", id="replicas"),
    pytest.param("{suspend: true}", id="suspend"),
    pytest.param("{hardware: {distribution: {policy: Weighted}}}", id="distribution"),
    pytest.param(
        "{hardware: {classes: [{name: ada, gpu: {products: [rtx-4090]}, weight: 3, minReplicas: 1}]}}",
        id="weight and bounds",
    ),
    pytest.param(
        "{hardware: {classes: [{name: ada, gpu: {products: [rtx-4090]}}, {name: new, cpu: {}}]}}", id="another class"
    ),
    pytest.param("{rollout: {surge: Never, surgeWaitSeconds: 5, progressDeadlineSeconds: 100}}", id="surge"),
    pytest.param("{rollout: {planChanges: OnSpecChange}}", id="plan changes"),
    pytest.param("{network: {service: {type: NodePort}}}", id="the Service"),
    pytest.param("{network: {policy: {ingressFrom: [{podSelector: {}}]}}}", id="network policy"),
    pytest.param("{monitoring: {serviceMonitor: Disabled}}", id="monitoring"),
]


@pytest.mark.parametrize("change", ROLLING)
def test_change_that_decides_pods_takes_over(change: str) -> None:
    running = applied(planned(FIRST))
    asked = service(change)
    asked = parse_services(yaml.safe_dump(_with_ca(asked)))[0]
    decision = planned(asked, running, settings=NEXT_RELEASE).classes[0]
    assert decision.bundle is not None
    assert decision.bundle != running["ada"].bundle
    assert decision.pending is None


@pytest.mark.parametrize("change", QUIET)
def test_change_around_the_pods_rolls_nothing(change: str) -> None:
    running = applied(planned(FIRST))
    asked = parse_services(yaml.safe_dump(_with_ca(service(change))))[0]
    decision = planned(asked, running, settings=NEXT_RELEASE).classes[0]
    assert decision.bundle == running["ada"].bundle
    assert decision.inputs_hash == running["ada"].inputs_hash
    assert decision.pending is not None


def _with_ca(asked: TTSService) -> dict[str, Any]:
    document = asked.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document["spec"].setdefault("network", {})["caBundleConfigMapRef"] = {"name": "ca", "key": "ca.crt"}
    return document


def test_size_of_the_cache_claim_rolls_nothing() -> None:
    def asked(size: str) -> TTSService:
        source = "source: {huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B}}"
        return service(f"{{model: {{{source}, cache: {{claim: {{size: {size}}}}}}}}}")

    running = applied(planned(asked("20Gi")))
    assert only(planned(asked("40Gi"), running)).inputs_hash == running["ada"].inputs_hash
    assert only(planned(service(), running)).inputs_hash != running["ada"].inputs_hash


def test_new_release_is_pending_until_the_spec_changes() -> None:
    running = applied(planned(FIRST))
    upgraded = only(planned(FIRST, running, settings=NEXT_RELEASE))
    assert upgraded.bundle == running["ada"].bundle
    assert upgraded.pending is not None
    assert upgraded.pending.pod_template["image"] == "ttsfleet/runtime:1.1.0"


def test_new_profile_row_is_pending_and_its_memory_is_not_claimed() -> None:
    running = applied(planned(FIRST))
    row = TABLE.named("rtx-4090")
    table = TABLE.extended([row.model_copy(update={"engine": row.engine.model_copy(update={"workers": 1})})])
    decision = only(planned(FIRST, running, table=table))
    assert decision.plan is not None
    assert decision.plan.engine()["workers"] == 1
    assert decision.bundle is not None
    assert decision.bundle.engine()["workers"] == 3
    assert decision.pending is not None
    assert decision.memory is not None
    assert decision.memory.total_mib > 2 * decision.plan.memory.total_mib


def test_automatic_plan_changes_take_over_at_once() -> None:
    asked = service("{rollout: {planChanges: Automatic}}")
    running = applied(planned(asked))
    decision = only(planned(asked, running, settings=NEXT_RELEASE))
    assert decision.pending is None
    assert decision.bundle is not None
    assert decision.bundle.pod_template["image"] == "ttsfleet/runtime:1.1.0"


def test_unchanged_world_changes_nothing() -> None:
    plan = planned(FIRST)
    again = planned(FIRST, applied(plan))
    assert again == plan


def test_nodes_that_come_go_or_change_roll_nothing() -> None:
    running = applied(planned(FIRST))
    smaller = only(planned(FIRST, running, on=[nodes(), nodes(memory=22500, name="ecc")]))
    assert smaller.bundle == running["ada"].bundle
    assert smaller.desired == 3


@pytest.mark.parametrize("changes", ["OnSpecChange", "Automatic"])
def test_class_whose_nodes_lost_their_labels_keeps_plan_and_pods(changes: str) -> None:
    asked = service(f"{{rollout: {{planChanges: {changes}}}}}")
    running = applied(planned(asked, on=[nodes(memory=22500)]))
    unlabelled = replace(nodes(), labels={}, devices=nodes(product="").devices)
    decision = only(planned(asked, running, on=[unlabelled], settings=NEXT_RELEASE))
    assert decision.bundle == running["ada"].bundle
    assert (decision.desired, decision.pending) == (3, None)
    assert decision.problem is not None
    assert decision.problem.reason == "NoMatchingNode"


def test_plan_that_no_longer_fits_its_nodes_says_so() -> None:
    running = applied(planned(FIRST))
    decision = only(planned(FIRST, running, on=[nodes(memory=10000)]))
    assert decision.bundle == running["ada"].bundle
    assert any("the plan in force needs" in warning for warning in decision.warnings)


def test_spec_that_cannot_run_keeps_what_runs_and_still_scales() -> None:
    running = applied(planned(FIRST))
    asked = parse_services(yaml.safe_dump(_with_ca(service("{replicas: 5, engine: {workers: 12}}"))))[0]
    decision = only(planned(asked, running))
    assert decision.problem is not None
    assert decision.problem.reason == "OutOfMemory"
    assert decision.bundle == running["ada"].bundle
    assert decision.inputs_hash == running["ada"].inputs_hash
    assert decision.desired == 5


def test_changed_config_map_rolls_and_a_missing_one_does_not() -> None:
    running = applied(planned(FIRST))
    changed = only(planned(FIRST, running, references=References({CA: "2"})))
    assert changed.bundle is not None
    assert changed.bundle.pod_template["references"] == ["2"]
    missing = only(planned(FIRST, running, references=References()))
    assert missing.bundle == running["ada"].bundle
    assert missing.problem is not None
    assert missing.problem.message == "ConfigMap ca[ca.crt] does not exist in namespace speech"
    assert only(planned(FIRST, references=References())).bundle is None


@pytest.mark.parametrize(
    ("spec", "content", "takes_over"),
    [
        pytest.param("{}", "", False, id="on a change of the spec, missing"),
        pytest.param("{}", "1", False, id="on a change of the spec, there"),
        pytest.param("{rollout: {planChanges: Automatic}}", "", False, id="automatic, missing"),
        pytest.param("{rollout: {planChanges: Automatic}}", "1", True, id="automatic, there"),
    ],
)
def test_new_ca_of_the_installation_takes_over_only_where_it_is_allowed_and_there(
    spec: str, content: str, takes_over: bool
) -> None:
    asked = service(spec)
    running = applied(planned(asked))
    shared = ConfigMapKey("corporate-ca", "ca.crt")
    changed = replace(NEXT_RELEASE, ca_bundle=shared)
    decision = only(planned(asked, running, settings=changed, references=References({shared: content})))
    assert (decision.bundle != running["ada"].bundle) == takes_over
    assert decision.problem is None, "what runs needs no fetch"


def test_bundle_that_is_gone_or_unreadable_is_rendered_anew() -> None:
    plan = planned(FIRST)
    running = {"ada": replace(applied(plan)["ada"], bundle=None)}
    assert only(planned(FIRST, running)).bundle == only(plan).bundle
    assert read_bundle("x", {"engine.yaml": "a: 1", "pod-template.json": "{"}) is None
    assert read_bundle("x", {"engine.yaml": "a: 1"}) is None


@pytest.mark.parametrize("key", ["engine.yaml", "pod-template.json"])
def test_bundle_whose_content_was_changed_is_not_believed(key: str) -> None:
    bundle = only(planned(FIRST)).bundle
    assert bundle is not None
    data = bundle_data(bundle)
    assert read_bundle(bundle.digest, data) == bundle
    other = {"engine.yaml": "workers: 9\n", "pod-template.json": '{"spec": {"hostNetwork": true}}'}
    assert read_bundle(bundle.digest, {**data, key: other[key]}) is None


def test_bundle_survives_storage_byte_by_byte() -> None:
    bundle = only(planned(FIRST)).bundle
    assert bundle is not None
    data = bundle_data(bundle)
    stored = read_bundle(bundle.digest, data)
    assert stored == bundle
    assert stored is not None
    assert bundle_data(stored) == data
    assert bundle.engine()["workers"] == 3
    assert "threads.llm" in bundle.engine()


TWO = """[{name: ada, gpu: {products: [rtx-4090]}, maxReplicas: 4},
  {name: ampere, gpu: {products: [NVIDIA-A10]}},
  {name: cpu, cpu: {}, maxReplicas: 1}]"""
A10 = nodes("NVIDIA-A10", 23028, "8.6", 2, "a10")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param("{replicas: 3}", [3, 0, 0], id="list order"),
        pytest.param("{replicas: 6}", [4, 2, 0], id="up to maxReplicas"),
        pytest.param("{replicas: 7}", [4, 2, 1], id="as far as nodes have room"),
        pytest.param("{replicas: 9}", [4, 4, 1], id="the rest waits"),
        pytest.param("{replicas: 0}", [0, 0, 0], id="zero"),
        pytest.param("{replicas: 9, suspend: true}", [0, 0, 0], id="suspended"),
        pytest.param(
            "{replicas: 6, engine: {quant_type: triton-fp8w8a8-b128}}",
            [4, 0, 1],
            id="a class that cannot run gets none",
        ),
    ],
)
def test_replicas_over_classes(spec: str, expected: list[int]) -> None:
    assert shares(planned(service(spec, TWO), on=[nodes(), A10])) == expected


def test_more_replicas_than_classes_allow_is_said() -> None:
    plan = planned(service("{replicas: 9}", "[{name: ada, gpu: {}, maxReplicas: 2}]"))
    assert plan.desired == 2
    assert plan.problem is not None
    assert plan.problem.reason == "ReplicasExceedClasses"
    assert "9 replicas are asked for and the classes' maxReplicas allow 2" in plan.problem.message


def test_fleet_of_which_nothing_can_run_names_the_first_class_s_reason() -> None:
    plan = planned(service("{engine: {workers: 12}}"))
    assert plan.desired == 0
    assert plan.problem is not None
    assert plan.problem.reason == "OutOfMemory"


def test_new_weights_move_replicas_at_once() -> None:
    def asked(first: int) -> TTSService:
        classes = f"[{{name: ada, gpu: {{}}, weight: {first}}}, {{name: cpu, cpu: {{}}}}]"
        return service("{replicas: 8, hardware: {distribution: {policy: Weighted}}}", classes)

    before = planned(asked(1))
    assert shares(before) == [4, 4]
    after = planned(asked(3), applied(before))
    assert shares(after) == [6, 2]
    half_written = applied(before) | {"ada": applied(after)["ada"]}
    assert shares(planned(asked(3), half_written)) == [6, 2]


def test_nodes_of_a_better_class_draw_no_ready_replica() -> None:
    asked = service("{replicas: 4}", TWO)
    before = planned(asked, on=[nodes(count=1), A10])
    assert shares(before) == [1, 2, 1]
    after = planned(asked, applied(before), on=[nodes(count=8), A10])
    assert shares(after) == [1, 2, 1]


@pytest.mark.parametrize("seed", range(10))
def test_walk_of_nodes_rolls_no_pod_and_moves_no_ready_one(seed: int) -> None:
    rng = random.Random(seed)
    asked = service("{replicas: 6}", TWO)
    pool = [nodes(count=2, name=f"ada{i}") for i in range(3)] + [replace(A10, name=f"a10-{i}") for i in range(3)]
    pool += [nodes(memory=22500, count=1, name="ecc"), replace(nodes(name="blank"), labels={})]
    plan = planned(asked, on=pool)
    running = applied(plan)
    for _ in range(25):
        present = [
            replace(one, ready=rng.random() < 0.9, unschedulable=rng.random() < 0.2)
            for one in pool
            if rng.random() < 0.7
        ]
        plan = planned(asked, running, on=present)
        for one in plan.classes:
            assert one.bundle == running[one.name].bundle
            assert one.desired >= min(running[one.name].ready, running[one.name].replicas)
        assert plan.desired == 6
        running = {
            name: replace(running[name], replicas=share, ready=rng.randint(0, share))
            for name, share in zip(running, shares(plan), strict=True)
        }
