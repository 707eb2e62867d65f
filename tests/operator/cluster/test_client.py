"""The client against a small HTTP server: chunks, typed errors, what a write sends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from ttsfleet_operator.cluster.api_errors import (
    AlreadyExistsError,
    APIError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NamespaceEndsError,
    NotFoundError,
    UnavailableError,
)
from ttsfleet_operator.cluster.client import KubernetesClient, environment_proxy
from ttsfleet_operator.cluster.kinds import DEPLOYMENTS, SERVICES, SERVICES_OF_USERS

Answer = Callable[[web.Request, str], web.Response]


@asynccontextmanager
async def server_of(answer: Answer) -> AsyncIterator[str]:
    """The URL of a server that gives the answers."""

    async def handle(request: web.Request) -> web.Response:
        return answer(request, await request.text())

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client_at(url: str) -> AsyncIterator[KubernetesClient]:
    configuration = Configuration()
    configuration.host = url
    client = KubernetesClient(configuration)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def client_of(answer: Answer) -> AsyncIterator[KubernetesClient]:
    async with server_of(answer) as url, client_at(url) as client:
        yield client


PROXY = "http://127.0.0.1:3128"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, None, id="none is named"),
        pytest.param({"https_proxy": PROXY}, PROXY, id="one is named"),
        pytest.param({"HTTPS_PROXY": PROXY}, PROXY, id="one is named in capitals"),
        pytest.param({"http_proxy": PROXY}, None, id="one of another scheme"),
        pytest.param({"https_proxy": PROXY, "no_proxy": "api.example"}, None, id="the host goes without"),
        pytest.param({"https_proxy": PROXY, "no_proxy": ".example"}, None, id="its domain goes without"),
        pytest.param({"https_proxy": PROXY, "no_proxy": "other.example"}, PROXY, id="another host goes without"),
    ],
)
def test_the_environment_names_the_proxy(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str | None
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy("https://api.example:6443") == expected


async def test_requests_go_through_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(request: web.Request, _body: str) -> web.Response:
        asked.append(str(request.headers["host"]))
        return web.json_response({"metadata": {"name": "d"}})

    async with server_of(answer) as proxy:
        for name, value in {"http_proxy": proxy, "HTTP_PROXY": proxy, "no_proxy": "", "NO_PROXY": ""}.items():
            monkeypatch.setenv(name, value)
        async with client_at("http://api.example") as client:
            assert await client.get(DEPLOYMENTS, "n", "d") == {"metadata": {"name": "d"}}
    assert asked == ["api.example"]


async def test_a_list_is_read_in_chunks_and_begun_again_when_its_token_expires() -> None:
    asked: list[str] = []

    def answer(request: web.Request, _body: str) -> web.Response:
        token = request.query.get("continue", "")
        asked.append(token)
        if token == "t1" and asked.count("t1") == 1:
            return web.json_response({"reason": "Expired", "message": "too old"}, status=410)
        metadata = {"resourceVersion": str(len(asked)), "continue": "" if token else "t1"}
        return web.json_response({"metadata": metadata, "items": [{"metadata": {"name": f"d{len(asked)}"}}]})

    async with client_of(answer) as client:
        found = [(items[0]["metadata"]["name"], version) async for items, version in client.list_chunks(DEPLOYMENTS)]
    assert asked == ["", "t1", "", "t1"]
    assert found == [("d1", "1"), ("d3", "3"), ("d4", "4")]


async def test_an_apply_names_its_manager_and_forces_only_when_told() -> None:
    seen: list[tuple[str, str, dict[str, str], str, Any]] = []

    def answer(request: web.Request, body: str) -> web.Response:
        kind = request.headers["Content-Type"]
        seen.append((request.method, request.path, dict(request.query), kind, json.loads(body)))
        return web.json_response({})

    manifest = {"metadata": {"name": "a", "namespace": "n"}, "status": {"x": 1}}
    async with client_of(answer) as client:
        await client.apply(SERVICES_OF_USERS, manifest, "me", subresource="status")
        await client.apply(SERVICES, manifest, "me", force=False)
    (method, path, query, content, body), (_, other_path, other_query, _, _) = seen
    assert (method, path) == ("PATCH", "/apis/ttsfleet.dev/v1alpha1/namespaces/n/ttsservices/a/status")
    assert (query, content, body) == (
        {"fieldManager": "me", "force": "true"},
        "application/apply-patch+yaml",
        manifest,
    )
    assert (other_path, other_query["force"]) == ("/api/v1/namespaces/n/services/a", "false")


async def test_a_deletion_names_the_very_object_and_one_that_is_gone_is_fine() -> None:
    bodies: list[Any] = []

    def answer(_request: web.Request, body: str) -> web.Response:
        bodies.append(json.loads(body))
        return web.json_response({"reason": "NotFound"}, status=404)

    async with client_of(answer) as client:
        await client.delete(SERVICES, "n", "a", "uid-1")
    assert bodies == [{"preconditions": {"uid": "uid-1"}, "propagationPolicy": "Background"}]


ERRORS = [
    pytest.param(404, "NotFound", "", NotFoundError, id="absent"),
    pytest.param(409, "Conflict", "", ConflictError, id="changed meanwhile"),
    pytest.param(409, "AlreadyExists", "", AlreadyExistsError, id="exists"),
    pytest.param(403, "Forbidden", "no", ForbiddenError, id="forbidden"),
    pytest.param(403, "Forbidden", "x because it is being terminated", NamespaceEndsError, id="namespace ends"),
    pytest.param(422, "Invalid", "bad", InvalidError, id="invalid"),
    pytest.param(429, "TooManyRequests", "", UnavailableError, id="busy"),
    pytest.param(503, "", "", UnavailableError, id="down"),
]


@pytest.mark.parametrize(("status", "reason", "message", "kind"), ERRORS)
async def test_an_answer_that_is_no_success_has_its_type(
    status: int, reason: str, message: str, kind: type[APIError]
) -> None:
    def answer(_request: web.Request, _body: str) -> web.Response:
        body = {"reason": reason, "message": message}
        return web.json_response(body, status=status, headers={"Retry-After": "7"})

    async with client_of(answer) as client:
        with pytest.raises(kind) as caught:
            await client.get(SERVICES, "n", "a")
    assert type(caught.value) is kind
    if isinstance(caught.value, UnavailableError):
        assert caught.value.seconds == 7.0


async def test_no_answer_is_unavailable() -> None:
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:1"
    client = KubernetesClient(configuration)
    with pytest.raises(UnavailableError):
        await client.get(SERVICES, "n", "a")
    await client.close()
