"""HTTP for all sources: https only, every hop checked, faults told apart, transient ones tried again.

A host is resolved once and the connection made to the very address that was checked; the name serves for Host and TLS
alone, so a second DNS answer cannot lead elsewhere. Redirects are followed by hand, each checked like the first, and
`authorization` goes to the first host only. Bodies are never unpacked and never repeated in a message.
"""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin

import certifi
import httpx

from ttsfleet_runtime.fetch import addresses
from ttsfleet_runtime.fetch.addresses import Proxies
from ttsfleet_runtime.fetch.config import Limits
from ttsfleet_runtime.fetch.failures import Failure, FetchError

MAX_REDIRECTS = 5
_MAX_DOCUMENT_BYTES = 32 << 20
_MAX_PAUSE_SECONDS = 30.0
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_FAILURES = {401: Failure.DENIED, 403: Failure.DENIED, 404: Failure.NOT_FOUND, 410: Failure.NOT_FOUND}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Result = TypeVar("Result")
Resolver = Callable[[str, int], list[str]]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: httpx.Headers
    body: bytes


class Transport:
    """A client for one fetch. Not for several threads."""

    def __init__(
        self,
        limits: Limits,
        *,
        ca_file: str = "",
        proxies: Proxies | None = None,
        resolver: Resolver = addresses.resolve,
    ) -> None:
        self._limits = limits
        self._proxies = proxies or Proxies()
        self._resolve = resolver
        self._tls = _tls_context(ca_file)
        # One per host and proxy: a connection to an address must not serve another host's name at that address.
        self._clients: dict[tuple[str, str], httpx.Client] = {}

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    @contextmanager
    def stream(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        authorization: Mapping[str, str] | None = None,
        *,
        accept: frozenset[int] = frozenset(),
    ) -> Iterator[httpx.Response]:
        """GET: the response with its body still to be read, at most one status above 399 of those in `accept`.

        Raises FetchError, also for faults while the caller reads the body.
        """
        response: httpx.Response | None = None
        try:
            response = self._follow(url, headers or {}, authorization or {})
            if response.status_code >= 300 and response.status_code not in accept:
                raise _refused_status(response, url)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FetchError(Failure.FAILED, f"{shown(url)} is sent compressed, though that was not asked for")
            yield response
        except httpx.HTTPError as error:
            raise _explained(error, url) from error
        finally:
            if response is not None:
                response.close()

    def get(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        authorization: Mapping[str, str] | None = None,
        *,
        accept: frozenset[int] = frozenset(),
    ) -> Answer:
        """GET a document of limited size, tried again after transient faults."""

        def attempt() -> Answer:
            with self.stream(url, headers, authorization, accept=accept) as response:
                body = bytearray()
                for piece in response.iter_raw():
                    body += piece
                    if len(body) > _MAX_DOCUMENT_BYTES:
                        raise FetchError(
                            Failure.UNSAFE_CONTENT, f"{shown(url)} answers with more than {_MAX_DOCUMENT_BYTES} bytes"
                        )
                return Answer(response.status_code, response.headers, bytes(body))

        return self.retried(attempt)

    def retried(self, attempt: Callable[[], Result], made_progress: Callable[[], bool] = lambda: False) -> Result:
        """Call `attempt` until it succeeds, at most `limits.attempts` times in a row without progress."""
        failed = 0
        while True:
            try:
                return attempt()
            except FetchError as error:
                failed = 1 if made_progress() else failed + 1
                if not error.is_transient or failed >= self._limits.attempts:
                    raise
                pause = self._pause(failed, error.retry_after_seconds)
                logger.warning("%s; trying again in %.1f s", error.message, pause)
                time.sleep(pause)

    def _pause(self, failed: int, retry_after: float | None) -> float:
        pause = self._limits.backoff_seconds * 2.0 ** (failed - 1) * random.uniform(0.75, 1.25)
        return float(min(max(pause, retry_after or 0.0), _MAX_PAUSE_SECONDS))

    def _follow(self, url: str, headers: Mapping[str, str], authorization: Mapping[str, str]) -> httpx.Response:
        first = _parsed(url, Failure.INVALID_SOURCE)
        target, failure = first, Failure.INVALID_SOURCE
        for _ in range(MAX_REDIRECTS + 1):
            same_origin = (target.scheme, target.host, target.port) == (first.scheme, first.host, first.port)
            sent = {**headers, **(authorization if same_origin else {})}
            response = self._send(target, sent, failure)
            if response.status_code not in _REDIRECTS or "location" not in response.headers:
                return response
            location = response.headers["location"]
            response.close()
            failure = Failure.UNSAFE_CONTENT
            target = _parsed(urljoin(str(target), location), failure)
        raise FetchError(Failure.UNSAFE_CONTENT, f"{shown(url)}: more than {MAX_REDIRECTS} redirects")

    def _send(self, target: httpx.URL, headers: Mapping[str, str], failure: Failure) -> httpx.Response:
        """One hop. `failure` is what a refused target counts as."""
        proxy = self._proxies.of(target)
        sent = {"accept-encoding": "identity", "user-agent": "ttsfleet", "accept": "*/*", **headers}
        if proxy:
            self._admit(target, addresses.is_refused_name(target.host), False, failure)
            client = self._client(target, proxy)
            return client.send(client.build_request("GET", target, headers=sent), stream=True)
        client = self._client(target, "")
        sent["host"] = target.netloc.decode("ascii")
        host = target.raw_host.decode("ascii")
        candidates = self._checked_addresses(target, host, failure)
        for last, address in enumerate(candidates, 1 - len(candidates)):
            request = client.build_request(
                "GET", target.copy_with(host=address), headers=sent, extensions={"sni_hostname": host}
            )
            try:
                return client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if last == 0 or _certificate_fault(error):
                    raise
        raise AssertionError("a host has at least one address")

    def _checked_addresses(self, target: httpx.URL, host: str, failure: Failure) -> list[str]:
        found = self._resolve(host, target.port or (443 if target.scheme == "https" else 80))
        # One refused address among others is refused too: such an answer was made to mislead.
        loopback = bool(found) and all(addresses.is_loopback(address) for address in found)
        refused = not found or any(addresses.is_refused(address) for address in found)
        self._admit(target, refused, loopback, failure)
        return found

    def _admit(self, target: httpx.URL, refused: bool, loopback: bool, failure: Failure) -> None:
        admitted_loopback = loopback and self._limits.allow_loopback
        if target.scheme != "https" and not admitted_loopback:
            raise FetchError(failure, f"{shown(str(target))} is refused: only https is fetched")
        if refused and not admitted_loopback:
            raise FetchError(
                failure, f"{shown(str(target))} is refused: it leads to a loopback, link-local or metadata address"
            )

    def _client(self, target: httpx.URL, proxy: str) -> httpx.Client:
        key = (f"{target.scheme}://{target.netloc.decode('ascii')}", proxy)
        client = self._clients.get(key)
        if client is None:
            limits = self._limits
            timeout = httpx.Timeout(limits.stall_seconds, connect=limits.connect_seconds)
            try:
                client = httpx.Client(
                    trust_env=False, verify=self._tls, timeout=timeout, follow_redirects=False, proxy=proxy or None
                )
            except (ValueError, ImportError, httpx.InvalidURL) as error:  # ImportError: SOCKS
                raise FetchError(Failure.INVALID_SOURCE, "the environment's proxy is no http or https URL") from error
            self._clients[key] = client
        return client


