"""/v1/voices, also as /v1/audio/voices: list, show, register from a recording and its transcript, delete.

The router owns the voices; these endpoints check what can be checked here and pass it on.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import JSONResponse

from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.errors import InvalidRequestError, NotFoundError, TooLargeError
from ttsfleet_runtime.messages import DeleteVoice, ListVoices, RegisterVoice, VoiceInfo
from ttsfleet_runtime.server.errors import SlowRequestError
from ttsfleet_runtime.server.router_client import RouterClient

_PREFIXES = ("/v1/voices", "/v1/audio/voices")
_AUDIO_FIELDS = ("file", "audio", "audio_sample")
_TRANSCRIPT_FIELDS = ("transcript", "ref_text")
_MAX_FORM_FIELDS = 16


def voice_routes(client: RouterClient, plan: EnginePlan) -> APIRouter:
    """The router with both spellings of the paths."""
    router = APIRouter()
    endpoints = VoiceEndpoints(client, plan)
    for prefix in _PREFIXES:
        one = prefix + "/{name}"
        router.add_api_route(prefix, endpoints.list_all, methods=["GET"], summary="List the voices")
        router.add_api_route(prefix, endpoints.register, methods=["POST"], summary="Register a voice")
        router.add_api_route(one, endpoints.show, methods=["GET"], summary="Show a voice")
        router.add_api_route(one, endpoints.delete, methods=["DELETE"], summary="Delete a registered voice")
    return router


class VoiceEndpoints:
    """The four endpoints."""

    def __init__(self, client: RouterClient, plan: EnginePlan) -> None:
        self._client = client
        self._limits = plan.limits
        self._timeout = plan.server.timeout

    async def list_all(self) -> JSONResponse:
        """All voices; `voices` repeats the names alone, which some clients read."""
        infos = await self._infos()
        return JSONResponse(
            {
                "object": "list",
                "data": [_voice_object(info) for info in infos],
                "voices": [info.name for info in infos],
            }
        )

    async def show(self, name: str) -> JSONResponse:
        for info in await self._infos():
            if info.name == name:
                return JSONResponse(_voice_object(info))
        raise NotFoundError(f"voice {name!r} does not exist; GET /v1/voices lists them", param="voice")

    async def register(self, request: Request) -> JSONResponse:
        """multipart/form-data: `name`, `file` (or `audio`, `audio_sample`), `transcript` (or `ref_text`)."""
        content_type = request.headers.get("content-type", "")
        if not content_type.startswith("multipart/form-data"):
            raise InvalidRequestError(
                "a voice is registered with multipart/form-data: name, file and transcript "
                f"(got content-type {content_type!r})"
            )
        try:
            async with asyncio.timeout(self._timeout):
                form = await request.form(max_files=1, max_fields=_MAX_FORM_FIELDS)
        except TimeoutError as error:
            raise SlowRequestError(f"the form did not arrive within {self._timeout:g} s (server.timeout)") from error
        try:
            name = _text_field(form, "name")
            if not name:
                raise InvalidRequestError("`name` is required: what the voice will be called", param="name")
            transcript = next((text for f in _TRANSCRIPT_FIELDS if (text := _text_field(form, f))), "")
            audio = await self._recording(form)
        finally:
            await form.close()
        reply = await self._client.call(RegisterVoice, self._timeout, name=name, audio=audio, transcript=transcript)
        created = next((info for info in reply.voices or [] if info.name == name), None)
        info = created or VoiceInfo(name=name, kind="registered", has_prompt=True, transcript=transcript)
        return JSONResponse(_voice_object(info), status_code=201)

    async def delete(self, name: str) -> JSONResponse:
        await self._client.call(DeleteVoice, name=name)
        return JSONResponse({"id": name, "object": "voice", "deleted": True})

    async def _infos(self) -> list[VoiceInfo]:
        return (await self._client.call(ListVoices)).voices or []

    async def _recording(self, form: FormData) -> bytes:
        upload = next((form[field] for field in _AUDIO_FIELDS if field in form), None)
        if not isinstance(upload, UploadFile):
            raise InvalidRequestError("`file` is required: the recording of the voice, as a file", param="file")
        audio = await upload.read()
        if not audio:
            raise InvalidRequestError("`file` is empty", param="file")
        if len(audio) > self._limits.prompt_bytes:
            raise TooLargeError(
                f"the recording has {len(audio)} bytes; at most {self._limits.prompt_bytes} are accepted "
                "(limits.prompt_bytes)",
                param="file",
            )
        return audio


def _text_field(form: FormData, name: str) -> str:
    value = form.get(name, "")
    if isinstance(value, UploadFile):
        raise InvalidRequestError(f"`{name}` must be text, not a file", param=name)
    return value.strip()


def _voice_object(info: VoiceInfo) -> dict[str, Any]:
    return {
        "id": info.name,
        "object": "voice",
        "name": info.name,
        "kind": info.kind,
        "has_prompt": info.has_prompt,
        "created": int(info.created),
        "transcript": info.transcript,
    }
