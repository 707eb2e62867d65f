"""Puts the HTTP app together. What a request passes, from outside in: CORS, `AccessLayer`, then its endpoint."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.server.access import AccessLayer, WorkerLoad
from ttsfleet_runtime.server.errors import install_error_handlers
from ttsfleet_runtime.server.fetch import AudioFetcher, Resolver, resolve
from ttsfleet_runtime.server.models import model_routes
from ttsfleet_runtime.server.pages import page_routes
from ttsfleet_runtime.server.router_client import RouterClient
from ttsfleet_runtime.server.speech import SpeechService, speech_routes
from ttsfleet_runtime.server.voices import voice_routes

_EXPOSED_HEADERS = ("X-Request-Id", "Server-Timing", "Retry-After", "X-Seed", "X-Speech-Tokens-SHA256")


def create_app(
    client: RouterClient,
    plan: EnginePlan,
    model: ModelInfo,
    api_key: Callable[[], str] | None,
    load: WorkerLoad | None = None,
    resolver: Resolver = resolve,
) -> FastAPI:
    """The app around a started `client`.

    `api_key` gives the key as it is now; None = open access. `load` is shared with the process, which retires by it.
    """
    # No /docs: its page loads scripts from elsewhere. /openapi.json stays.
    app = FastAPI(title="ttsfleet", version=version("ttsfleet-runtime"), docs_url=None, redoc_url=None)
    fetcher = AudioFetcher(
        plan.limits.prompt_bytes, allow_private=plan.limits.allow_private_ref_audio, resolver=resolver
    )
    install_error_handlers(app)
    app.include_router(speech_routes(SpeechService(client, plan, model, fetcher)))
    app.include_router(voice_routes(client, plan))
    app.include_router(model_routes(model))
    app.include_router(page_routes(client))
    app.add_middleware(AccessLayer, plan=plan, api_key=api_key, load=load or WorkerLoad(), report=client.report)
    if plan.server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(plan.server.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=list(_EXPOSED_HEADERS),
        )
    return app
