"""TTSService documents: the whole published shape is accepted, and what is wrong is named with path, line, remedy."""

from __future__ import annotations

import pytest

from ttsfleet_operator.api.documents import read_documents
from ttsfleet_operator.api.manifest import parse_service, parse_services
from ttsfleet_operator.errors import ManifestError

WHOLE = """\
apiVersion: ttsfleet.dev/v1alpha1
kind: TTSService
metadata: {name: narrator, namespace: speech}
spec:
  replicas: 3
  suspend: false
  model:
    source:
      huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B, revision: abc, endpoint: "", tokenSecretRef: {name: h, key: t}}
    manifestSHA256: ""
    cache: {claim: {storageClassName: fast, accessModes: [ReadWriteMany], size: 20Gi, retain: true}}
  styles: [{name: news, path: styles/news}]
  engine:
    {workers: 3, data_type: bf16, quant_type: triton_int8weight, kv_cache_mode: int8, max_total_token_num: 65536,
     max_req_total_len: 32768, cache_capacity: 100, encode_process_num: 2, encode_paral_num: 4,
     encode_max_batch_size: 8, gpt_paral_num: 100, batch_max_tokens: 8192, router_max_wait_tokens: 1,
     decode_process_num: 2, decode_paral_num: 2, decode_max_batch_size: 4, graph_max_batch_size: 8,
     graph_max_len_in_batch: 512, disable_cudagraph: false, load_trt: true, trt_max_batch_size: 8,
     trt_precision: fp16, trt_workspace_size: 1073741824,
     use_flash_attention: true, fa_kernel_type: triton, enable_kv_cache_quant: true,
     enable_gqa: true, gqa_group_size: 7}
  server:
    {httpserver_workers: 1, worker_connections: 1000, max_requests: 10000, max_requests_jitter: 1000, timeout: 300,
     keepalive: 2, ws_max_size: 16777216, ws_ping_interval: 20, ws_ping_timeout: 20, ws_max_queue: 1024}
  hardware:
    distribution: {policy: Priority}
    classes:
    - name: ada
      gpu: {products: [NVIDIA-GeForce-RTX-4090, NVIDIA-L4], memoryMiB: {min: 22000}, resourceName: nvidia.com/gpu}
      profile: ""
      weight: 1
      minReplicas: 0
      maxReplicas: 8
      engine: {workers: 2}
  resources: {requests: {cpu: "8", memory: 16Gi}, limits: {memory: 32Gi}, sharedMemory: 4Gi, ompThreads: 8,
              ncclIBDisable: true}
  rollout: {surge: Auto, surgeWaitSeconds: 60, planChanges: OnSpecChange, drain: {maxStreamSeconds: 300},
            progressDeadlineSeconds: 3600}
  runtime: {image: "", imagePullSecrets: [{name: reg}]}
  pod: {serviceAccountName: "", priorityClassName: "", runtimeClassName: "", nodeSelector: {}, tolerations: [],
        labels: {}, annotations: {}}
  network: {service: {type: ClusterIP, annotations: {}}, apiKeySecretRef: {name: keys, key: k},
            policy: {ingressFrom: [], egressTo: []}, caBundleConfigMapRef: {name: ca, key: ca.crt}}
  monitoring: {serviceMonitor: Auto}
status:
  observedGeneration: 4
  replicas: 3
  desiredReplicas: 3
  readyReplicas: 2
  selector: app.kubernetes.io/name=ttsfleet-runtime,ttsfleet.dev/service=narrator
  url: http://narrator.speech.svc
  gpuSummary: "ada 3"
  workersSummary: "3"
  model: {type: cosyvoice2, digest: "sha256:…", fetched: 3}
  classes:
  - {name: ada, profile: rtx-4090, planHash: 9f2c, pendingPlanHash: "", desired: 3, ready: 2,
     deployment: narrator-ada, engineConfigMap: narrator-ada-9f2c,
     plan: {workers: 3, decode_process_num: 2, quant_type: triton_int8weight, data_type: bf16},
     memory: {deviceMiB: 24564, estimatedMiB: 19800, assumed: false},
     problem: {reason: OutOfMemory, message: "does not fit", pods: 1, since: "2026-11-23T10:00:00Z"}}
  conditions:
  - {type: Ready, status: "True", reason: Serving, message: "2 of 3 replicas serve", observedGeneration: 4,
     lastTransitionTime: "2026-11-23T10:00:00Z"}
"""

