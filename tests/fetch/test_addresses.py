"""Where a fetch may connect to, and through which proxy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import httpx
import pytest

from ttsfleet_runtime.fetch.addresses import Proxies, is_refused, is_refused_name, read_proxies
from ttsfleet_runtime.fetch.config import Limits
from ttsfleet_runtime.fetch.failures import Failure, FetchError
from ttsfleet_runtime.fetch.transport import Transport


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        pytest.param("93.184.216.34", False, id="public"),
        pytest.param("10.0.0.7", False, id="private: mirrors live there"),
        pytest.param("fd12:3456::1", False, id="private, version 6"),
        pytest.param("127.0.0.2", True, id="loopback"),
        pytest.param("::1", True, id="loopback, version 6"),
        pytest.param("0.0.0.0", True, id="this machine"),
        pytest.param("::", True, id="this machine, version 6"),
        pytest.param("169.254.169.254", True, id="metadata"),
        pytest.param("169.254.170.23", True, id="credentials of pods"),
        pytest.param("fe80::1%eth0", True, id="link-local"),
        pytest.param("fd00:ec2::254", True, id="metadata, version 6"),
        pytest.param("100.100.100.200", True, id="metadata of another cloud"),
        pytest.param("::ffff:127.0.0.1", True, id="loopback in version 6"),
        pytest.param("64:ff9b::a9fe:a9fe", True, id="metadata through NAT64"),
        pytest.param("2002:a9fe:a9fe::", True, id="metadata through 6to4"),
        pytest.param("224.0.0.1", True, id="multicast"),
        pytest.param("nonsense", True, id="no address"),
    ],
)
def test_address_is_refused(address: str, refused: bool) -> None:
    assert is_refused(address) is refused


@pytest.mark.parametrize(
    ("host", "refused"),
    [
        ("huggingface.co", False),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("x.localhost", True),
        ("metadata.google.internal", True),
        ("169.254.169.254", True),
        ("10.1.2.3", False),
    ],
)
def test_host_behind_a_proxy_is_judged_as_written(host: str, refused: bool) -> None:
    assert is_refused_name(host) is refused


@pytest.mark.parametrize(
    ("rules", "url", "proxied"),
    [
        pytest.param("", "https://hub.example/", True, id="no rule"),
        pytest.param("*", "https://hub.example/", False, id="everything"),
        pytest.param("hub.example", "https://hub.example/", False, id="the name"),
        pytest.param("hub.example", "https://cdn.hub.example/", False, id="a name below"),
        pytest.param("hub.example", "https://myhub.example/", True, id="another name with the same end"),
        pytest.param(".svc,.cluster.local", "https://minio.speech.svc/", False, id="a suffix"),
        pytest.param("*.svc", "https://minio.speech.svc/", False, id="a suffix with a star"),
        pytest.param("10.0.0.0/8", "https://10.1.2.3/", False, id="a range"),
        pytest.param("10.0.0.0/8", "https://11.1.2.3/", True, id="another range"),
        pytest.param("fd00::/8", "https://[fd12::1]/", False, id="a range, version 6"),
        pytest.param("hub.example:8443", "https://hub.example:8443/", False, id="the port"),
        pytest.param("hub.example:8443", "https://hub.example/", True, id="another port"),
    ],
)
def test_rules_of_no_proxy(rules: str, url: str, proxied: bool) -> None:
    proxies = read_proxies({"HTTPS_PROXY": "proxy.example:3128", "NO_PROXY": rules})
    assert proxies.of(httpx.URL(url)) == ("http://proxy.example:3128" if proxied else "")


def test_proxies_are_read_as_other_programs_do() -> None:
    assert read_proxies({}) == Proxies()
    assert read_proxies({"ALL_PROXY": "http://p"}) == Proxies("http://p", "http://p")
    assert read_proxies({"https_proxy": "http://a", "HTTPS_PROXY": "http://b"}).https == "http://a"


def test_one_refused_address_among_others_is_enough() -> None:
    transport = Transport(Limits(attempts=1), resolver=lambda host, port: ["93.184.216.34", "127.0.0.1"])
    with pytest.raises(FetchError, match="loopback") as caught:
        transport.get("https://rebind.example/")
    assert caught.value.failure is Failure.INVALID_SOURCE


def test_connection_goes_to_the_address_that_was_checked(origin: Any, certificates: Any) -> None:
    origin.files["/x"] = b"content"
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.9", "127.0.0.1"]  # nobody listens on the first

    limits = Limits(attempts=1, allow_loopback=True)
    transport = Transport(limits, ca_file=str(certificates.ca), resolver=resolver)
    answer = transport.get(f"https://models.example:{origin.port}/x")
    transport.close()
    assert (answer.body, asked) == (b"content", ["models.example"])
    assert origin.seen[0].headers["host"] == f"models.example:{origin.port}"


@dataclass
class Proxy:
    url: str
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def proxy(origin: Any) -> Iterator[Proxy]:
    """A CONNECT proxy that knows every name, and leads all of them to `origin`."""

    class Tunnel(StreamRequestHandler):
        def handle(self) -> None:
            made.asked.append(self.rfile.readline().decode().split()[1])
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            with socket.create_connection(("127.0.0.1", origin.port)) as upstream:
                back = threading.Thread(target=_pump, args=(upstream, self.connection))
                back.start()
                _pump(self.connection, upstream)
                back.join()

    server = ThreadingTCPServer(("127.0.0.1", 0), Tunnel)
    server.daemon_threads = True
    made = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    server.shutdown()
    thread.join(10)
    server.server_close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.mark.parametrize("proxy_url", ["socks5://proxy.example:1080", "ftp://proxy.example"])
def test_proxy_that_cannot_be_used_is_told(proxy_url: str) -> None:
    transport = Transport(Limits(attempts=1), proxies=Proxies(https=proxy_url))
    with pytest.raises(FetchError, match="proxy") as caught:
        transport.get("https://models.example/x")
    assert caught.value.failure is Failure.INVALID_SOURCE


def test_names_are_the_proxys_to_resolve(proxy: Any, origin: Any, certificates: Any) -> None:
    origin.files["/x"] = b"content"
    proxies = read_proxies({"HTTPS_PROXY": proxy.url})
    transport = Transport(Limits(attempts=1), ca_file=str(certificates.ca), proxies=proxies)
    assert transport.get("https://models.example/x").body == b"content"
    with pytest.raises(FetchError, match="refused"):
        transport.get("https://169.254.169.254/x")
    transport.close()
    assert proxy.asked == ["models.example:443"]
