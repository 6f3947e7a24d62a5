"""The transport on trio: a `Request` goes out through httpcore2, its bytes come back.

Law: the one iterator of a response is owned here, stepped by `receive` only, and closed with it:
no async generator is left to the collector. A response that failed, timed out or was cancelled
is closed at once. Connecting has one deadline, from the moment a connection is begun (not: waited
for) until the request's head is written; of httpcore2's own timeouts each stage would have it all.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache

import httpcore2
import trio

from ._base import (
    BodyBroken,
    BodyTimeout,
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
from ._head import read_head, write_head
from ._httpcore_connections import Network, Progress
from ._inflate import decoded
from ._lifetime import KEEPALIVE_S, before_the_loop_ends, close_here, dismiss
from ._proxies import Proxies, credentials

__all__ = ["HttpcoreTransport"]

_default_ssl_context = cache(ssl.create_default_context)  # or each connection would make one
_FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError)


class HttpcoreTransport:
    """How bytes travel on trio. To be made inside the running loop.

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
        self._max_connections = max_connections
        self._ssl_context = ssl_context
        self._proxies = Proxies(trust_env=trust_env)
        self._network = Network()
        self._pools: dict[tuple[bool, str | None], httpcore2.AsyncConnectionPool] = {}
        self._deliveries = Deliveries(_later)
        self._alive: set[_Response] = set()  # or a dropped one's generators would close at once
        self._closed = False
        self._guard = before_the_loop_ends(self._close)

    @property
    def clock(self) -> Callable[[], float]:
        """The running loop's clock, in seconds."""
        return trio.current_time

    async def send(self, request: Request) -> Response:
        """Send `request`, return once the response's headers are here; see `Transport.send`."""
        if self._closed:
            raise RuntimeError("the transport is closed")
        proxy = self._proxies.for_url(request.url)
        heard = request.on_delivered is not None and proxy is None
        progress = Progress(request, self._deliveries if heard else None)
        try:
            with trio.CancelScope(deadline=request.deadline), progress.connecting, progress:
                return await self._send(request, proxy, progress)
        finally:
            await progress.clean_up()
        if not progress.connecting.cancelled_caught:
            raise SendTimeout(f"{authority(request.url)} did not answer in time")
        raise ConnectTimeout(
            f"connecting to {authority(request.url)} took longer than {request.connect_timeout:g} s"
        )

    async def _send(self, request: Request, proxy: str | None, progress: Progress) -> Response:
        try:
            answer = await self._pool(request.url, proxy).handle_async_request(
                httpcore2.Request(
                    "POST",
                    request.url,
                    headers=write_head(request),  # in no variable: it is the key
                    content=request.body,
                    extensions={"trace": progress},
                )
            )
        except _FAILURES as error:
            failure = _sending_failed(request, progress, error)
        else:
            try:
                headers = read_head(request.url, answer.status, answer.headers)
            except ProtocolViolated:
                await answer.aclose()
                raise
            return decoded(_Response(request.url, answer, headers, self._alive), request.url)
        raise failure

    def _pool(self, url: str, proxy: str | None) -> httpcore2.AsyncConnectionPool:
        secure = url.startswith("https:")
        pool = self._pools.get((secure, proxy))
        if pool is None:
            context = self._ssl_context
            pool = self._pools[secure, proxy] = httpcore2.AsyncConnectionPool(
                ssl_context=_default_ssl_context() if secure and context is None else context,
                proxy=None if proxy is None else httpcore2.Proxy(proxy, auth=credentials(proxy)),
                max_connections=self._max_connections,
                keepalive_expiry=KEEPALIVE_S,
                network_backend=self._network,
            )
        return pool

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        try:
            await self._close()
        finally:
            dismiss(self._guard)

    async def _close(self) -> None:
        self._closed = True
        self._deliveries.close()
        with trio.CancelScope(shield=True):  # it waits for no network
            while self._alive:
                await self._alive.pop().aclose()
            while self._pools:
                await self._pools.popitem()[1].aclose()

    def abandon(self) -> None:
        """Drop every connection without the loop; see `Transport.abandon`."""
        self._closed = True
        for opened in self._network.sockets:
            close_here(opened)
        self._pools.clear()
        dismiss(self._guard)