SOURCE = next(line.strip() for line in WHOLE.splitlines() if "huggingFace" in line)

# (what is wrong, text, its replacement, part of the message)
EDITS = [
    (
        "an unknown field suggests the near one",
        "quant_type:",
        "quant_typ:",
        "spec.engine.quant_typ: unknown field; did you mean quant_type?",
    ),
    ("a near miss in case", "resourceName:", "resourcename:", "did you mean resourceName?"),
    (
        "a word that is no choice",
        "data_type: bf16, quant",
        "data_type: bf61, quant",
        'is "bf61"; allowed: fp32, fp16, bf16; did you mean bf16?',
    ),
    (
        "a capital in the name",
        "name: narrator,",
        "name: Narrator,",
        'metadata.name: is "Narrator"; must be lower-case',
    ),
    ("a name that begins with a digit", "name: narrator,", "name: 9to5,", "beginning with a letter"),
    ("a name of 41 characters", "name: narrator,", f"name: {'n' * 41},", "41 characters; at most 40"),
    ("a number in quotes", "weight: 1", 'weight: "1"', 'weight: is "1"; must be an integer'),
    ("a value below its bound", "{workers: 3", "{workers: 0", "spec.engine.workers: is 0; must be at least 1"),
    ("a value above its bound", "{workers: 3", "{workers: 17", "must be at most 16"),
    (
        "two model sources",
        "huggingFace: {repo",
        "builtin: {name: x}\n      huggingFace: {repo",
        "oci, pvc, builtin; found: huggingFace builtin",
    ),
    ("no model source", SOURCE, "{}", "found: none"),
    ("https without a digest", SOURCE, 'https: {url: "https://models.example/m.tar"}', "https.sha256: is required"),
    (
        "a plain http url",
        SOURCE,
        'https: {url: "http://models.example/m.tar", sha256: ' + "a" * 64 + "}",
        "must be an https:// URL",
    ),
    (
        "a class with gpu and cpu",
        '      profile: ""',
        '      cpu: {}\n      profile: ""',
        "class 'ada' must have exactly one of gpu, cpu; found: gpu cpu",
    ),
    (
        "two classes of one name",
        "      engine: {workers: 2}",
        "      engine: {workers: 2}\n    - {name: ada, cpu: {}}",
        "two classes are named 'ada'",
    ),
    (
        "two styles of one name",
        "path: styles/news}",
        "path: a}, {name: news, path: b}",
        "two styles are named 'news'",
    ),
    ("a style outside the model", "path: styles/news", "path: ../news", "stay inside its directory"),
    (
        "custom quantisation without a recipe",
        "quant_type: triton_int8weight, kv",
        "quant_type: custom, kv",
        "quant_type custom needs quantConfigRef",
    ),
    (
        "a recipe without custom quantisation",
        "  server:\n",
        "  quantConfigRef: {name: q, key: k}\n  server:\n",
        "quantConfigRef is allowed only with quant_type custom",
    ),
    (
        "a contradiction about the KV cache",
        "enable_kv_cache_quant: true",
        "enable_kv_cache_quant: false",
        "kv_cache_mode int8 contradicts enable_kv_cache_quant false",
    ),
    (
        "a request longer than the pool",
        "max_total_token_num: 65536",
        "max_total_token_num: 4096",
        "max_req_total_len 32768 exceeds max_total_token_num 4096",
    ),
    (
        "a step smaller than the batch",
        "batch_max_tokens: 8192",
        "batch_max_tokens: 64",
        "batch_max_tokens 64 is less than gpt_paral_num 100",
    ),
    ("replica bounds the wrong way round", "minReplicas: 0", "minReplicas: 9", "minReplicas 9 exceeds maxReplicas 8"),
    ("an empty memory range", "{min: 22000}", "{min: 22000, max: 100}", "min 22000 exceeds max 100"),
    ("a label of the operator", "labels: {}", "labels: {ttsfleet.dev/service: x}", "is the operator's"),
    (
        "a key given twice",
        "  replicas: 3\n",
        "  replicas: 3\n  replicas: 4\n",
        "line 6: spec.replicas: is given twice",
    ),
    ("a quantity that is none", "sharedMemory: 4Gi", "sharedMemory: 4 gigs", "a quantity above 0 such as 500M, 16Gi"),
    (
        "another API version",
        "v1alpha1",
        "v1beta1",
        "apiVersion: is 'ttsfleet.dev/v1beta1'; a TTSService has ttsfleet.dev/v1alpha1",
    ),
    ("a misspelt kind", "kind: TTSService", "kind: TTSservice", "did you mean TTSService?"),
    ("no kind", "kind: TTSService\n", "", "kind: is required"),
    ("broken YAML", "kind: TTSService", "kind: [TTSService", "is not valid YAML"),
]


