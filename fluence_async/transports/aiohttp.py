"""The transport on asyncio: a `Request` goes out through aiohttp, its bytes come back.

Law: nothing of aiohttp shows: no default of its own (cookies, redirects, headers, timeouts,
decompression), none of its types, none of its errors. Rejected: trace configs (they slow every
request; a body that writes itself sees the same).
"""

from __future__ import annotations

import asyncio
import math
import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial

import aiohttp
from aiohttp import http_parser

from ._aiohttp_connections import Connector, Line, Outgoing
from ._aiohttp_response import AiohttpResponse
from ._base import (
    ConnectFailed,
    ConnectTimeout,
    Disconnected,
    ProtocolViolated,
    Request,
    Response,
    SendTimeout,
    TransportError,
)
from ._delivery import EVERY_S, Deliveries
from ._failures import authority, brief, connecting_failed
from ._head import read_head
from ._inflate import decoded
from ._lifetime import before_the_loop_ends, dismiss
from ._proxies import Proxies
from ._watchdog import Watchdog

__all__ = ["AiohttpTransport"]

# aiohttp asks its parser for more at every piece it takes from a buffer below this size: with its
# own 256 KiB, a chunk costs 0.6 µs more.
_READ_BUFFER = 32 * 1024
# aiohttp's Python parser, once paused by a full buffer, may keep the last bytes of a body to itself
# (3.14.5): there the buffer is so large that only who stops reading fills it.
_LARGE_READ_BUFFER = 2**20
_MAX_FIELD = 32 * 1024
_MAX_FIELDS = 128
_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""What aiohttp would add by itself."""


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
        self._connector = Connector(max_connections, ssl_context)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=_read_buffer(),
            max_field_size=_MAX_FIELD,
            max_headers=_MAX_FIELDS,
        )
        self._watchdog = Watchdog(self._loop)
        self._deliveries = Deliveries(partial(self._loop.call_later, EVERY_S))
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
        proxy = self._proxies.for_url(request.url)
        heard = request.on_delivered is not None and proxy is None
        body = Outgoing(request, self._deliveries if heard else None)
        sending = _Sending(request.deadline)
        self._watchdog.watch(sending)
        try:
            answer = await self._session.post(
                request.url,
                data=body,
                headers=request.headers,
                skip_auto_headers=_unwanted(tuple(request.headers)),
                timeout=_timeout(request.connect_timeout),
                proxy=proxy,
                allow_redirects=False,
            )
        except BaseException as error:
            if body.line is not None:
                body.line.transport.abort()  # closing would wait until the rest is written
            if sending.timed_out(error):
                raise SendTimeout(f"{authority(request.url)} did not answer in time") from None
            if (failure := _sending_failed(request, body.line, error)) is None:
                raise
            # What is no HTTP may quote the request: its parser's error does not go along.
            raise failure from None if isinstance(failure, ProtocolViolated) else error
        finally:
            self._watchdog.forget(sending)
            body.over()
        assert body.line is not None
        try:
            headers = read_head(request.url, answer.status, answer.raw_headers)
        except ProtocolViolated:
            answer.close()
            raise
        response = AiohttpResponse(request.url, answer, headers, body.line, self._watchdog)
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
        self._connector.abort()
        self._watchdog.close()
        self._deliveries.close()
        await self._session.close()

    def abandon(self) -> None:
        """Drop every connection without the loop; see `Transport.abandon`."""
        if self._closed:
            return
        if os.getpid() == self._pid and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close_when_running)
            return
        self._closed = True
        dismiss(self._guard)
        self._connector.close_sockets()
        self._session.detach()
        if self._loop.is_closed():
            with suppress(StopIteration):  # it does not wait: without a loop there is nothing to
                self._connector.close().send(None)

    def _close_when_running(self) -> None:
        self._closing = self._loop.create_task(self.aclose())


def _read_buffer() -> int:
    in_python = http_parser.HttpResponseParser is http_parser.HttpResponseParserPy
    return _LARGE_READ_BUFFER if in_python else _READ_BUFFER


class _Sending:
    """A task that is sending a request, and cancelled when its deadline passes."""

    def __init__(self, deadline: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.deadline = deadline
        self._task = task
        self._cancels_before = task.cancelling()
        self._expired = False

    def expire(self) -> None:
        """Cancel it; see `Watched`."""
        self._expired = True
        self._task.cancel()

    def end(self) -> None:
        """Its connection is closed already; see `Watched`."""

    def timed_out(self, error: BaseException) -> bool:
        """Whether the task was cancelled by its deadline, and by nobody else."""
        if not self._expired:
            return False
        others = self._task.uncancel() > self._cancels_before
        return isinstance(error, asyncio.CancelledError) and not others


@lru_cache(maxsize=64)
def _timeout(connect: float | None) -> aiohttp.ClientTimeout:
    # Below the threshold aiohttp does not round up to whole seconds.
    return aiohttp.ClientTimeout(connect=connect, ceil_threshold=math.inf)


@lru_cache(maxsize=64)
def _unwanted(given: tuple[str, ...]) -> list[str] | None:
    names = {name.lower() for name in given}
    return [name for name in _AUTOMATIC if name.lower() not in names] or None


def _sending_failed(
    request: Request, line: Line | None, error: BaseException
) -> TransportError | None:
    """What the seam calls an error of aiohttp; None for what is none of the network's."""
    where = authority(request.url)
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
        case _:
            return None
