"""A stand-in for `ttsfleet-runtime` that tests start as a real process: reads engine.yaml, serves health and speech.

Its behaviour comes from the model directory's file `behaviour`: ready | late (ready at the third look) | crash | deaf
(never ready) | stubborn (ignores SIGTERM).
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import yaml

LOOKS_UNTIL_READY = 3


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: dict[str, object]) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    path = head.split()[1]
    length = next(
        (int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")), 0
    )
    await reader.readexactly(length)
    state["looks"] = int(str(state["looks"])) + (path == "/readyz")
    behaviour = state["behaviour"]
    ready = behaviour != "deaf" and (behaviour != "late" or int(str(state["looks"])) >= LOOKS_UNTIL_READY)
    status, body = 200, b"{}"
    if path == "/readyz" and not ready:
        status, body = 503, b'{"ready": false, "problems": ["llm-0 loads"]}'
    if path == "/status":
        up = "true" if ready else "false"
        processes = f'"encode-0": {{"ready": true, "pid": 1}}, "llm-0": {{"ready": {up}, "pid": 2}}'
        body = f'{{"processes": {{{processes}}}}}'.encode()
    if path == "/v1/audio/speech":
        body = b"\x01\x00" * 2400
    writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def serve(config: dict[str, object], behaviour: str) -> None:
    state: dict[str, object] = {"looks": 0, "behaviour": behaviour}
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if behaviour == "stubborn" else stop.set)
    for port in (config["port"], config["management_port"]):
        await asyncio.start_server(lambda reader, writer: answer(reader, writer, state), "127.0.0.1", port)
    await stop.wait()


def main() -> None:
    config = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    behaviour = (Path(config["model_dir"]) / "behaviour").read_text().strip()
    if behaviour == "crash":
        sys.exit("the checkpoint is damaged: llm.pt")
    asyncio.run(serve(config, behaviour))


main()
