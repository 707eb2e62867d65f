"""`ttsfleet status` against an HTTP server that answers as an API server does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from ttsfleet_operator.cli import main

SERVICES = "/apis/ttsfleet.dev/v1alpha1/namespaces/speech/ttsservices"
PODS = "/api/v1/namespaces/speech/pods"


class APIServer(ThreadingHTTPServer):
    """Answers GET with `answers[path]`; other paths are 404, or 403 where `forbidden`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Any] = {}
        self.forbidden: set[str] = set()
        self.queries: list[tuple[str, dict[str, list[str]]]] = []


class Handler(BaseHTTPRequestHandler):
    server: APIServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.queries.append((parts.path, parse_qs(parts.query)))
        if parts.path in self.server.forbidden:
            self._answer(403, {"kind": "Status", "reason": "Forbidden", "message": "no"})
        elif parts.path in self.server.answers:
            self._answer(200, self.server.answers[parts.path])
        else:
            self._answer(404, {"kind": "Status", "reason": "NotFound", "message": "not found"})

    def _answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def api() -> Iterator[APIServer]:
    server = APIServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def kubeconfig(api: APIServer, tmp_path: Path) -> str:
    path = tmp_path / "config"
    context = {"cluster": "c", "user": "u", "namespace": "speech"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [
            {"name": "here", "context": context},
            {"name": "elsewhere", "context": context | {"namespace": "other"}},
        ],
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


def resource(status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "narrator", "namespace": "speech", "generation": 4}, "status": status}


def listed(*items: Any) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": "1"}, "items": list(items)}


def test_service_that_serves(fleet: Any, api: APIServer, kubeconfig: str, capsys: Any) -> None:
    api.answers = {f"{SERVICES}/narrator": resource(fleet.status()), PODS: listed(fleet.ready_pod())}
    assert main(["status", "narrator", "--kubeconfig", kubeconfig]) == 0
    output = capsys.readouterr().out
    for words in ("speech/narrator: Ready", "3 of 3 replicas serve", "http://narrator.speech.svc", "rtx-4090", "3/3"):
        assert words in output
    assert (PODS, ["ttsfleet.dev/service=narrator"]) in [
        (path, query.get("labelSelector", [])) for path, query in api.queries
    ]


def test_service_with_a_problem_has_exit_code_1_and_advice(
    fleet: Any, api: APIServer, kubeconfig: str, capsys: Any
) -> None:
    crashed = fleet.container(restarts=5, terminated={"exitCode": 3})
    pod = fleet.pod("narrator-ada-x", containerStatuses=[crashed])
    status = fleet.status(observed=fleet.observed(fleet.deployment(3, 2), pod))
    api.answers = {f"{SERVICES}/narrator": resource(status), PODS: listed(pod)}
    assert main(["status", "narrator", "--kubeconfig", kubeconfig]) == 1
    output = capsys.readouterr().out
    assert "speech/narrator: Progressing" in output
    assert "CrashLoopBackOff: class ada: container runtime ends again and again (exit code 3)" in output
    assert "→ `kubectl logs narrator-ada-x --previous` tells why" in output


def test_warnings_of_the_plan_are_told(fleet: Any, api: APIServer, kubeconfig: str, capsys: Any) -> None:
    status = fleet.status()
    status["classes"][0]["warnings"] = ["load_trt true (spec.engine) needs a GPU: no effect here"]
    api.answers = {f"{SERVICES}/narrator": resource(status), PODS: listed(fleet.ready_pod())}
    assert main(["status", "narrator", "--kubeconfig", kubeconfig]) == 0
    assert "warning: class ada: load_trt true (spec.engine) needs a GPU: no effect here" in capsys.readouterr().out


def test_pods_that_may_not_be_listed_are_left_out(fleet: Any, api: APIServer, kubeconfig: str, capsys: Any) -> None:
    api.answers = {f"{SERVICES}/narrator": resource(fleet.status())}
    api.forbidden = {PODS}
    assert main(["status", "narrator", "--kubeconfig", kubeconfig, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["state"], found["pods"]) == ("Ready", [])


def test_all_services_of_a_namespace(fleet: Any, api: APIServer, kubeconfig: str, capsys: Any) -> None:
    api.answers = {SERVICES: listed(resource(fleet.status()), resource({}))}
    assert main(["status", "--kubeconfig", kubeconfig]) == 1
    output = capsys.readouterr().out
    assert "ada 3/3" in output
    assert "Unknown" in output


def test_empty_namespace(api: APIServer, kubeconfig: str, capsys: Any) -> None:
    api.answers = {SERVICES: listed()}
    assert main(["status", "--kubeconfig", kubeconfig]) == 0
    assert "no TTSService in this namespace" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        pytest.param(["other"], "there is no TTSService other in namespace speech; is it another", 1, id="unknown"),
        pytest.param(["x", "-n", "n2"], "in namespace n2", 1, id="namespace by option"),
        pytest.param(["x", "--context", "elsewhere"], "in namespace other", 1, id="namespace of the context"),
        pytest.param([], "ttsfleet is not installed there", 1, id="no such kind"),
        pytest.param(["x", "--context", "nowhere"], "no access to a cluster", 2, id="unknown context"),
    ],
)
def test_what_is_not_there(
    api: APIServer, kubeconfig: str, capsys: Any, words: list[str], message: str, code: int
) -> None:
    assert main(["status", *words, "--kubeconfig", kubeconfig]) == code
    assert message in capsys.readouterr().err


def test_refused_request_is_told(api: APIServer, kubeconfig: str, capsys: Any) -> None:
    api.forbidden = {f"{SERVICES}/narrator"}
    assert main(["status", "narrator", "--kubeconfig", kubeconfig]) == 1
    assert "403 Forbidden: no" in capsys.readouterr().err


def test_missing_kubeconfig(tmp_path: Path, capsys: Any) -> None:
    assert main(["status", "--kubeconfig", str(tmp_path / "none")]) == 2
    assert "give --kubeconfig or --context" in capsys.readouterr().err
