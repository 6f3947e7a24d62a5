"""The transport on trio: a `Request` goes out through httpcore2, its bytes come back.

Law: the one iterator of a response is owned here, stepped by `receive` only, and closed with it:
no async generator is left to the collector. A response that failed or timed out is closed at once;
one whose reader was cancelled goes on with the next. Connecting has one deadline, from the moment
a connection is begun (not: waited for) until the request's head is written; of httpcore2's own
timeouts each stage would have it all.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache

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
from ._delivery import Deliveries
from ._failures import authority, brief, connecting_failed
from ._head import read_head, write_head
from ._httpcore_body import Body
from ._httpcore_pool import Line, Pool, Way
from ._httpcore_progress import Progress, later
from ._inflate import decoded
from ._lifetime import before_the_loop_ends, close_here, dismiss
from ._proxies import Proxies

__all__ = ["HttpcoreTransport"]

_FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.ProxyError)
_parsed = lru_cache(maxsize=64)(httpcore2.URL)


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
        self._proxies = Proxies(trust_env=trust_env)
        self._pool = Pool(max_connections, ssl_context)
        self._deliveries = Deliveries(later)
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
        told = request.on_delivered is not None and proxy is None
        with trio.CancelScope(deadline=request.deadline) as scope:
            progress = Progress(request, scope, self._deliveries if told else None)
            try:
                return await self._send(request, proxy, progress)
            finally:
                self._deliveries.forget(progress)
        if scope.deadline < request.deadline:
            raise ConnectTimeout(
                f"connecting to {authority(request.url)} took longer than"
                f" {request.connect_timeout:g} s"
            )
        raise SendTimeout(f"{authority(request.url)} did not answer in time")

    async def _send(self, request: Request, proxy: str | None, progress: Progress) -> Response:
        outgoing = httpcore2.Request(
            "POST",
            _parsed(request.url),
            headers=write_head(request),  # in no variable: it is the key
            content=request.body,
            extensions={"trace": progress},
        )
        try:
            line = progress.line = await self._pool.acquire(_way(outgoing.url, proxy))
            try:
                answer = await line.connection.handle_async_request(outgoing)
                headers = read_head(request.url, answer.status, answer.headers)
            except BaseException:
                self._pool.release(line)
                raise
        except _FAILURES as error:
            failure = _sending_failed(request, progress, error)
        else:
            response = _Response(request.url, answer, headers, line, self._let_go)
            self._alive.add(response)
            return decoded(response, request.url)
        raise failure

    def _let_go(self, response: _Response) -> None:
        self._alive.discard(response)
        self._pool.release(response.line)

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        try:
            await self._close()
        finally:
            dismiss(self._guard)

    async def _close(self) -> None:
        self._closed = True
        self._deliveries.close()
        self._pool.close()
        with trio.CancelScope(shield=True):  # it waits for no network
            while self._alive:
                await self._alive.pop().aclose()

    def abandon(self) -> None:
        """Drop every connection without the loop; see `Transport.abandon`."""
        self._closed = True
        self._pool.abandon()
        dismiss(self._guard)


class _Response:
    """The head of an answer, and its body to be pulled."""

    def __init__(
        self,
        url: str,
        answer: httpcore2.Response,
        headers: Mapping[str, str],
        line: Line,
        let_go: Callable[[_Response], None],
    ) -> None:
        self.status: int = answer.status
        self.headers = headers
        self._url = url
        self._body = Body(answer)
        self.line = line
        self._let_go = let_go
        self._token = trio.lowlevel.current_trio_token()
        self._reading = False
        self._left = False  # it was closed while it was read
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
        goes_on = False
        self._reading = True
        try:
            with trio.CancelScope(deadline=deadline):
                data = await self._body.next()
            goes_on = bool(data)
        except trio.Cancelled:
            goes_on = True  # with the next: this one has taken nothing
            raise
        except _FAILURES as error:
            raise BodyBroken(
                f"the body from {authority(self._url)} broke off: {brief(error)}"
            ) from error if isinstance(error, httpcore2.NetworkError) else None
        finally:
            self._reading = False
            if self._left or not goes_on:
                await self._close()
        if data is None:
            raise BodyTimeout(f"{authority(self._url)} sent nothing until the deadline")
        self._whole = not data
        return data

    async def aclose(self) -> None:
        """Let go of the connection; see `Response.aclose`."""
        if self._reading:
            self._left = True
            self.line.close()  # the reader wakes up to that, and closes the rest
        else:
            await self._close()

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            with trio.CancelScope(shield=True):  # it waits for no network
                await self._body.aclose()
        finally:
            self._let_go(self)

    def abort(self) -> None:
        """Close the connection without waiting; see `Response.abort`."""
        try:
            self._token.run_sync_soon(self._close_soon)
        except trio.RunFinishedError:
            if not self._closed and self.line.socket is not None:  # else it went back to the pool
                close_here(self.line.socket)

    def _close_soon(self) -> None:
        if self._closed:
            return
        self.line.close()
        self._left = self._reading
        if not self._reading:
            with suppress(RuntimeError):  # the run is ending, and closes generators by itself
                trio.lowlevel.spawn_system_task(self._close_dropped)

    async def _close_dropped(self) -> None:
        with suppress(RuntimeError):  # trio closes what is collected, too; and it ends a run
            await self._close()


def _way(url: httpcore2.URL, proxy: str | None) -> Way:
    return url.scheme, url.host, url.port, proxy


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
            reused=progress.line is not None and progress.line.reused,
        )
    failure.__cause__ = None if isinstance(failure, ProtocolViolated) else error
    return failure
