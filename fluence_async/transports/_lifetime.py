"""How long connections live: never longer than their event loop, by the one hook for that.

Law: asyncio and trio both close the async generators that are still open before they end a run,
while waiting still works. One that waits there for its turn closes the connections of a session
that is left open between two runs; without it they would be torn at some later collection, with
a warning. Rejected: reaching into asyncio's transports once their loop is gone.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any

__all__ = ["KEEPALIVE_S", "before_the_loop_ends", "close_here", "dismiss"]

KEEPALIVE_S = 15.0
"""How long a connection may be idle: less than most servers allow."""


def before_the_loop_ends(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Have the running loop await `close()` before it ends.

    Returns:
        What to keep for as long as that is wanted, and then to `dismiss`. `close` is awaited by
        `dismiss` as well, and must not wait for anything once all is closed.
    """
    guard = _guard(close)
    with suppress(StopIteration):
        guard.__anext__().send(None)  # it only has to be begun: it does not wait
    return guard


def dismiss(guard: AsyncGenerator[None, None]) -> None:
    """Forget about it, because all is closed."""
    with suppress(StopIteration):
        guard.aclose().send(None)


def close_here(opened: Any) -> None:
    """Close a socket in this process, with no run to tell."""
    if (descriptor := opened.detach()) != -1:
        socket.close(descriptor)


async def _guard(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await close()
