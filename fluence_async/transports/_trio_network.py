"""A host and a port in, a connection of trio's out, as httpcore2 wants it; every socket is known.

Law: no timeouts. Whoever waits has a deadline of their own around all of it; httpcore2's own
network has a cancel scope and two context managers around each read and write besides, which is
a seventh of what a read costs. What trio raises is told as httpcore2's, and nothing else is.
"""

from __future__ import annotations

import ssl
from collections.abc import Generator, Iterable
from types import coroutine
from typing import Any
from weakref import WeakSet

import httpcore2
import trio

__all__ = ["Network", "Wire"]

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Network(httpcore2.AsyncNetworkBackend):
    """Makes connections, and knows every socket.

    Attributes:
        sockets: All that may be open.
        closed: There shall be no more of them.
    """

    def __init__(self) -> None:
        self.sockets: WeakSet[trio.socket.SocketType] = WeakSet()
        self.closed = False

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        del timeout, local_address, socket_options  # none is ever given
        try:
            stream = await trio.open_tcp_stream(host, port)
        except OSError as error:
            raise httpcore2.ConnectError(error) from error
        if self.closed:
            stream.socket.close()
            raise httpcore2.ConnectError("the transport is closed")
        self.sockets.add(stream.socket)
        return Wire(stream, stream.socket)


class Wire(httpcore2.AsyncNetworkStream):
    """The bytes of one connection.

    Attributes:
        by_hand: Who reads is stepped by hand: a read waits for nothing, but yields this wire to
            whoever steps, and is sent the bytes.
    """

    def __init__(self, stream: trio.abc.Stream, socket: trio.socket.SocketType) -> None:
        self._stream = stream
        self._socket = socket
        self.by_hand = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        return await (self._given() if self.by_hand else self.receive(max_bytes))

    @coroutine
    def _given(self) -> Generator[Wire, bytes, bytes]:
        return (yield self)

    async def receive(self, max_bytes: int) -> bytes:
        """Wait for bytes; b"" at the end. Cancelled, it has taken none.

        Raises:
            httpcore2.ReadError: The connection broke, or was closed.
        """
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except _GONE as error:
            raise httpcore2.ReadError(error) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        if buffer:
            try:
                await self._stream.send_all(buffer)
            except _GONE as error:
                raise httpcore2.WriteError(error) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        del timeout
        encrypted = trio.SSLStream(
            self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True
        )
        try:
            await encrypted.do_handshake()
        except _GONE as error:
            raise httpcore2.ConnectError(error) from error
        return Wire(encrypted, self._socket)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._socket.is_readable()
        return self._socket if info == "socket" else None
