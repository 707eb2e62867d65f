"""/v1/models and /v1/models/{id}: the model, its styles, and OpenAI's names for them."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.errors import NotFoundError
from ttsfleet_runtime.server.catalog import model_ids, style_of


def model_routes(model: ModelInfo) -> APIRouter:
    """Both endpoints. `created` is when this process began to serve the model."""
    router = APIRouter()
    created = int(time.time())
    objects = {name: _model_object(name, model, created) for name in model_ids(model)}

    @router.get("/v1/models", summary="List the models")
    async def list_models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": list(objects.values())})

    @router.get("/v1/models/{model_id:path}", summary="Show a model")
    async def show_model(model_id: str) -> JSONResponse:
        if model_id not in objects:
            raise NotFoundError(f"model {model_id!r} does not exist; there are: {', '.join(objects)}", param="model")
        return JSONResponse(objects[model_id])

    return router


def _model_object(name: str, model: ModelInfo, created: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "ttsfleet",
        "root": model.name,
        "style": style_of(model, name, None),
    }
