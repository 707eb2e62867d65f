"""The main job: helm install, kubectl apply, and speech that a recogniser understands comes out of the Service."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from openai import OpenAI

from control_plane.cluster import Cluster
from control_plane.errors import CommandFailed
from control_plane.speech import CHILD_KINDS, condition
from control_plane.waiting import eventually
from end_to_end.installation import (
    OPERATOR_NAMESPACE,
    SPEECH_NAMESPACE,
    Installation,
    forwarded,
)

pytestmark = [pytest.mark.real_nodes, pytest.mark.slow, pytest.mark.timeout(600)]

SENTENCES = (Path(__file__).parents[1] / "data" / "tiny-en" / "eval_sentences.txt").read_text().splitlines()[:6]
# The model's own is 3.4 % over 96 sentences; of six short ones a single word is 2 %.
MOST_WORDS_WRONG = 0.12
NAME = "narrator"


@pytest.fixture(scope="module")
def narrator(installation: Installation) -> Iterator[Installation]:
    installation.apply(NAME)
    installation.wait_serving(NAME)
    yield installation
    installation.cluster.kubectl("delete", "ttsservice", NAME, "-n", SPEECH_NAMESPACE, "--wait", "--ignore-not-found")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # whisper leaves its word list open
def test_speech_through_the_service_is_understood(narrator: Installation) -> None:
    import jiwer
    import wer
    from whisper.normalizers import EnglishTextNormalizer

    normalise, recogniser = EnglishTextNormalizer(), wer.recogniser(threads=2)
    said, heard = [], []
    with narrator.address(NAME) as url, OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        for sentence in SENTENCES:
            answer = client.audio.speech.create(input=sentence, model="tiny-en", voice="heart", response_format="wav")
            samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
            assert rate == wer.SERVICE_RATE
            said.append(normalise(sentence))
            heard.append(normalise(wer.transcribe(recogniser, np.asarray(samples))))
    assert jiwer.wer(said, heard) <= MOST_WORDS_WRONG, list(zip(said, heard, strict=True))


def test_status_says_that_it_serves_and_where(narrator: Installation) -> None:
    status = narrator.cluster.get("ttsservice", NAME, SPEECH_NAMESPACE)["status"]
    assert condition(narrator.cluster, NAME, SPEECH_NAMESPACE, "Ready")["status"] == "True"
    assert (status["readyReplicas"], status["desiredReplicas"]) == (1, 1)
    assert status["url"] == f"http://{NAME}.{SPEECH_NAMESPACE}.svc"


def test_helm_test_has_the_service_speak(narrator: Installation) -> None:
    release = narrator.release
    narrator.upgrade(test={"service": NAME, "namespace": SPEECH_NAMESPACE})
    assert "Succeeded" in release.helm("test", release.name, "-n", release.namespace, "--timeout", "120s")
    narrator.upgrade(test={"service": "nobody", "namespace": SPEECH_NAMESPACE})
    with pytest.raises(CommandFailed):
        release.helm("test", release.name, "-n", release.namespace, "--timeout", "60s")


def test_pods_run_restricted_and_as_the_users_of_the_images(narrator: Installation, cluster: Cluster) -> None:
    for name in (OPERATOR_NAMESPACE, SPEECH_NAMESPACE):
        assert (
            cluster.get("namespace", name)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        )
    pods = [*narrator.pods(NAME), *narrator.operator_pods()]
    assert len(pods) == 3
    for pod in pods:
        namespace = pod["metadata"]["namespace"]
        users = cluster.kubectl("exec", "-n", namespace, pod["metadata"]["name"], "--", "id", "-u").strip()
        assert users == {SPEECH_NAMESPACE: "10001", OPERATOR_NAMESPACE: "65532"}[namespace]


def test_a_forwarded_port_and_the_log_show_what_a_pod_does(narrator: Installation, cluster: Cluster) -> None:
    pod = narrator.pods(NAME)[0]["metadata"]["name"]
    with forwarded(cluster, f"pod/{pod}", 8080) as url:
        assert httpx.get(f"{url}/v1/models", timeout=10).json()["data"][0]["id"] == "tiny-en"
    lines = cluster.kubectl("logs", "-n", SPEECH_NAMESPACE, pod).splitlines()
    assert any("ready" in line for line in lines), lines


def test_what_is_deleted_leaves_nothing(narrator: Installation, cluster: Cluster) -> None:
    cluster.kubectl("delete", "ttsservice", NAME, "-n", SPEECH_NAMESPACE, "--timeout=60s")
    kinds = ",".join((*CHILD_KINDS, "replicaset", "pod"))

    def gone() -> bool:
        return cluster.get(kinds, namespace=SPEECH_NAMESPACE, selector=f"ttsfleet.dev/service={NAME}") == []

    eventually(gone, f"the children of {NAME} are gone", within=90, every=0.5)
