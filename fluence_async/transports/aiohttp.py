"""The transport on asyncio: a `Request` goes out through aiohttp, its bytes come back.

Law: aiohttp is driven by its public names only, and nothing of it shows: no default of its own
(cookies, redirects, headers, timeouts, decompression), none of its types, none of its errors. One
loop timer stands for all the deadlines of a response, moved by a stamp for each read (a scope
around each read costs four times the read). Rejected: trace configs (they slow every request;
the body that writes itself sees the same), aiohttp's own `limit` (its wait for a slot counts as
connecting, and its waiters are cancelled, not told, when it closes).

Traps of aiohttp 3.14 that are closed here: a body that is malformed (C parser) or whose
connection we close never wakes its reader; what had arrived hides behind the error; a reset ends
a body without a length as if it were whole; closing waits until a server takes what we wrote.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError

from ._base import (
    BodyBroken,
    BodyTimeout,
    ConnectFailed,
    ConnectTimeout,
    Disconnected,
    ProtocolViolated,
    Request,
    Response,
    TransportError,
)
from ._failures import authority, brief, connecting_failed
from ._head import read_head
from ._inflate import decoded
from ._lifetime import before_the_loop_ends, dismiss
from ._proxies import Proxies

__all__ = ["AiohttpTransport"]

_KEEPALIVE_S = 15.0
_MAX_FIELD = 32 * 1024
_MAX_FIELDS = 128
_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What aiohttp would add by itself."""
# Before these, asyncio left a TLS connection open whose farewell could not be written.
_LEAKS_TLS = sys.version_info < (3, 12, 8) or (3, 13) <= sys.version_info < (3, 13, 1)
_orphans: list[aiohttp.TCPConnector] = []
"""Connectors inherited by a fork, kept from finalizers that would touch the parent's loop."""


class AiohttpTransport:
    """How bytes travel on asyncio. To be made inside the running loop.

    Args:
        max_connections: The most connections at once, others wait; None for no bound.
        ssl_context: How to verify servers; None for the system's certificates.
        trust_env: Whether the environment may name proxies.
    """

    def __init__(
        self,
        *,
        max_connections: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        trust_env: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._proxies = Proxies(trust_env=trust_env)
        self._connector = _Connector(max_connections, ssl_context)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_field_size=_MAX_FIELD,
            max_headers=_MAX_FIELDS,
        )
        self._closed = False
        self._guard = before_the_loop_ends(self._close)

    @property
    def clock(self) -> Callable[[], float]:
        """The running loop's clock, in seconds."""
        return self._loop.time

    async def send(self, request: Request) -> Response:
        """Send `request`, return once the response's headers are here; see `Transport.send`."""
        if self._closed:
            raise RuntimeError("the transport is closed")
        body = _Body(request)
        try:
            answer = await self._session.post(
                request.url,
                data=body,
                headers=request.headers,
                skip_auto_headers=_unwanted(tuple(request.headers)),
                timeout=_timeout(request.connect_timeout),
                proxy=self._proxies.for_url(request.url),
                allow_redirects=False,
            )
        except BaseException as error:
            if body.line is not None:
                body.line.transport.abort()
            if (failure := _sending_failed(request, body, error)) is None:
                raise
            raise failure from error
        assert body.line is not None
        response = _Response(request.url, answer, body.line, self._loop)
        return decoded(response, request.url)

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        try:
            await self._close()
        finally:
            dismiss(self._guard)

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for line in self._connector.lines.values():
            line.transport.abort()  # or closing waits until the server takes what we wrote
        await self._session.close()

    def abandon(self) -> None:
        """Drop every connection without the loop; see `Transport.abandon`."""
        if self._closed:
            return
        if os.getpid() != self._pid:
            _orphans.append(self._connector)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close_when_running)
            return
        self._closed = True
        self._connector.close_sockets()
        self._session.detach()
        dismiss(self._guard)
        if self._loop.is_closed():
            with suppress(StopIteration):  # it does not wait: with no loop there is nothing to
                self._connector.close().send(None)

    def _close_when_running(self) -> None:
        self._closing = self._loop.create_task(self.aclose())


