"""Just enough of HTTP/1.1 to pass messages on byte by byte: heads are read, bodies are copied as they come."""

from __future__ import annotations

from asyncio import StreamReader
from collections.abc import AsyncIterator
from dataclasses import dataclass

CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Head:
    """The start line and the header fields of a message, and the bytes that they were."""

    start: str
    fields: dict[str, str]
    raw: bytes

    @property
    def method(self) -> str:
        """Of a request."""
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        """Of a request."""
        return self.start.split(" ")[1]

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.start.split(" ")[1])


async def read_head(reader: StreamReader) -> Head | None:
    """The next head, or None when the connection ended before one began.

    Raises:
        IncompleteReadError: it ended in the middle of one.
    """
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except EOFError as error:
        if getattr(error, "partial", b""):
            raise
        return None
    start, *lines = raw.decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines if line)
    return Head(start, {name.strip().lower(): value.strip() for name, value in pairs}, raw)


async def body(reader: StreamReader, head: Head, *, answers: str | None = None) -> AsyncIterator[bytes]:
    """The body as framed on the wire. `answers` is the method that an answer answers; None for a request."""
    if head.fields.get("transfer-encoding", "").lower() == "chunked":
        async for piece in _chunks(reader):
            yield piece
    elif answers is not None and (answers == "HEAD" or head.status in (204, 304) or head.status < 200):
        return
    elif "content-length" in head.fields:
        left = int(head.fields["content-length"])
        while left and (piece := await reader.read(min(left, CHUNK_BYTES))):
            left -= len(piece)
            yield piece
        if left:
            raise ConnectionResetError("the body ended early")
    elif answers is not None:
        while piece := await reader.read(CHUNK_BYTES):
            yield piece


async def _chunks(reader: StreamReader) -> AsyncIterator[bytes]:
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        yield line + await reader.readexactly(size + 2)
        if size == 0:
            return
