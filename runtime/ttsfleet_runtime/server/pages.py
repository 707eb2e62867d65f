"""What a person or a probe looks at: `/` to try voices, `/status`, `/health`, `/metrics`.

Both pages are self-contained (no asset from elsewhere, enforced by their Content-Security-Policy) and hold no data:
they ask the API for it, with the key that the visitor gives when one is needed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from ttsfleet_runtime.errors import UnavailableError
from ttsfleet_runtime.messages import GetMetrics, GetStatus
from ttsfleet_runtime.server.router_client import RouterClient

_PROBE_SECONDS = 3.0
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def page_routes(client: RouterClient) -> APIRouter:
    """All of them. `/v1/status` is the JSON behind `/status`."""
    router = APIRouter(include_in_schema=False)
    try_page, status_page = _page("try.html"), _page("status.html")

    @router.get("/")
    async def show_try_page() -> Response:
        return try_page

    @router.get("/status")
    async def show_status_page() -> Response:
        return status_page

    @router.get("/v1/status")
    async def status() -> Response:
        return Response((await client.call(GetStatus)).text, media_type="application/json")

    @router.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> Response:
        document = json.loads((await client.call(GetStatus, _PROBE_SECONDS)).text or "{}")
        if not document.get("ready", True):
            problems = ", ".join(document.get("problems", [])) or "starting"
            raise UnavailableError(f"the server is not ready: {problems}", retry_after_seconds=1.0)
        return JSONResponse({"status": "ok"})

    @router.get("/metrics")
    async def metrics() -> Response:
        text = (await client.call(GetMetrics, _PROBE_SECONDS)).text or ""
        return PlainTextResponse(text, media_type=CONTENT_TYPE_LATEST)

    return router


def _page(name: str) -> HTMLResponse:
    html = resources.files("ttsfleet_runtime.server").joinpath("html", name).read_text(encoding="utf-8")
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in _SCRIPT.findall(html)]
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; connect-src 'self'; "
        "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(html, headers={"content-security-policy": policy, "cache-control": "no-cache"})