class _Body(aiohttp.Payload):
    """What is sent, and what becomes of it: `line` is the connection it was given, `sent` whether
    any of it was written."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.body)
        self._request = request
        self.line: _Line | None = None
        self.sent = False

    @property
    def size(self) -> int:
        return len(self._request.body)

    @property
    def autoclose(self) -> bool:
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._request.body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self.sent = True
        self._request.on_sent()
        await writer.write(self._request.body)  # the head goes out with it

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        del content_length  # it is ours
        await self.write(writer)


class _Line:
    """One connection, over all the requests that it serves.

    Attributes:
        transport: asyncio's; kept here because aiohttp forgets it in closing.
        closed: Done when the connection is lost, with the error if it was lost by one.
        reused: It has served a request before the present one.
        reader: The response that is being read from it.
    """

    def __init__(self, transport: asyncio.Transport, closed: asyncio.Future[None]) -> None:
        self.transport = transport
        self.closed = closed
        self.reused = False
        self.reader: _Response | None = None

    @property
    def error(self) -> BaseException | None:
        """What the connection was lost by, if it was."""
        if not self.closed.done() or self.closed.cancelled():
            return None
        return self.closed.exception()


class _Connector(aiohttp.TCPConnector):
    """Knows every connection and every socket, and lets `slots` of them be used at once."""

    def __init__(self, slots: int | None, ssl_context: ssl.SSLContext | None) -> None:
        super().__init__(
            limit=0,
            keepalive_timeout=_KEEPALIVE_S,
            ssl=True if ssl_context is None else ssl_context,
            resolver=aiohttp.ThreadedResolver(),  # with aiodns there, aiohttp would change over
            enable_cleanup_closed=_LEAKS_TLS,
            socket_factory=self._open_socket,
        )
        self.lines: dict[object, _Line] = {}
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
        if isinstance(body, _Body):  # and not a proxy's CONNECT
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

    def _line_of(self, connection: aiohttp.connector.Connection) -> _Line:
        protocol = connection.protocol
        line = self.lines.get(protocol)
        if line is not None:
            line.reused = True
            return line
        transport, ended = connection.transport, protocol.closed if protocol is not None else None
        if transport is None or ended is None:
            connection.close()
            raise aiohttp.ServerDisconnectedError
        line = self.lines[protocol] = _Line(transport, ended)

        def lost(closed: asyncio.Future[None]) -> None:
            del self.lines[protocol]
            if not closed.cancelled():
                closed.exception()  # asyncio logs an exception that nobody took
            if line.reader is not None:
                line.reader.cut_off()

        line.closed.add_done_callback(lost)
        return line

    def _open_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        opened = socket.socket(*address[:3])
        self._sockets.add(opened)
        return opened

    def close_sockets(self) -> None:
        """Close every connection in this process only, without a word to the loop."""
        for opened in self._sockets:
            opened.close()


class _Response:
    """The head of an answer, and its body to be pulled."""

    def __init__(
        self,
        url: str,
        answer: aiohttp.ClientResponse,
        line: _Line,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._url = url
        self._answer = answer
        self._content = answer.content
        self._line = line
        self._loop = loop
        self._reading = False
        self._deadline = math.inf
        self._wakes_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self.status = answer.status
        try:
            self.headers: Mapping[str, str] = read_head(url, answer.status, answer.raw_headers)
        except ProtocolViolated:
            self._close()
            raise
        # A body with neither ends with its connection, and is whole only if that ends well.
        self._until_eof = not {"content-length", "transfer-encoding"} & self.headers.keys()
        if answer.connection is not None:  # else all of the body is here
            line.reader = self

    async def receive(self, deadline: float) -> bytes:
        """The next bytes of the body; see `Response.receive`."""
        if self._reading:
            raise RuntimeError("another task is receiving from this response")
        self._deadline = deadline
        if deadline < self._wakes_at:
            self._wake_at(deadline)
        self._reading = True
        try:
            data = await self._content.readany()
        except (TransportError, aiohttp.ClientError, HttpProcessingError, RuntimeError) as error:
            data = self._left_over(error)
        finally:
            self._reading = False
        if not data:
            self._end()
        return data

    def _left_over(self, error: Exception) -> bytes:
        """What had arrived before the body broke, which aiohttp hides behind the error; once there
        is nothing left, the error."""
        if isinstance(error, TransportError):
            failure = error
        else:
            failure = BodyBroken(f"the body from {authority(self._url)} broke off: {brief(error)}")
            failure.__cause__ = error
        self._content.set_exception(None)  # type: ignore[arg-type]
        data = self._content.read_nowait()
        self._content.set_exception(failure)
        if not data:
            self._let_go()
            raise failure
        return data

    def _end(self) -> None:
        self._let_go()
        if self._until_eof and self._line.error is not None:
            raise BodyBroken(
                f"the body from {authority(self._url)} broke off: {brief(self._line.error)}"
            )

    def cut_off(self) -> None:
        """The connection is gone: nobody else may wake the reader."""
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(
                BodyBroken(f"the body from {authority(self._url)} broke off, or is malformed")
            )

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._wake)
        self._wakes_at = when

    def _wake(self) -> None:
        self._timer, self._wakes_at = None, math.inf
        if not self._reading:
            return  # the next receive arms it anew
        if self._deadline > self._loop.time():
            self._wake_at(self._deadline)
        else:
            self._content.set_exception(
                BodyTimeout(f"{authority(self._url)} sent nothing until the deadline")
            )

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._wakes_at = None, math.inf
        if self._line.reader is self:
            self._line.reader = None

    async def aclose(self) -> None:
        """Let go of the connection; see `Response.aclose`."""
        self._close()

    def _close(self) -> None:
        self._let_go()
        if self._answer.connection is not None:  # else it went back to the pool, or is closed
            self._line.transport.abort()
        self._answer.close()

    def abort(self) -> None:
        """Close the connection without waiting; see `Response.abort`."""
        try:
            self._loop.call_soon_threadsafe(self._close)
        except RuntimeError:  # the loop is closed
            if (connection := self._answer.connection) is not None:
                with suppress(Exception):
                    self._line.transport.abort()
                with suppress(Exception):
                    connection.close()


@lru_cache(maxsize=64)
def _timeout(connect: float | None) -> aiohttp.ClientTimeout:
    # Without the ceiling's threshold aiohttp rounds up to whole seconds.
    return aiohttp.ClientTimeout(connect=connect, ceil_threshold=math.inf)


@lru_cache(maxsize=64)
def _unwanted(given: tuple[str, ...]) -> list[str] | None:
    names = {name.lower() for name in given}
    return [name for name in _AUTOMATIC if name.lower() not in names] or None


def _sending_failed(request: Request, body: _Body, error: BaseException) -> TransportError | None:
    """What the seam calls an error of aiohttp; None for what is none of the network's."""
    where = authority(request.url)
    line = body.line
    match error:
        case aiohttp.ConnectionTimeoutError():
            return ConnectTimeout(
                f"connecting to {where} took longer than {request.connect_timeout:g} s"
            )
        case aiohttp.ClientConnectorError() | aiohttp.ClientHttpProxyError():
            return connecting_failed(request.url, error)
        case aiohttp.InvalidURL():
            return ConnectFailed(f"cannot connect to {where}: no usable address", permanent=True)
        case aiohttp.ClientResponseError():
            return ProtocolViolated(f"{where} sent no valid response head: {brief(error)}")
        case aiohttp.ClientConnectionError() if line is None:
            return connecting_failed(request.url, error)
        case aiohttp.ClientConnectionError():
            assert line is not None
            # Of a head that broke off, aiohttp hands over what it has.
            began = not isinstance(getattr(error, "message", ""), str)
            when = "in the middle of its response head" if began else "before it answered"
            return Disconnected(
                f"{where} closed the connection {when}: {brief(error)}",
                reused=line.reused and not began,
            )
    return None
