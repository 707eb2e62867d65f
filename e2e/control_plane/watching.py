"""The objects of a kind as the API server has them, kept up to date by a thread with a list and a watch."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from control_plane.errors import ControlPlaneError

Manifest: TypeAlias = dict[str, Any]
PAUSE_SECONDS = 0.3


class Unanswered(ControlPlaneError):
    """The API server answered with an error; it is asked again."""


@dataclass(frozen=True)
class Api:
    """The API server as somebody may use it."""

    server: str
    tls: ssl.SSLContext

    def connect(self, timeout: float | None = None) -> http.client.HTTPSConnection:
        address = urlsplit(self.server)
        assert address.hostname
        connection = http.client.HTTPSConnection(address.hostname, address.port, context=self.tls, timeout=timeout)
        connection.connect()
        return connection

    def list(self, path: str) -> tuple[list[Manifest], str]:
        """The objects at a path such as /api/v1/pods, and the version of the list."""
        connection = self.connect(timeout=10)
        try:
            answer = json.load(ask(connection, path))
        finally:
            connection.close()
        return answer["items"] or [], answer["metadata"]["resourceVersion"]


def ask(connection: http.client.HTTPSConnection, target: str) -> http.client.HTTPResponse:
    connection.request("GET", target)
    answer = connection.getresponse()
    if answer.status != http.client.OK:
        raise Unanswered(f"GET {target}: {answer.status} {answer.read(300)!r}")
    return answer


class Watched:
    """The objects at a path, from `start` to `stop`; `changed` is called, by the thread, after each change.

    An API server that is away is asked again until it is back; `trouble` is what it said last. `failure` is what has
    ended the thread otherwise.
    """

    def __init__(self, api: Api, path: str, changed: Callable[[], None]) -> None:
        self._api = api
        self._path = path
        self._changed = changed
        self._objects: dict[str, Manifest] | None = None
        self._socket: socket.socket | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)
        self.trouble = ""
        self.failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and waits for it. It can be called twice."""
        self._ended.set()
        if held := self._socket:
            with suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
        if self._thread.ident:
            self._thread.join()

    @property
    def objects(self) -> list[Manifest] | None:
        """None before the first list."""
        known = self._objects
        return None if known is None else list(known.values())

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    self._follow()
                except (OSError, http.client.HTTPException, Unanswered) as error:
                    self.trouble = str(error)
                self._ended.wait(PAUSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - told to whoever reads the objects
            self.failure = error
            self._changed()

    def _follow(self) -> None:
        """Lists, then takes in what changes until the stream ends."""
        objects, version = self._api.list(self._path)
        self._objects, self.trouble = {_key(one): one for one in objects}, ""
        self._changed()
        connection = self._api.connect()
        try:
            self._socket = connection.sock
            if self._ended.is_set():
                return
            for line in ask(connection, f"{self._path}?watch=1&resourceVersion={version}"):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Unanswered(str(event["object"]))
                self._take(event["type"], event["object"])
        finally:
            self._socket = None
            connection.close()

    def _take(self, kind: str, one: Manifest) -> None:
        assert self._objects is not None
        # A new mapping, for others read the old one meanwhile.
        rest = {key: other for key, other in self._objects.items() if key != _key(one)}
        self._objects = rest if kind == "DELETED" else {**rest, _key(one): one}
        self._changed()


def _key(one: Manifest) -> str:
    return f"{one['metadata'].get('namespace', '')}/{one['metadata']['name']}"
