"""aiohttp's connections, each known by name: how often it served, what it was lost by.

Law: public names of aiohttp only. A connection outlives its requests, so what must be noticed
about it is noticed once, when it is new, and costs a request one look into a dict. Rejected:
aiohttp's own `limit`: waiting for a slot would count as connecting, and its waiters are
cancelled, not told, when it closes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from typing import Any, Protocol
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from ._base import Request
from ._delivery import Deliveries, unacknowledged
from ._lifetime import KEEPALIVE_S

__all__ = ["Connector", "Line", "Outgoing", "Reader"]

# Before these, asyncio left a TLS connection open whose farewell could not be written.
_LEAKS_TLS = sys.version_info < (3, 12, 8) or (3, 13) <= sys.version_info < (3, 13, 1)

_READ_SIZE = 64 * 1024

# So much the kernel takes at once of a request on an idle connection. Of more, asyncio may keep
# back up to 64 KiB below its TLS, of which nobody tells, until it finds the kernel's queue empty.
_AT_ONCE = 16 * 1024


class Reader(Protocol):
    """Who reads a body."""

    def cut_off(self) -> None:
        """The connection is gone, and nobody else may say so."""


class Line:
    """One connection, over all the requests that it serves.

    Attributes:
        transport: asyncio's; kept here because aiohttp forgets it in closing.
        reused: It has served a request before the present one.
        reader: Who reads the present response from it.
    """

    def __init__(self, transport: asyncio.Transport, closed: asyncio.Future[None]) -> None:
        self.transport = transport
        self.reused = False
        self.reader: Reader | None = None
        self._closed = closed

    @property
    def error(self) -> BaseException | None:
        """What the connection was lost by, if it was."""
        if not self._closed.done() or self._closed.cancelled():
            return None
        return self._closed.exception()


class Outgoing(aiohttp.Payload):
    """A request's body, which says when it is sent, and when it is delivered.

    Attributes:
        request: The request.
        line: The connection that it was given.
    """

    def __init__(self, request: Request, deliveries: Deliveries | None) -> None:
        super().__init__(request.body)
        self.request = request
        self.line: Line | None = None
        self._deliveries = deliveries
        self._empty = 0

    @property
    def size(self) -> int:
        return len(self.request.body)

    @property
    def autoclose(self) -> bool:
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.request.body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self.request.on_sent()
        await writer.write(self.request.body)  # the head goes out with it
        if self._deliveries is not None and self.request.body:  # not if it was answered meanwhile
            self._deliveries.watch(self)

    def is_delivered(self) -> bool:
        """See `OnItsWay`."""
        assert self.line is not None
        transport = self.line.transport
        if (
            transport.is_closing()
            or transport.get_write_buffer_size()
            or unacknowledged(transport.get_extra_info("socket"))
        ):
            self._empty = 0
            return False
        self._empty += 1
        return self._empty > (len(self.request.body) > _AT_ONCE)

    def over(self) -> None:
        """It is answered, or has failed."""
        deliveries, self._deliveries = self._deliveries, None
        if deliveries is not None:
            deliveries.forget(self)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        del content_length  # it is our own
        await self.write(writer)


class Connector(aiohttp.TCPConnector):
    """Makes and keeps connections, and gives each `Outgoing` its line.

    Args:
        slots: How many may be used at once, others wait; None for no bound.
        ssl_context: How to verify servers; None for the system's certificates.
    """

    def __init__(self, slots: int | None, ssl_context: ssl.SSLContext | None) -> None:
        super().__init__(
            limit=0,
            keepalive_timeout=KEEPALIVE_S,
            ssl=True if ssl_context is None else ssl_context,
            resolver=aiohttp.ThreadedResolver(),  # with aiodns about, aiohttp would change over
            enable_cleanup_closed=_LEAKS_TLS,
            socket_factory=self._open_socket,
        )
        self._lines: dict[object, Line] = {}
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._slots = None if slots is None else asyncio.Semaphore(slots)

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        if self._slots is None:
            connection = await super().connect(req, traces, timeout)
        else:
            connection = await self._connect_in_turn(self._slots, req, traces, timeout)
        body = req.body
        assert isinstance(body, Outgoing)
        body.line = self._line_of(connection)
        return connection

    async def _connect_in_turn(
        self, slots: asyncio.Semaphore, *request: Any
    ) -> aiohttp.connector.Connection:
        await slots.acquire()
        try:
            if self.closed:
                raise aiohttp.ClientConnectionError("the transport is closed")
            connection = await super().connect(*request)
        except BaseException:
            slots.release()
            raise
        connection.add_callback(slots.release)
        return connection

    def _line_of(self, connection: aiohttp.connector.Connection) -> Line:
        protocol = connection.protocol
        line = self._lines.get(protocol)
        if line is not None:
            line.reused = True
            return line
        transport, closed = connection.transport, protocol.closed if protocol is not None else None
        if transport is None or closed is None:
            connection.close()
            raise aiohttp.ServerDisconnectedError
        _read_little(transport)
        line = self._lines[protocol] = Line(transport, closed)

        def lost(closed: asyncio.Future[None]) -> None:
            del self._lines[protocol]
            if not closed.cancelled():
                closed.exception()  # or asyncio logs that nobody took it
            if line.reader is not None:
                line.reader.cut_off()

        closed.add_done_callback(lost)
        return line

    def _open_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        opened = socket.socket(*address[:3])
        self._sockets.add(opened)
        return opened

    def abort(self) -> None:
        """Close every connection, without waiting for a server to take what was written."""
        for line in self._lines.values():
            line.transport.abort()

    def close_sockets(self) -> None:
        """Close every connection in this process only, without a word to the loop."""
        for opened in self._sockets:
            opened.close()


def _read_little(transport: Any) -> None:
    """The 256 KiB that asyncio reads into, malloc maps and unmaps for every read (9 µs, against
    1 µs below its threshold of 128 KiB) until the process has once freed a block as large."""
    if hasattr(transport, "max_size"):  # uvloop reads in its own way
        transport.max_size = _READ_SIZE
