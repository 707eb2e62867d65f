"""The compose file: the guide's container settings, and a container that matches the pod."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ttsfleet_operator.manifests.compose import render_compose

CPU = "{name: cpu, cpu: {}}"


@pytest.fixture
def compose(render):  # type: ignore[no-untyped-def]
    def build(more: str = "", **options: Any) -> dict[str, Any]:
        rendered = render(more, **options)
        plan = rendered.plan.classes[0].plan
        loaded: dict[str, Any] = yaml.safe_load(render_compose(rendered.service, plan, rendered.settings))
        return loaded

    return build


def container(document: dict[str, Any]) -> dict[str, Any]:
    (found,) = document["services"].values()
    return found  # type: ignore[no-any-return]


def test_guides_settings(compose) -> None:  # type: ignore[no-untyped-def]
    one = container(compose())
    resources = one["deploy"]["resources"]
    assert (resources["limits"]["memory"], resources["reservations"]["memory"]) == ("32g", "16g")
    assert one["shm_size"] == "4g"
    assert one["ulimits"]["memlock"] == -1
    assert one["ulimits"]["stack"] == 67108864
    assert one["environment"]["OMP_NUM_THREADS"] == "2"
    assert one["environment"]["NCCL_IB_DISABLE"] == "1"
    assert resources["reservations"]["devices"] == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


@pytest.mark.parametrize(
    ("more", "path", "expected"),
    [
        pytest.param("resources: {limits: {memory: 12Gi}}", ("limits", "memory"), "12g", id="memory as asked"),
        pytest.param("resources: {limits: {memory: 1500M}}", ("limits", "memory"), "1500000000b", id="odd memory"),
        pytest.param("resources: {requests: {cpu: 1500m}}", ("reservations", "cpus"), "1.5", id="cores"),
    ],
)
def test_resources_of_the_spec(more: str, path: tuple[str, str], expected: str, compose) -> None:  # type: ignore[no-untyped-def]
    resources = container(compose(more))["deploy"]["resources"]
    assert resources[path[0]][path[1]] == expected


def test_cpu_class_reserves_no_device(compose) -> None:  # type: ignore[no-untyped-def]
    assert "devices" not in container(compose(cls=CPU))["deploy"]["resources"]["reservations"]


def test_container_is_as_restricted_as_the_pod(compose, render) -> None:  # type: ignore[no-untyped-def]
    one, pod = container(compose()), render().pod
    assert one["user"] == f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
    assert (one["read_only"], one["cap_drop"]) == (True, ["ALL"])
    assert one["entrypoint"] + one["command"] == render().runtime["command"] + render().runtime["args"]


def test_engine_is_the_pods_but_for_the_place_of_the_model(compose, render) -> None:  # type: ignore[no-untyped-def]
    here = yaml.safe_load(compose()["configs"]["engine"]["content"])
    pod = yaml.safe_load(render().one("ConfigMap")["data"]["engine.yaml"])
    assert here | {"model_dir": ""} == pod | {"model_dir": ""}
    assert "./models:/models:ro" in container(compose())["volumes"]


def test_builtin_model_needs_no_folder(compose) -> None:  # type: ignore[no-untyped-def]
    document = compose(source="{builtin: {name: tiny-en}}", cls=CPU)
    assert not any("models" in volume for volume in container(document)["volumes"])


def test_secret_and_recipe_become_files(compose) -> None:  # type: ignore[no-untyped-def]
    document = compose(
        "network: {apiKeySecretRef: {name: keys, key: k}}\n"
        "engine: {quant_type: custom}\nquantConfigRef: {name: recipe, key: q.yaml}"
    )
    one = container(document)
    assert one["secrets"][0]["target"] == one["command"][one["command"].index("--api-key-file") + 1]
    engine = yaml.safe_load(document["configs"]["engine"]["content"])
    assert engine["custom_cfg_path"] in {config["target"] for config in one["configs"]}


def test_heading_says_what_to_put_beside_the_file(render) -> None:  # type: ignore[no-untyped-def]
    rendered = render()
    text = render_compose(rendered.service, rendered.plan.classes[0].plan, rendered.settings)
    assert "# - models/: the directory of the model FunAudioLLM/CosyVoice2-0.5B\n" in text
