"""Where processes meet: the ZeroMQ endpoints of one run directory.

The router binds one ROUTER socket; every other process connects a DEALER to it with its identity. Processes that
take bulk data from a stage (decoders: tokens; HTTP workers: PCM) bind a PULL socket of their own, to which the
producers connect a PUSH: what is hot never passes through the router. A frame is one `encode_messages` batch.
"""

from __future__ import annotations

from pathlib import Path


def router_endpoint(run_dir: Path) -> str:
    return f"ipc://{run_dir}/router.sock"


def data_endpoint(run_dir: Path, identity: str) -> str:
    return f"ipc://{run_dir}/{identity}.sock"
