"""The management API (port 8081): liveness, readiness from real state, metrics, status, cache release.

It runs in the router's event loop, so an answer to `/livez` is proof that the router turns. What changes state
answers only to the machine itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

_LOOPBACK = frozenset({"127.0.0.1", "::1", "::ffff:127.0.0.1"})


@dataclass(frozen=True)
class ManagementHooks:
    """What the router offers to this API."""

    problems: Callable[[], list[str]]
    metrics: Callable[[], str]
    status: Callable[[], dict[str, Any]]
    release_voices: Callable[[], int]


def create_management_app(hooks: ManagementHooks) -> FastAPI:
    """Routes: GET /livez, /readyz, /metrics, /status; POST /cache/release (loopback only)."""
    app = FastAPI(title="ttsfleet management", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/livez")
    async def livez() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        problems = hooks.problems()
        return JSONResponse({"ready": not problems, "problems": problems}, status_code=503 if problems else 200)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(hooks.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/status")
    async def status() -> JSONResponse:
        return JSONResponse(hooks.status())

    @app.post("/cache/release")
    async def release(request: Request) -> JSONResponse:
        client = request.client.host if request.client else ""
        if client not in _LOOPBACK:
            return JSONResponse({"error": "cache release answers only to the pod itself (loopback)"}, status_code=403)
        return JSONResponse({"released": hooks.release_voices()})

    return app
