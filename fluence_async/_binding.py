"""A transport for the running loop: made at the first call, made anew when its loop is gone.

Law: connections belong to one loop of one thread of one process. After a fork the child drops
them without a word on the shared sockets; after a loop's end they are dropped; while another
loop still runs, a second one is refused with the way out, because sockets would be torn between
the two.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from anyio.lowlevel import current_token

from .transports._base import Transport

__all__ = ["Binding"]

T = TypeVar("T")


class Binding(Generic[T]):
    """What a session holds for the running loop.

    Args:
        open_transport: Makes a transport for the running loop.
        make: From a fresh transport to what is held.
    """

    def __init__(
        self, open_transport: Callable[[], Transport], make: Callable[[Transport], T]
    ) -> None:
        self._open_transport = open_transport
        self._make = make
        self._loop: Any = None
        self._pid = 0
        self._thread = 0
        self._transport: Transport | None = None
        self._held: T | None = None
        self._closed = False

    def get(self) -> T:
        """What is held for the running loop.

        Raises:
            RuntimeError: The session is closed, or in use by another loop that still runs.
        """
        loop = _running_loop()
        if self._held is not None and loop is self._loop and self._pid == os.getpid():
            return self._held
        return self._bind(loop)

    def _bind(self, loop: Any) -> T:
        if self._closed:
            raise RuntimeError("the session is closed: open another one")
        if self._transport is not None:
            if self._pid == os.getpid() and _still_runs(self._loop):
                raise RuntimeError(
                    "this session is in use by another event loop (thread "
                    f"{self._thread}), and connections cannot be shared between loops: open one "
                    "session for each thread; sessions of the same key share their limiter"
                )
            self._transport.abandon()
        self._transport = self._open_transport()
        self._loop, self._pid, self._thread = loop, os.getpid(), threading.get_ident()
        self._held = self._make(self._transport)
        return self._held

    async def aclose(self) -> None:
        """Close the connections of the running loop, drop those of any other. Idempotent."""
        self._closed = True
        transport, self._transport, self._held = self._transport, None, None
        if transport is None:
            return
        if self._loop is _running_loop() and self._pid == os.getpid():
            await transport.aclose()
        else:
            transport.abandon()

    @property
    def held(self) -> T | None:
        """What is held, for whatever loop; None if nothing is."""
        return self._held

    @property
    def state(self) -> str:
        """`closed`, `open` or `idle`, for a repr."""
        return "closed" if self._closed else "open" if self._held is not None else "idle"

    def __repr__(self) -> str:
        return f"<Binding: {self.state}>"


def _running_loop() -> Any:
    """The running loop's own object; the quick way first, as every call asks."""
    asyncio = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio is not None else None  # noqa: SLF001 - public
    return loop if loop is not None else current_token().native_token


def _still_runs(loop: Any) -> bool:
    """Whether a loop (of asyncio, or trio's token of one) is still there to be torn apart."""
    if hasattr(loop, "is_closed"):
        return bool(loop.is_running())
    try:
        loop.run_sync_soon(_nothing)
    except RuntimeError:  # trio.RunFinishedError
        return False
    return True


def _nothing() -> None:
    """Asks a loop whether it runs."""
