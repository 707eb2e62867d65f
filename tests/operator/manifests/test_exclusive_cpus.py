"""Pods that may get CPUs of their own: every container asks for all that it may use, and the runtime is told."""

from __future__ import annotations

from typing import Any

import pytest

HUB = "{huggingFace: {repo: FunAudioLLM/CosyVoice2-0.5B}}"


def told(rendered: Any) -> list[str]:
    """The lines of engine.yaml that speak of it."""
    text = "\n".join(value for one in rendered.of("ConfigMap") for value in one["data"].values())
    return [line for line in text.splitlines() if line.startswith("exclusive_")]


@pytest.mark.parametrize(
    ("resources", "lines"),
    [
        pytest.param("limits: {cpu: 8, memory: 32Gi}", ["8", "true"], id="limits alone"),
        pytest.param(
            "requests: {cpu: 8000m, memory: 32Gi}, limits: {cpu: 8, memory: 32Gi}, numa: Disabled",
            ["8", "false"],
            id="equal",
        ),
        pytest.param("limits: {cpu: 8, memory: 32Gi}, cpuAffinity: Disabled", [], id="switched off"),
        pytest.param("limits: {cpu: 8500m, memory: 32Gi}", [], id="half a CPU"),
        pytest.param("limits: {cpu: 2, memory: 32Gi}", [], id="too few to share out"),
        pytest.param("limits: {cpu: 8}", [], id="no limit of memory"),
        pytest.param("requests: {cpu: 4}, limits: {cpu: 8, memory: 32Gi}", [], id="fewer requested"),
        pytest.param("requests: {cpu: 8, memory: 16Gi}", [], id="no limits"),
    ],
)
def test_the_runtime_is_told_of_cpus_that_may_be_its_own(resources: str, lines: list[str], render) -> None:  # type: ignore[no-untyped-def]
    wanted = [f"{name}: {value}" for name, value in zip(("exclusive_cpus", "exclusive_by_node"), lines, strict=False)]
    assert told(render(f"resources: {{{resources}}}")) == wanted


def test_every_container_of_such_a_pod_asks_for_what_it_may_use(render) -> None:  # type: ignore[no-untyped-def]
    pod = render("resources: {limits: {cpu: 8, memory: 32Gi}}", source=HUB).pod
    containers = [*pod["initContainers"], *pod["containers"]]
    assert [one["name"] for one in containers] == ["fetch", "runtime"]
    for one in containers:
        for name in ("cpu", "memory"):
            assert one["resources"]["requests"][name] == one["resources"]["limits"][name]
