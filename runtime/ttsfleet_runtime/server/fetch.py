"""Fetches a recording that a request names by URL, without lending the server's place in the network to the client.

Each hop's host is resolved once; every address must be public, and the connection goes to the very address that was
checked (the name serves only for Host and TLS), so a second DNS answer cannot lead elsewhere. Redirects are followed
by hand, each checked like the first. Proxies and credentials of the environment are not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urljoin

import httpx

from ttsfleet_runtime.errors import InvalidRequestError, TooLargeError

MAX_REDIRECTS = 3
TOTAL_SECONDS = 20.0
_CONNECT_SECONDS = 5.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PARAM = "ref_audio"

Resolver = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host, by the system's resolver (which also reads forms like 2130706433 or 0x7f.1)."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet, also when an IPv4 one is wrapped into IPv6."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour
        if embedded is None and ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class AudioFetcher:
    """GETs recordings of limited size from public addresses; `allow_private` lifts the address rule."""

    def __init__(self, max_bytes: int, *, allow_private: bool, resolver: Resolver = resolve) -> None:
        self._max_bytes = max_bytes
        self._allow_private = allow_private
        self._resolve = resolver
        self._tls: ssl.SSLContext | None = None

    async def fetch(self, url: str) -> bytes:
        """The body. Raises InvalidRequestError for what may not or cannot be had, TooLargeError beyond the limit."""
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                return await self._follow(url)
        except TimeoutError as error:
            raise InvalidRequestError(
                f"ref_audio: {_shown(url)} did not arrive within {TOTAL_SECONDS:g} s", param=_PARAM
            ) from error
        except httpx.HTTPError as error:
            raise InvalidRequestError(
                f"ref_audio: {_shown(url)} could not be fetched ({type(error).__name__})", param=_PARAM
            ) from error

    async def _follow(self, url: str) -> bytes:
        previous: httpx.URL | None = None
        for _ in range(MAX_REDIRECTS + 1):
            target = _parsed(url)
            if previous is not None and previous.scheme == "https" and target.scheme == "http":
                raise InvalidRequestError(f"ref_audio: {_shown(url)} redirects from https to http", param=_PARAM)
            answer = await self._get(target)
            if isinstance(answer, bytes):
                return answer
            previous, url = target, urljoin(str(target), answer)
        raise InvalidRequestError(f"ref_audio: more than {MAX_REDIRECTS} redirects", param=_PARAM)

    async def _get(self, target: httpx.URL) -> bytes | str:
        """One hop: the body, or where it is redirected to."""
        address = await self._checked_address(target)
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        headers = {
            "host": target.netloc.decode("ascii"),
            "accept": "audio/*, application/octet-stream;q=0.9",
            "accept-encoding": "identity",
            "user-agent": "ttsfleet",
        }
        async with (
            httpx.AsyncClient(
                trust_env=False, follow_redirects=False, timeout=_CONNECT_SECONDS, verify=self._tls
            ) as client,
            client.stream(
                "GET",
                target.copy_with(host=address),
                headers=headers,
                extensions={"sni_hostname": target.raw_host.decode("ascii")},
            ) as response,
        ):
            if response.has_redirect_location:
                return response.headers["location"]
            if response.status_code != 200:
                raise InvalidRequestError(
                    f"ref_audio: {_shown(str(target))} answered {response.status_code}", param=_PARAM
                )
            return await self._body(response, target)

    async def _body(self, response: httpx.Response, target: httpx.URL) -> bytes:
        # Compressed bodies are refused rather than unpacked: a small one can expand without bound.
        if response.headers.get("content-encoding", "identity") != "identity":
            raise InvalidRequestError(
                f"ref_audio: {_shown(str(target))} is sent compressed; only identity is accepted", param=_PARAM
            )
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > self._max_bytes:
                raise TooLargeError(
                    f"ref_audio: {_shown(str(target))} has more than {self._max_bytes} bytes (limits.prompt_bytes)",
                    param=_PARAM,
                )
        return bytes(body)

    async def _checked_address(self, target: httpx.URL) -> str:
        port = target.port or (443 if target.scheme == "https" else 80)
        try:
            addresses = await self._resolve(target.raw_host.decode("ascii"), port)
        except OSError as error:
            raise InvalidRequestError(
                f"ref_audio: the host {target.host!r} cannot be resolved", param=_PARAM
            ) from error
        if not addresses:
            raise InvalidRequestError(f"ref_audio: the host {target.host!r} has no address", param=_PARAM)
        # One private address among public ones is refused too: the answer was made to mislead.
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise InvalidRequestError(
                f"ref_audio: {target.host!r} is not a public address; send the recording as base64 "
                "(an operator can allow this with limits.allow_private_ref_audio)",
                param=_PARAM,
            )
        return addresses[0]


def _parsed(url: str) -> httpx.URL:
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidRequestError(f"ref_audio: {_shown(url)} is not a URL", param=_PARAM) from error
    if target.scheme not in ("http", "https") or not target.host:
        raise InvalidRequestError(f"ref_audio: {_shown(url)} is neither an http(s) URL nor base64", param=_PARAM)
    if target.userinfo:
        raise InvalidRequestError("ref_audio: a URL with credentials is not fetched", param=_PARAM)
    return target


def _shown(url: str) -> str:
    """Scheme, host and path for a message: a query may hold a signature."""
    text = url.partition("?")[0]
    return repr(text if len(text) <= 120 else text[:120] + "…")
