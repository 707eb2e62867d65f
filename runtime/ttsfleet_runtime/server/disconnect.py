"""Work that ends when its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

T = TypeVar("T")


async def or_disconnect(receive: Receive, work: Coroutine[None, None, T], answered: Callable[[], bool]) -> T:
    """Run `work` until it ends or the client leaves; then it is cancelled and ClientDisconnect raised.

    To be called once the whole body has been received: what still comes can only be the disconnect, which servers
    also announce when the answer is complete (`answered`); then `work` may end in peace.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and not answered():
            raise ClientDisconnect
        return await task
    finally:
        for each in (task, watcher):
            each.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