def shown(url: str) -> str:
    """Scheme, host and path for a message: a query may hold a signature, a user part a password."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return "the URL"
    text = f"{parsed.scheme}://{parsed.host}{f':{parsed.port}' if parsed.port else ''}{parsed.path}"
    return text if len(text) <= 200 else text[:200] + "…"


def _tls_context(ca_file: str) -> ssl.SSLContext:
    """The machine's certificates, the public ones that come with us, and those of `ca_file`."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if ca_file:
        try:
            context.load_verify_locations(Path(ca_file))
        except OSError as error:  # ssl.SSLError among them
            raise FetchError(
                Failure.INVALID_SOURCE, f"{ca_file} holds no PEM certificates ({type(error).__name__})"
            ) from error
    return context


def _parsed(url: str, failure: Failure) -> httpx.URL:
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise FetchError(failure, "the source's URL cannot be parsed") from error
    if target.scheme not in ("https", "http") or not target.host:
        raise FetchError(failure, f"{shown(url)} is no https URL")
    if target.userinfo:
        raise FetchError(failure, f"{shown(url)} is refused: it holds a user or password")
    return target


def _refused_status(response: httpx.Response, url: str) -> FetchError:
    status = response.status_code
    transient = status in _RETRIED
    failure = _FAILURES.get(status, Failure.UNREACHABLE if transient else Failure.FAILED)
    return FetchError(
        failure,
        f"{shown(url)} answers with status {status}",
        is_transient=transient,
        retry_after_seconds=_retry_after(response),
    )


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None


def _explained(error: httpx.HTTPError, url: str) -> FetchError:
    """A fault of the connection. httpx's own words are kept out: they can hold the URL with its query."""
    where = shown(url)
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
        return FetchError(Failure.TIMEOUT, f"{where}: no byte came for too long", is_transient=True)
    if _certificate_fault(error):
        return FetchError(
            Failure.UNREACHABLE, f"{where}: its certificate is not trusted; a private CA goes into ca_file"
        )
    return FetchError(Failure.UNREACHABLE, f"{where}: the connection fails ({_cause(error)})", is_transient=True)


def _cause(error: BaseException) -> str:
    """What the system said, where it said something, else the innermost kind of error."""
    chain = _chain(error)
    words = [one.strerror for one in chain if isinstance(one, OSError) and one.strerror]
    return words[-1] if words else type(chain[-1]).__name__


def _certificate_fault(error: BaseException) -> bool:
    return any(isinstance(one, ssl.SSLCertVerificationError) for one in _chain(error))


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what led to it, the first cause last."""
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    return chain