def test_whole_published_shape_is_accepted() -> None:
    (service,) = parse_services(WHOLE)
    assert service.spec.engine is not None
    assert service.spec.engine.given()["workers"] == 3
    assert service.status is not None
    assert service.status.classes[0].memory is not None
    assert service.status.classes[0].memory.device_mib == 24564


def test_wire_names_survive_a_round_trip() -> None:
    (service,) = parse_services(WHOLE)
    again = parse_service(service.model_dump(exclude_unset=True, mode="json"))
    assert again == service


@pytest.mark.parametrize(("old", "new", "message"), [edit[1:] for edit in EDITS], ids=[edit[0] for edit in EDITS])
def test_wrong_manifest_is_refused_with_a_remedy(old: str, new: str, message: str) -> None:
    assert old in WHOLE
    with pytest.raises(ManifestError) as caught:
        parse_services(WHOLE.replace(old, new, 1), "service.yaml")
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_every_problem_is_reported_with_its_line(minimal_manifest: str) -> None:
    text = minimal_manifest.replace("name: ada", "name: ADA").replace("repo:", "repos:")
    with pytest.raises(ManifestError) as caught:
        parse_services(text, "x.yaml")
    found = {(problem.path, problem.line) for problem in caught.value.problems}
    assert ("spec.hardware.classes[0].name", 8) in found
    assert ("spec.model.source.huggingFace.repos", 5) in found
    assert ("spec.model.source.huggingFace.repo", 5) in found


def test_absent_planner_values_stay_absent(minimal_manifest: str) -> None:
    (service,) = parse_services(minimal_manifest)
    assert service.spec.engine is None
    assert service.spec.server is None
    assert service.spec.replicas == 1


def test_documents_of_other_groups_are_passed_over(minimal_manifest: str) -> None:
    text = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: speech}}\n---\n{minimal_manifest}---\n"
    assert [service.name for service in parse_services(text)] == ["narrator"]


def test_file_without_a_service_says_what_it_holds() -> None:
    with pytest.raises(ManifestError, match="holds no TTSService; found only Namespace"):
        parse_services("apiVersion: v1\nkind: Namespace\n")


def test_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ManifestError, match="too deep or too large"):
        parse_services("\n".join(lines))


def test_timestamps_stay_text(minimal_manifest: str) -> None:
    text = minimal_manifest.replace("{name: narrator}", "{name: narrator, annotations: {built: 2026-11-23}}")
    assert parse_services(text)[0].metadata.annotations == {"built": "2026-11-23"}


def test_fields_that_the_api_server_adds_are_left_alone(minimal_manifest: str) -> None:
    text = minimal_manifest.replace(
        "{name: narrator}", "{name: narrator, uid: u1, generation: 3, managedFields: [{a: 1}]}"
    )
    assert parse_services(text)[0].metadata.generation == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", True), ("N", False), ("Off", False), ("1e3", 1000), ("1E-2", 0.01), ("22:30", "22:30"), ("0x1F", 31),
        ("010", 8), ("08", 8), ("0o17", 15), ("0b11", 3), ("1_000", 1000), ("-07", -7), ("5.", 5), (".5", 0.5),
        ("~", None), ("2026-11-23", "2026-11-23"), ('"y"', "y"),
    ],
)  # fmt: skip
def test_plain_scalars_are_read_as_kubectl_reads_them(text: str, value: object) -> None:
    (document,) = read_documents(f"a: {text}")
    assert document.data == {"a": value}
    assert type(document.data["a"]) is type(value) or isinstance(value, int)


def test_tag_on_a_text_that_is_no_such_value_is_named() -> None:
    with pytest.raises(ManifestError, match="line 2: b: 'maybe' is not a value of its tag"):
        read_documents("a: 1\nb: !!bool maybe")
