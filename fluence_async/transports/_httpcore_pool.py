"""An origin and its proxy in, a connection of httpcore2 for one request out; and back again.

Law: what a request costs here does not grow with the connections that there are, idle or busy.
httpcore2's own pool looks at all of them whenever a request begins or ends, so n streams at once
cost n²; of it only `create_connection` is used, which knows the direct way, the proxy's and the
tunnel. Nothing here waits but for a slot, so that nothing can be cancelled halfway: a connection
is closed by closing its socket, and whoever waits for that wakes up to it.
"""

from __future__ import annotations

import ssl
from collections import deque
from functools import cache

import httpcore2
import trio

from ._lifetime import KEEPALIVE_S, close_here
from ._proxies import credentials
from ._trio_network import Network

__all__ = ["Line", "Pool", "Way"]

Way = tuple[bytes, bytes, int | None, str | None]
"""Scheme, host and port of the server, and the URL of the proxy."""

_AT_MOST = 100
"""So many dead connections a request closes on its way, not all that a burst left behind."""

_default_ssl_context = cache(ssl.create_default_context)  # or each connection would make one


class Line:
    """One connection, over all the requests that it serves.

    Attributes:
        connection: httpcore2's.
        reused: It has served a request before the present one.
        socket: Its socket, once there is one.
        expires_at: When it has been idle for too long, on trio's clock.
    """

    __slots__ = ("connection", "expires_at", "reused", "socket", "way")

    def __init__(self, way: Way, connection: httpcore2.AsyncConnectionInterface) -> None:
        self.way = way
        self.connection = connection
        self.reused = False
        self.socket: trio.socket.SocketType | None = None
        self.expires_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it has a socket that nobody closed."""
        return self.socket is not None and self.socket.fileno() != -1

    def close(self) -> None:
        """Close it now, whatever it is doing."""
        if self.socket is not None:
            self.socket.close()


class Pool:
    """The connections of one transport.

    Args:
        most: How many there may be, others wait in their order; None for no bound.
        ssl_context: How to verify servers; None for the system's certificates.
    """

    def __init__(self, most: int | None, ssl_context: ssl.SSLContext | None) -> None:
        self._slots = None if most is None else trio.Semaphore(most, max_value=most)
        self._ssl_context = ssl_context
        self._network = Network()
        self._makers: dict[tuple[bool, str | None], httpcore2.AsyncConnectionPool] = {}
        self._idle: dict[Way, deque[Line]] = {}  # from the longest idle to the last

    async def acquire(self, way: Way) -> Line:
        """A connection for one request, to be released.

        Raises:
            httpcore2.ConnectError: The pool was closed.
        """
        if self._slots is not None:
            await self._slots.acquire()
        try:
            if self._network.closed:
                raise httpcore2.ConnectError("the transport is closed")
            return self._reusable(way) or self._fresh(way)
        except BaseException:
            if self._slots is not None:
                self._slots.release()
            raise

    def _reusable(self, way: Way) -> Line | None:
        now = trio.current_time()
        self._close_expired(now)
        idle = self._idle.get(way, ())
        for _ in range(_AT_MOST):
            if not idle or idle[-1].expires_at <= now:
                break
            line = idle.pop()
            if not line.connection.has_expired():  # the server has not hung up
                line.reused = True
                return line
            line.close()
        return None

    def _close_expired(self, now: float) -> None:
        budget = _AT_MOST
        for way, idle in tuple(self._idle.items()):
            while idle and budget and idle[0].expires_at <= now:
                idle.popleft().close()
                budget -= 1
            if not idle:
                del self._idle[way]

    def _fresh(self, way: Way) -> Line:
        slots = self._slots
        if slots is not None:
            idle = [lines for lines in self._idle.values() if lines]
            if idle and sum(map(len, idle)) > slots.value:  # of other ways: one makes room
                min(idle, key=lambda lines: lines[0].expires_at).popleft().close()
        scheme, host, port, proxy = way
        secure = scheme == b"https"
        origin = httpcore2.Origin(scheme, host, port or (443 if secure else 80))
        return Line(way, self._maker(secure, proxy).create_connection(origin))

    def _maker(self, secure: bool, proxy: str | None) -> httpcore2.AsyncConnectionPool:
        maker = self._makers.get((secure, proxy))
        if maker is None:
            context = self._ssl_context
            maker = self._makers[secure, proxy] = httpcore2.AsyncConnectionPool(
                ssl_context=_default_ssl_context() if secure and context is None else context,
                proxy=None if proxy is None else httpcore2.Proxy(proxy, auth=credentials(proxy)),
                network_backend=self._network,
            )
        return maker

    def release(self, line: Line) -> None:
        """Take it back: for the next request if it can serve one, else it is closed."""
        if line.is_open and line.connection.is_available():
            line.expires_at = trio.current_time() + KEEPALIVE_S
            self._idle.setdefault(line.way, deque()).append(line)
        else:
            line.close()
        if self._slots is not None:
            self._slots.release()

    def close(self) -> None:
        """Close every connection, those that are being made included."""
        self._network.closed = True
        for opened in tuple(self._network.sockets):
            opened.close()
        self._idle.clear()

    def abandon(self) -> None:
        """Close every connection in this process only, without a word to the loop."""
        self._network.closed = True
        for opened in tuple(self._network.sockets):
            close_here(opened)
        self._idle.clear()
