"""httpcore2's connections, and what it tells of each request on its way over one of them.

Law: public names of httpcore2 only. It does not say which connection carries a request, so each
says that itself: a request is written by the task that sends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, cast
from weakref import WeakSet

import httpcore2
import trio

from ._base import Request
from ._delivery import Deliveries, unacknowledged

__all__ = ["Network", "Progress"]

_sending: ContextVar[Progress | None] = ContextVar("fluence_async_sending", default=None)


class Network(httpcore2.AsyncNetworkBackend):
    """trio's network, with every socket known."""

    def __init__(self) -> None:
        self.sockets: WeakSet[trio.socket.SocketType] = WeakSet()
        # To a type checker the class is what it is without trio.
        self._trio = cast("httpcore2.AsyncNetworkBackend", httpcore2.TrioBackend())

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore2.AsyncNetworkStream:
        stream = await self._trio.connect_tcp(*args, **kwargs)
        self.sockets.add(stream.get_extra_info("socket"))
        return _known(stream)


class _Stream:
    """A connection that tells a request that it carries it; reading is as it was."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self.read = stream.read
        self.aclose = stream.aclose
        self.get_extra_info = stream.get_extra_info

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if (progress := _sending.get()) is not None:
            progress.socket = self.get_extra_info("socket")
        await self._stream.write(buffer, timeout)

    async def start_tls(self, *args: Any, **kwargs: Any) -> httpcore2.AsyncNetworkStream:
        return _known(await self._stream.start_tls(*args, **kwargs))


def _known(stream: httpcore2.AsyncNetworkStream) -> httpcore2.AsyncNetworkStream:
    return cast("httpcore2.AsyncNetworkStream", _Stream(stream))


class Progress:
    """What httpcore2 tells of one request on its way.

    Attributes:
        request: The request.
        connecting: The scope that a connection must be made in.
        reused: The connection had served an earlier request.
        sent: Some of the request may have left.
        socket: The connection that carries it.
    """

    def __init__(self, request: Request, deliveries: Deliveries | None) -> None:
        self.request = request
        self.connecting = trio.CancelScope()
        self.reused = True
        self.sent = False
        self.socket: trio.socket.SocketType | None = None
        self._stream: httpcore2.AsyncNetworkStream | None = None
        self._deliveries = deliveries

    def __enter__(self) -> None:
        if self._deliveries is not None:
            self._token = _sending.set(self)

    def __exit__(self, *_: object) -> None:
        if self._deliveries is not None:
            _sending.reset(self._token)
            self._deliveries.forget(self)

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """httpcore2's `trace` extension."""
        if event == "connection.connect_tcp.started":
            self.reused = False
            if (timeout := self.request.connect_timeout) is not None:
                self.connecting.deadline = trio.current_time() + timeout
        elif event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif (  # and not the CONNECT that opens a way through a proxy
            event == "http11.send_request_headers.started" and info["request"].method == b"POST"
        ):
            self.connecting.deadline = float("inf")
            if not self.connecting.cancel_called:
                self.sent = True
                self.request.on_sent()
        elif event == "http11.send_request_body.complete" and self._deliveries is not None:
            self._deliveries.watch(self)

    def is_delivered(self) -> bool:
        """See `OnItsWay`: trio keeps nothing back of what was written."""
        return self.socket is not None and not unacknowledged(self.socket)

    async def clean_up(self) -> None:
        """httpcore2 forgets a connection whose TLS handshake is cancelled."""
        if self._stream is not None and not self.sent:
            with trio.CancelScope(shield=True):
                await self._stream.aclose()
