"""How often a request's speech tokens are the same alone and in company.

    .venv/bin/python benchmarks/agreement.py --url http://127.0.0.1:8080 --voice heart --concurrency 8

Each of a number of requests (fixed seeds) is sent alone, then all of them together; two answers agree when their
token ids do (the X-Speech-Tokens-SHA256 header). In fp32 on the CPU the rate must be 1; on CUDA a product's rounding
depends on the batch's size, so that a draw now and then falls to another token, and from there the sequences part.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

TEXTS = [
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
]


def tokens(arguments: argparse.Namespace, index: int) -> str:
    """The hash of the token ids of request `index`."""
    body: dict[str, Any] = {
        "input": TEXTS[index % len(TEXTS)],
        "voice": arguments.voice,
        "seed": index,
        "response_format": "wav",
        "mode": arguments.mode,
        **json.loads(arguments.extra),
    }
    response = httpx.post(f"{arguments.url}/v1/audio/speech", json=body, timeout=300)
    response.raise_for_status()
    return response.headers["x-speech-tokens-sha256"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--voice", default="heart")
    parser.add_argument("--mode", default="sft")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--extra", default="{}", help="more request fields as JSON")
    arguments = parser.parse_args()
    alone = [tokens(arguments, index) for index in range(arguments.requests)]
    again = [tokens(arguments, index) for index in range(arguments.requests)]
    with ThreadPoolExecutor(arguments.concurrency) as pool:
        together = list(pool.map(lambda index: tokens(arguments, index), range(arguments.requests)))
    result = {
        "requests": arguments.requests,
        "concurrency": arguments.concurrency,
        "alone_twice": sum(a == b for a, b in zip(alone, again, strict=True)) / arguments.requests,
        "alone_and_together": sum(a == b for a, b in zip(alone, together, strict=True)) / arguments.requests,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
