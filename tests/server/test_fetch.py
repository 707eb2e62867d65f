"""Fetching recordings by URL without becoming a door into the private network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ttsfleet_runtime.errors import InvalidRequestError, TooLargeError, TTSFleetError
from ttsfleet_runtime.messages import SpeechRequest
from ttsfleet_runtime.server.fetch import AudioFetcher, is_public, resolve

RECORDING = b"RIFF" + bytes(1000)


class Origin(BaseHTTPRequestHandler):
    """A web server with a recording, redirects and nuisances."""

    hosts: list[str]

    def do_GET(self) -> None:
        self.hosts.append(self.headers["host"])
        kind, _, rest = self.path[1:].partition("/")
        if kind == "to":
            self.send_response(302)
            self.send_header("location", rest)
            self.end_headers()
            return
        self.send_response(404 if kind == "missing" else 200)
        if kind == "gzip":
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        self.wfile.write(RECORDING * (100 if kind == "large" else 1))

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def origin() -> Iterator[tuple[int, list[str]]]:
    """(port, Host headers seen)."""
    handler = type("Handler", (Origin,), {"hosts": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield httpd.server_port, handler.hosts
        httpd.shutdown()
        thread.join()


class Names:
    """A resolver with a table; names without an entry fail as unknown."""

    def __init__(self, table: dict[str, list[str]]) -> None:
        self.table = table
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.table:
            raise OSError("unknown")
        return self.table[host]


def fetch(url: str, *, allow_private: bool = False, resolver: Any = resolve, max_bytes: int = 50_000) -> bytes:
    return asyncio.run(AudioFetcher(max_bytes, allow_private=allow_private, resolver=resolver).fetch(url))


PRIVATE_URLS = [
    "http://127.0.0.1/a.wav",
    "http://127.1/a.wav",
    "http://2130706433/a.wav",
    "http://0x7f000001/a.wav",
    "http://0.0.0.0/a.wav",
    "http://10.1.2.3/a.wav",
    "http://172.16.0.1/a.wav",
    "http://192.168.1.1/a.wav",
    "http://100.64.0.1/a.wav",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/a.wav",
    "http://[fd00::1]/a.wav",
    "http://[fe80::1]/a.wav",
    "http://[::ffff:127.0.0.1]/a.wav",
    "http://[::ffff:10.0.0.1]/a.wav",
    "http://[64:ff9b::a00:1]/a.wav",
    "http://[2002:7f00:1::]/a.wav",
    "http://localhost/a.wav",
    "https://127.0.0.1/a.wav",
    "http://224.0.0.1/a.wav",
    "http://255.255.255.255/a.wav",
]


@pytest.mark.parametrize("url", PRIVATE_URLS)
def test_a_private_address_is_refused_in_every_spelling(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="is not a public address"):
        fetch(url)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("64:ff9b::5db8:d70e", True),
        ("127.0.0.1", False),
        ("fe80::1%eth0", False),
        ("nonsense", False),
    ],
)
def test_public_addresses_are_told_from_others(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["::1", "93.184.215.14"], ["169.254.169.254"]]
)
def test_a_name_with_any_private_address_is_refused(addresses: list[str]) -> None:
    names = Names({"voices.example": addresses})
    with pytest.raises(InvalidRequestError, match="not a public address"):
        fetch("http://voices.example/a.wav", resolver=names)


def test_a_name_is_resolved_once_and_its_checked_address_connected_to(origin: tuple[int, list[str]]) -> None:
    port, hosts = origin
    names = Names({"voices.example": ["127.0.0.1"]})
    assert fetch(f"http://voices.example:{port}/a", allow_private=True, resolver=names) == RECORDING
    assert names.asked == ["voices.example"]
    assert hosts == [f"voices.example:{port}"]


def test_a_redirect_to_a_private_address_is_refused(
    origin: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, hosts = origin
    names = Names({"voices.example": ["127.0.0.1"], "inside.example": ["10.0.0.1"]})
    # The test's own loopback server plays the public one.
    monkeypatch.setattr("ttsfleet_runtime.server.fetch.is_public", lambda a: a == "127.0.0.1")
    with pytest.raises(InvalidRequestError, match=r"'inside\.example' is not a public address"):
        fetch(f"http://voices.example:{port}/to/http://inside.example/a.wav", resolver=names)
    assert names.asked == ["voices.example", "inside.example"]
    assert len(hosts) == 1


def test_redirects_are_followed_a_few_times_only(origin: tuple[int, list[str]]) -> None:
    port, hosts = origin
    base = f"http://127.0.0.1:{port}"
    assert fetch(f"{base}/to//a", allow_private=True) == RECORDING
    assert fetch(f"{base}/to//to//a", allow_private=True) == RECORDING
    with pytest.raises(InvalidRequestError, match="more than 3 redirects"):
        fetch(f"{base}{'/to/' * 5}/a", allow_private=True)
    assert len(hosts) == 2 + 3 + 4


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("/large", TooLargeError, "more than 50000 bytes"),
        ("/gzip", InvalidRequestError, "compressed"),
        ("/missing", InvalidRequestError, "answered 404"),
        ("/to/file:///etc/passwd", InvalidRequestError, "neither an http"),
        ("/to/http://user:pw@127.0.0.1/", InvalidRequestError, "credentials"),
    ],
)
def test_what_cannot_be_a_recording_is_refused(
    origin: tuple[int, list[str]], path: str, kind: type[TTSFleetError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        fetch(f"http://127.0.0.1:{origin[0]}{path}", allow_private=True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://nowhere.example/", "cannot be resolved"),
        ("http:///a.wav", "neither an http"),
        ("http://[::1/a.wav", "is not a URL"),
        ("http://0177.0.0.1/a.wav", "is not a URL"),
        ("http://u:p@voices.example/", "credentials"),
    ],
)
def test_what_is_no_address_is_refused(url: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        fetch(url, resolver=Names({}))


def test_a_refused_connection_is_a_client_error() -> None:
    with pytest.raises(InvalidRequestError, match="could not be fetched"):
        fetch("http://127.0.0.1:9/a.wav", allow_private=True)


def test_messages_do_not_show_the_query_of_a_signed_url() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        fetch("http://127.0.0.1:9/a.wav?signature=secret", allow_private=True)
    assert "secret" not in caught.value.message


def test_a_recording_by_url_is_cloned(start_server: Any, origin: tuple[int, list[str]]) -> None:
    server = start_server(limits={"allow_private_ref_audio": True})
    answer = server.speak(ref_audio=f"http://127.0.0.1:{origin[0]}/a.wav", ref_text="Words.")
    assert answer.status_code == 200
    assert server.router.wait_for(SpeechRequest).prompt_audio == RECORDING


def test_a_private_url_in_a_request_is_400(server: Any) -> None:
    answer = server.speak(ref_audio="http://169.254.169.254/latest/meta-data/")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "ref_audio"
    assert server.router.count(SpeechRequest) == 0
