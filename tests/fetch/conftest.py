"""A private CA, HTTPS servers that misbehave on request and count what they send, and the program under test."""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import yaml

from control_plane.certificates import Authority, KeyPair
from ttsfleet_runtime.fetch.config import FetchConfig, Limits, read_config
from ttsfleet_runtime.fetch.pipeline import fetch
from ttsfleet_runtime.fetch.progress import LogProgress

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_PIECE = 16 << 10
Reply = Callable[["Handler"], None]


@dataclass(frozen=True)
class Certificates:
    """A CA's certificate, and a server's for this machine's loopback."""

    ca: Path
    server: KeyPair

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server.certificate, self.server.key)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    authority = Authority(tmp_path_factory.mktemp("ca"), "authority")
    server = authority.issue("server", "server", hosts=("localhost", "models.example", "127.0.0.1"))
    return Certificates(authority.files.certificate, server)


@dataclass(frozen=True)
class Seen:
    """A request."""

    path: str
    headers: Mapping[str, str]


class Handler(BaseHTTPRequestHandler):
    """Serves `origin.files` with ranges and ETags unless a reply of the test's is due."""

    protocol_version = "HTTP/1.1"
    origin: Origin

    def do_GET(self) -> None:
        self.origin.seen.append(Seen(self.path, {name.lower(): value for name, value in self.headers.items()}))
        due = self.origin.replies.get(self.route)
        try:
            (due.pop(0) if due else Handler.serve)(self)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    @property
    def route(self) -> str:
        return unquote(self.path.partition("?")[0])

    def status(self, code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def serve(
        self, *, ranges: bool = True, until: int | None = None, then: Callable[[], object] | None = None
    ) -> None:
        """The file; with `until` the connection ends there, after `then`."""
        content = self.origin.files.get(self.route)
        if content is None:
            self.status(404, body=b"secret words of the server")
            return
        etag = self.origin.etags.get(self.route, f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"')
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        start = int(asked[1]) if asked and ranges and self.headers.get("if-range", etag) == etag else 0
        if start >= len(content) > 0:
            self.status(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = len(content) if until is None else until
        for place in range(start, end, _PIECE):
            piece = content[place : min(place + _PIECE, end)]
            self.wfile.write(piece)
            self.origin.sent[self.route] += len(piece)
        if until is not None:
            self.close_connection = True
        if then is not None:
            then()

    def log_message(self, *args: object) -> None:
        """Quiet."""


@dataclass
class Origin:
    """A server: what it holds, what was asked of it, how much it sent, and replies that come first."""

    url: str
    port: int
    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    released: threading.Event = field(default_factory=threading.Event)
    holding: threading.Event = field(default_factory=threading.Event)

    def stop_at(self, num_bytes: int) -> Reply:
        """Send so much, then nothing, until the test ends."""

        def hold() -> None:
            self.holding.set()
            self.released.wait(60)

        return lambda handler: handler.serve(until=num_bytes, then=hold)

    def requests_of(self, route: str) -> list[Seen]:
        return [seen for seen in self.seen if unquote(seen.path.partition("?")[0]) == route]


@pytest.fixture
def new_origin(certificates: Certificates) -> Iterator[Callable[..., Origin]]:
    """Start servers; all end with the test."""
    servers: list[tuple[ThreadingHTTPServer, threading.Thread, Origin]] = []

    def start(*, tls: bool = True) -> Origin:
        handler = type("OriginHandler", (Handler,), {})
        server = _Server(("127.0.0.1", 0), handler)
        if tls:
            server.tls = certificates.server_context()
        port = server.server_address[1]
        origin = Origin(f"{'https' if tls else 'http'}://localhost:{port}", port)
        handler.origin = origin  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread, origin))
        return origin

    yield start
    for server, thread, origin in servers:
        origin.released.set()
        server.shutdown()
        thread.join(10)
        server.server_close()


class _Server(ThreadingHTTPServer):
    """TLS begins in the connection's own thread, so that a client that hangs up stops nobody else."""

    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except OSError:
                return
        try:
            super().finish_request(request, client_address)
        finally:
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle is no fault here."""


@pytest.fixture
def origin(new_origin: Callable[..., Origin]) -> Origin:
    return new_origin()


MODEL = {
    "cosyvoice2.yaml": b"sample_rate: 24000\n",
    "llm.pt": bytes(range(256)) * 2048,
    "CosyVoice-BlankEN/vocab.json": b'{"a": 1}\n',
    "styles/news/llm.pt": b"news" * 1000,
}


@dataclass
class Hub:
    """A repository as the Hugging Face hub shows it. Large files are in LFS, and come from `cdn` if there is one."""

    origin: Origin
    files: dict[str, bytes]
    repo: str = "owner/model"
    cdn: Origin | None = None

    def route(self, path: str) -> str:
        return f"/{self.repo}/resolve/{COMMIT}/{path}"

    def publish(self) -> None:
        siblings = []
        for path, content in self.files.items():
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob}
            if len(content) > 1000:
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            siblings.append(entry)
            self.origin.files[self.route(path)] = content
            if self.cdn is not None and "lfs" in entry:
                self.cdn.files[f"/blobs/{path}"] = content
                target = f"{self.cdn.url}/blobs/{quote(path)}?signature=s3cr3t"
                self.origin.replies[self.route(path)] = [
                    lambda handler, target=target: handler.status(302, {"Location": target}) for _ in range(20)
                ]
        listing = json.dumps({"sha": COMMIT, "siblings": siblings}).encode()
        self.origin.files[f"/api/models/{self.repo}/revision/main"] = listing

    @property
    def source(self) -> dict[str, str]:
        return {"kind": "huggingFace", "repo": self.repo, "endpoint": self.origin.url}


@pytest.fixture
def hub(origin: Origin) -> Hub:
    made = Hub(origin, dict(MODEL) | {".gitattributes": b"*.pt filter=lfs\n"})
    made.publish()
    return made


@dataclass(frozen=True)
class Result:
    code: int
    output: str
    log: str
    message: str


@dataclass
class Program:
    """`ttsfleet-runtime fetch` with a configuration in a folder of the test's."""

    folder: Path
    ca: Path
    model_dir: Path
    flags: tuple[str, ...] = ("--allow-insecure-loopback", "--attempts", "3", "--backoff-seconds", "0.01")

    def write(self, source: Mapping[str, Any], **more: Any) -> Path:
        values = {
            "schema_version": 1,
            "model_dir": str(self.model_dir),
            "source": dict(source),
            "ca_file": str(self.ca),
        }
        path = self.folder / "fetch.yaml"
        path.write_text(yaml.safe_dump(values | more))
        return path

    def command(self, config: Path, *flags: str) -> list[str]:
        log = self.folder / "termination-log"
        log.write_text("")
        program = [sys.executable, "-m", "ttsfleet_runtime.cli", "fetch", "--config", str(config)]
        return [*program, "--termination-log", str(log), *self.flags, *flags]

    def run(self, source: Mapping[str, Any], *flags: str, **more: Any) -> Result:
        return self.finish(self.start(source, *flags, **more))

    def start(self, source: Mapping[str, Any], *flags: str, **more: Any) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return subprocess.Popen(
            self.command(self.write(source, **more), *flags),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def finish(self, process: subprocess.Popen[str]) -> Result:
        output, log = process.communicate(timeout=60)
        return Result(process.returncode, output, log, (self.folder / "termination-log").read_text())

    def config(self, source: Mapping[str, Any], **more: Any) -> FetchConfig:
        return read_config(self.write(source, **more))

    def fetch(self, source: Mapping[str, Any], limits: Mapping[str, Any] | None = None, **more: Any) -> str:
        """The same within the test's process: the digest, or FetchError."""
        usual = {"allow_loopback": True, "attempts": 3, "backoff_seconds": 0.01, "stall_seconds": 20.0}
        chosen = Limits(**(usual | dict(limits or {})))
        return fetch(self.config(source, **more), chosen, {}, LogProgress())

    def part_sizes(self) -> list[int]:
        """Bytes of each file that is on its way."""
        folder = self.model_dir.with_name(f".{self.model_dir.name}.partial") / "incoming"
        parts = folder.glob("*") if folder.exists() else ()
        return [path.stat().st_size for path in parts if path.suffix == ""]

    def wait_for_part(self, num_bytes: int) -> None:
        deadline = time.monotonic() + 30
        pause = threading.Event()
        while self.part_sizes() != [num_bytes]:
            assert time.monotonic() < deadline, f"parts have {self.part_sizes()} bytes, not {num_bytes}"
            pause.wait(0.01)

    @property
    def files(self) -> dict[str, bytes]:
        """The model that is in place."""
        return {
            str(path.relative_to(self.model_dir)): path.read_bytes()
            for path in sorted(self.model_dir.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }


@pytest.fixture
def program(tmp_path: Path, certificates: Certificates) -> Program:
    return Program(tmp_path, certificates.ca, tmp_path / "cache" / "models" / "voice-1")


@pytest.fixture
def model() -> dict[str, bytes]:
    return dict(MODEL)


@pytest.fixture
def model_digest() -> str:
    lines = [f"{hashlib.sha256(data).hexdigest()} {len(data)} {path}\n" for path, data in sorted(MODEL.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
