"""POST /v1/audio/speech: from a body to audio, and every way that can end.

The endpoint reads and checks the body; everything slower (fetching a recording, waiting for audio, sending it) runs
in `SpeechResponse` under the request's deadline and a watch on the client, who may leave at any moment.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ttsfleet_runtime.checkpoint.bundle import ModelInfo
from ttsfleet_runtime.config.plan import EnginePlan
from ttsfleet_runtime.errors import DeadlineError, TTSFleetError
from ttsfleet_runtime.messages import ListVoices, SpeechRequest
from ttsfleet_runtime.server.catalog import OPENAI_VOICES, served_voice, style_of
from ttsfleet_runtime.server.delivery import Delivery, EventDelivery, StreamDelivery, WholeDelivery
from ttsfleet_runtime.server.disconnect import or_disconnect
from ttsfleet_runtime.server.errors import SlowRequestError
from ttsfleet_runtime.server.fetch import AudioFetcher
from ttsfleet_runtime.server.reference_audio import load_reference_audio
from ttsfleet_runtime.server.request_log import RequestLog
from ttsfleet_runtime.server.router_client import RouterClient
from ttsfleet_runtime.server.schemas import SpeechBody, parse_speech_body

ROUTE = "/v1/audio/speech"
_PARSE_INLINE_BYTES = 64 * 1024


@dataclass(frozen=True)
class SpeechService:
    """What all requests share."""

    client: RouterClient
    plan: EnginePlan
    model: ModelInfo
    fetcher: AudioFetcher

    async def request(self, body: SpeechBody, style: str, seed: int, log: RequestLog) -> SpeechRequest:
        """The router's form of a checked body: recording loaded, alias resolved."""
        audio = b""
        if body.ref_audio is not None:
            audio = await load_reference_audio(body.ref_audio, self.plan.limits, self.fetcher)
        return SpeechRequest(
            key=log.key,
            reply_to=self.client.identity,
            text=body.input,
            voice="" if audio else await self._voice(body.voice_name),
            prompt_audio=audio,
            prompt_text=body.ref_text,
            mode=body.requested_mode,
            instructions=body.instructions or "",
            style=style,
            stream=body.streamed,
            speed=body.speed,
            seed=seed,
            sampling=body.sampling(self.model),
            max_tokens=body.max_tokens,
            ignore_eos=body.ignore_eos,
            received=log.received,
            deadline=log.received + self.plan.server.timeout,
        )

    async def _voice(self, name: str) -> str:
        if name not in OPENAI_VOICES:
            return name
        return served_voice(name, (await self.client.call(ListVoices)).voices or [])


class SpeechResponse(Response):
    """The answer to one request. Errors before the first audio are raised, for the app to answer."""

    def __init__(self, service: SpeechService, body: SpeechBody, style: str, log: RequestLog) -> None:
        self._service = service
        self._body = body
        self._style = style
        self._log = log
        self._seed = body.seed_or_random()
        self._answered = False
        self.background: BackgroundTask | None = None
        self.status_code = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await or_disconnect(receive, self._answer(self._watched(send)), lambda: self._answered)
        except ClientDisconnect:
            self._log.cancelled()

    async def _answer(self, send: Send) -> None:
        timeout = self._service.plan.server.timeout
        delivery = self._delivery(send)
        error: TTSFleetError
        try:
            async with asyncio.timeout(self._log.received + timeout - time.monotonic()):
                await self._deliver(delivery)
            return
        except TimeoutError:
            error = DeadlineError(
                f"the request was not finished within server.timeout ({timeout:g} s): ask for less text, or stream"
            )
        except TTSFleetError as failure:
            error = failure
        if not delivery.started:
            raise error
        self._log.failed(error.info())
        await delivery.fail(error)

    async def _deliver(self, delivery: Delivery) -> None:
        request = await self._service.request(self._body, self._style, self._seed, self._log)
        stream = self._service.client.submit(request)
        try:
            await delivery.run(stream)
        finally:
            stream.close()

    def _watched(self, send: Send) -> Send:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._answered = True
            await send(message)

        return watched

    def _delivery(self, send: Send) -> Delivery:
        body = self._body
        headers = {"x-seed": str(self._seed)}
        arguments = (send, self._log, body.response_format, headers)
        if body.stream_format == "sse":
            return EventDelivery(*arguments, return_tokens=body.return_tokens)
        return StreamDelivery(*arguments) if body.streamed else WholeDelivery(*arguments)


def speech_routes(service: SpeechService) -> APIRouter:
    """The router with the one endpoint."""
    router = APIRouter()

    @router.post(ROUTE, response_class=Response, openapi_extra=_openapi(), summary="Speak a text")
    async def create_speech(request: Request) -> Response:
        log: RequestLog = request.state.log
        log.key = uuid.uuid4().hex
        raw = await _read_body(request, service.plan.server.timeout)
        if len(raw) > _PARSE_INLINE_BYTES:
            body = await asyncio.to_thread(parse_speech_body, raw, service.plan)
        else:
            body = parse_speech_body(raw, service.plan)
        return SpeechResponse(service, body, style_of(service.model, body.model, body.style), log)

    return router


async def _read_body(request: Request, timeout_seconds: float) -> bytes:
    try:
        async with asyncio.timeout(timeout_seconds):
            return await request.body()
    except TimeoutError as error:
        raise SlowRequestError(f"the body did not arrive within {timeout_seconds:g} s (server.timeout)") from error


def _openapi() -> dict[str, Any]:
    """The body's schema for /openapi.json; the endpoint parses by hand to answer in OpenAI's shape."""
    schema = SpeechBody.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(schema, definitions)}}}
    }


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """A schema without references into `definitions`."""
    if isinstance(node, dict):
        reference = node.get("$ref", "")
        if isinstance(reference, str) and (name := reference.rpartition("/")[2]) in definitions:
            return {**_inlined(definitions[name], definitions), **{k: v for k, v in node.items() if k != "$ref"}}
        return {key: _inlined(value, definitions) for key, value in node.items()}
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    return node