class _Response:
    """The head of an answer, and its body to be pulled."""

    def __init__(
        self,
        url: str,
        answer: httpcore2.Response,
        headers: Mapping[str, str],
        alive: set[_Response],
    ) -> None:
        self._alive = alive
        alive.add(self)
        self.status: int = answer.status
        self.headers = headers
        self._url = url
        self._answer = answer
        self._pieces = answer.aiter_stream()
        stream: httpcore2.AsyncNetworkStream = answer.extensions["network_stream"]
        self._socket: trio.socket.SocketType = stream.get_extra_info("socket")
        self._token = trio.lowlevel.current_trio_token()
        self._reading = False
        self._whole = False
        self._closed = False

    async def receive(self, deadline: float) -> bytes:
        """The next bytes of the body; see `Response.receive`."""
        if self._reading:
            raise RuntimeError("another task is receiving from this response")
        if self._closed:
            if self._whole:
                return b""
            raise BodyBroken(f"the body from {authority(self._url)} was closed")
        data: bytes | None = None
        self._reading = True
        try:
            with trio.CancelScope(deadline=deadline):
                data = await anext(self._pieces, b"")
        except _FAILURES as error:
            raise BodyBroken(
                f"the body from {authority(self._url)} broke off: {brief(error)}"
            ) from error if isinstance(error, httpcore2.NetworkError) else None
        finally:
            self._reading = False
            if not data:
                await self._close()
        if data is None:
            raise BodyTimeout(f"{authority(self._url)} sent nothing until the deadline")
        self._whole = not data
        return data

    async def aclose(self) -> None:
        """Let go of the connection; see `Response.aclose`."""
        if self._reading:
            self._socket.close()  # the reader wakes up to that, and closes the rest
        else:
            await self._close()

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._alive.discard(self)
        with trio.CancelScope(shield=True):  # it waits for no network
            await self._pieces.aclose()
            await self._answer.aclose()

    def abort(self) -> None:
        """Close the connection without waiting; see `Response.abort`."""
        try:
            self._token.run_sync_soon(self._close_soon)
        except trio.RunFinishedError:
            if not self._closed:  # else it went back to the pool
                close_here(self._socket)

    def _close_soon(self) -> None:
        if self._closed:
            return
        self._socket.close()
        if not self._reading:
            with suppress(RuntimeError):  # the run is ending, and closes generators by itself
                trio.lowlevel.spawn_system_task(self._close_dropped)

    async def _close_dropped(self) -> None:
        with suppress(RuntimeError):  # trio closes what is collected, too; and it ends a run
            await self._close()


def _later(ring: Callable[[], None]) -> trio.CancelScope | None:
    timer = trio.CancelScope()
    try:
        trio.lowlevel.spawn_system_task(_sleep, timer, ring)
    except RuntimeError:  # the run is ending
        return None
    return timer


async def _sleep(timer: trio.CancelScope, ring: Callable[[], None]) -> None:
    with timer:
        await trio.sleep(EVERY_S)
        ring()


def _sending_failed(
    request: Request, progress: Progress, error: Exception
) -> TransportError | ValueError:
    """What the seam calls an error of httpcore2; one of its parser does not go along."""
    where = authority(request.url)
    failure: TransportError
    if isinstance(error, httpcore2.LocalProtocolError):  # its text may quote the key
        return ValueError("the request holds what HTTP forbids")
    if not progress.sent:
        failure = connecting_failed(request.url, error)
    elif isinstance(error, httpcore2.RemoteProtocolError) and isinstance(error.args[0], Exception):
        failure = ProtocolViolated(f"{where} sent no valid response head: {brief(error)}")
    else:
        failure = Disconnected(
            f"{where} closed the connection before it answered: {brief(error)}",
            reused=progress.reused,
        )
    failure.__cause__ = None if isinstance(failure, ProtocolViolated) else error
    return failure
