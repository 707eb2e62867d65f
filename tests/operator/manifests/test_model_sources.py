"""Where a pod gets its model from: each source, what it fetches, what it mounts, and what the runtime is told."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ttsfleet_operator.fleet.settings import ConfigMapKey
from ttsfleet_operator.pod_layout import CA_DIR, CACHE_DIR, FETCHED_DIR, FETCHED_SOURCES

HUB = "huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B"
TOKEN = f"{{{HUB}, tokenSecretRef: {{name: hf, key: tok}}}}}}"
PIN = "b" * 64
INSTALLATIONS_CA = ConfigMapKey("corporate-ca", "bundle.pem")


def engine(rendered: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(rendered.one("ConfigMap")["data"]["engine.yaml"])
    return loaded


def fetch_config(rendered: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(rendered.one("ConfigMap")["data"]["fetch.yaml"])
    return loaded


def test_fetch_writes_where_the_runtime_reads(any_source, render) -> None:  # type: ignore[no-untyped-def]
    rendered = render(source=any_source)
    model_dir = engine(rendered)["model_dir"]
    if rendered.fetch is None:
        assert model_dir in ("/models", "builtin:tiny-en")
        assert "fetch.yaml" not in rendered.one("ConfigMap")["data"]
        return
    assert fetch_config(rendered)["model_dir"] == model_dir
    assert model_dir.startswith(FETCHED_DIR + "/")
    for container in (rendered.fetch, rendered.runtime):
        assert rendered.mounts(container)[CACHE_DIR]["name"] == "cache"
    assert rendered.fetch["command"] + rendered.fetch["args"] == [
        "ttsfleet-runtime",
        "fetch",
        "--config",
        "/etc/ttsfleet/fetch.yaml",
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(
            f"{{{HUB}}}}}", {"kind": "huggingFace", "repo": "FunAudioLLM/CosyVoice2-0.5B"}, id="a public repository"
        ),
        pytest.param(
            f"{{{HUB}, revision: abc, endpoint: https://hub.example}}}}",
            {
                "kind": "huggingFace",
                "repo": "FunAudioLLM/CosyVoice2-0.5B",
                "revision": "abc",
                "endpoint": "https://hub.example",
            },
            id="a mirror and a revision",
        ),
        pytest.param(
            TOKEN,
            {
                "kind": "huggingFace",
                "repo": "FunAudioLLM/CosyVoice2-0.5B",
                "token_file": "/etc/ttsfleet-credentials/token",
            },
            id="a token as a file",
        ),
        pytest.param(
            "{s3: {bucket: voices, prefix: p, region: eu-1, secretRef: {name: s3}}}",
            {
                "kind": "s3",
                "bucket": "voices",
                "prefix": "p",
                "region": "eu-1",
                "credentials_dir": "/etc/ttsfleet-credentials",
            },
            id="a bucket with credentials",
        ),
        pytest.param(
            f"{{https: {{url: https://example.com/m.tar, sha256: {'a' * 64}}}}}",
            {"kind": "https", "url": "https://example.com/m.tar", "sha256": "a" * 64},
            id="an archive with its digest",
        ),
    ],
)
def test_source_in_the_fetch_configuration(source: str, expected: dict[str, str], render) -> None:  # type: ignore[no-untyped-def]
    assert fetch_config(render(source=source))["source"] == expected


def test_installations_mirror_and_proxies_reach_only_the_fetch(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render(
        hugging_face_endpoint="https://mirror.example",
        https_proxy="http://proxy.example:3128",
        no_proxy=".svc",
    )
    assert fetch_config(rendered)["source"]["endpoint"] == "https://mirror.example"
    environment = rendered.environment(rendered.fetch)
    assert (environment["HTTPS_PROXY"], environment["NO_PROXY"]) == ("http://proxy.example:3128", ".svc")
    assert "HTTPS_PROXY" not in rendered.environment(rendered.runtime)


def test_endpoint_of_the_service_wins_over_the_installations(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render(source=f"{{{HUB}, endpoint: https://own.example}}}}", hugging_face_endpoint="https://m.example")
    assert fetch_config(rendered)["source"]["endpoint"] == "https://own.example"


def test_private_ca_is_mounted_and_named(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render("network: {caBundleConfigMapRef: {name: ca, key: ca.crt}}")
    path = fetch_config(rendered)["ca_file"]
    assert path.rpartition("/")[0] in rendered.mounts(rendered.fetch)


def test_installations_ca_is_mounted_into_every_fetch_over_the_network_and_nowhere_else(any_source, render) -> None:  # type: ignore[no-untyped-def]
    pin = "" if "builtin" in any_source else f"manifestSHA256: {PIN}"
    plain, rendered = (render(source=any_source, model=pin, ca_bundle=ca) for ca in (None, INSTALLATIONS_CA))
    assert CA_DIR not in rendered.mounts(rendered.runtime)
    if rendered.service.spec.model.source.kind not in FETCHED_SOURCES:
        assert rendered.template == plain.template
        return
    assert fetch_config(rendered)["ca_file"] == f"{CA_DIR}/bundle.pem"
    assert rendered.mounts(rendered.fetch)[CA_DIR] == {"name": "ca", "mountPath": CA_DIR, "readOnly": True}
    source = {"name": "corporate-ca", "items": [{"key": "bundle.pem", "path": "bundle.pem"}]}
    assert rendered.volumes["ca"] == {"configMap": source}, "not optional: the kubelet names what is missing"


def test_ca_of_the_service_wins_over_the_installations(render) -> None:  # type: ignore[no-untyped-def]
    own = "network: {caBundleConfigMapRef: {name: ca, key: ca.crt}}"
    assert render(own, ca_bundle=INSTALLATIONS_CA).objects == render(own).objects


def test_installations_ca_leaves_the_users_inputs_as_they_are(render) -> None:  # type: ignore[no-untyped-def]
    before, after = (render(ca_bundle=ca).plan.classes[0] for ca in (None, INSTALLATIONS_CA))
    assert before.inputs_hash == after.inputs_hash
    assert before.bundle != after.bundle


def test_token_has_a_name_of_ours_whatever_its_key(render) -> None:  # type: ignore[no-untyped-def]
    secret = render(source=TOKEN).volumes["credentials"]["secret"]
    assert secret["items"] == [{"key": "tok", "path": "token"}]
    assert secret["defaultMode"] == 0o440


def test_other_revision_is_another_folder_and_another_mirror_is_not(render) -> None:  # type: ignore[no-untyped-def]
    plain, mirrored, revised = (
        engine(render(source=f"{{{HUB}{more}}}}}"))["model_dir"]
        for more in ("", ", endpoint: https://m.example", ", revision: v2")
    )
    assert plain == mirrored != revised


def test_claim_with_a_model_is_read_only(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render(source="{pvc: {claimName: models, subPath: voices/a}}")
    assert rendered.volumes["model"] == {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}
    mount = rendered.mounts(rendered.runtime)["/models"]
    assert (mount["readOnly"], mount["subPath"]) == (True, "voices/a")


def test_oci_artifact_is_an_image_volume(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render(source="{oci: {reference: 'r.example/m:1', pullPolicy: Always}}")
    assert rendered.volumes["model"] == {"image": {"reference": "r.example/m:1", "pullPolicy": "Always"}}
    assert rendered.mounts(rendered.runtime)["/models"]["readOnly"] is True


@pytest.mark.parametrize("source", ["{pvc: {claimName: models}}", "{oci: {reference: 'r.example/m:1'}}"])
def test_pin_on_a_mounted_model_is_checked_before_it_serves(source: str, render) -> None:  # type: ignore[no-untyped-def]
    assert render(source=source).fetch is None
    pinned = render(source=source, model=f"manifestSHA256: {PIN}")
    assert fetch_config(pinned)["manifest_sha256"] == PIN
    assert fetch_config(pinned)["source"] == {"kind": "mounted"}
    assert pinned.mounts(pinned.fetch)["/models"]["readOnly"] is True


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        pytest.param("", {"emptyDir": {}}, id="none: gone with the pod"),
        pytest.param(
            "cache: {existingClaim: shared}", {"persistentVolumeClaim": {"claimName": "shared"}}, id="a user's claim"
        ),
        pytest.param(
            "cache: {claim: {size: 20Gi}}",
            {"persistentVolumeClaim": {"claimName": "narrator-models"}},
            id="a claim of ours",
        ),
    ],
)
def test_volume_of_the_cache(cache: str, expected: dict[str, Any], render) -> None:  # type: ignore[no-untyped-def]
    assert render(model=cache).volumes["cache"] == expected


def test_custom_recipe_is_where_the_engine_looks_for_it(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render("engine: {quant_type: custom}\nquantConfigRef: {name: recipe, key: q.yaml}")
    path = engine(rendered)["custom_cfg_path"]
    folder, _, name = path.rpartition("/")
    assert rendered.mounts(rendered.runtime)[folder]["name"] == "quant"
    assert rendered.volumes["quant"]["configMap"]["items"] == [{"key": "q.yaml", "path": name}]
