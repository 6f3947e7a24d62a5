"""The seam between this package and an HTTP library: a request goes in, a response comes out.

Law: bytes only. A transport knows no JSON, no events, no retries and no API words; it raises
its own errors, whose class says what is known of the request (did it leave this machine?),
because that decides whether a limiter's unit may be given back. Times are seconds on the
running loop's own clock (`Transport.clock`), so that a virtual clock rules everything.

Every await here is cancel-safe: a cancelled `send` leaves no connection checked out, a
cancelled `receive` has taken nothing, and leaves a response that the next `receive` goes on with
and `aclose` or `abort` closes for good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

__all__ = [
    "BodyBroken",
    "BodyTimeout",
    "ConnectFailed",
    "ConnectTimeout",
    "Disconnected",
    "ProtocolViolated",
    "Request",
    "Response",
    "SendTimeout",
    "TLSFailed",
    "Transport",
    "TransportError",
]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One POST. `headers` may hold a `str` subclass that redacts its own repr; it goes out as
    it is. `connect_timeout` covers resolving, TCP and TLS, in seconds; None for no bound.
    `deadline` is when the response's whole head must be here, on `Transport.clock`. `on_sent` is
    called once, at the moment from which bytes may leave this machine. `on_delivered` is called at
    most once, after that and before `send` is over: the kernel of the server that `url` names has
    acknowledged every byte. Where that cannot be known (through a proxy, elsewhere than on Linux)
    it is never called. Neither may raise."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    connect_timeout: float | None = None
    deadline: float = math.inf
    on_sent: Callable[[], None] = lambda: None
    on_delivered: Callable[[], None] | None = None


class Response(Protocol):
    """The head of an answer, and its body to be pulled.

    Attributes:
        status: The HTTP status.
        headers: Names in lower case; the values of repeated ones joined by ", ".
    """

    status: int
    headers: Mapping[str, str]

    async def receive(self, deadline: float) -> bytes:
        """The next bytes of the body, as many as are there; b"" at its clean end. Cancelled, it
        has taken none that a later one would miss.

        Args:
            deadline: When to give up, on `Transport.clock`; `math.inf` for never.

        Raises:
            BodyTimeout: `deadline` passed first.
            BodyBroken: The body ended before its end, or its framing or encoding is invalid.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the connection: back to the pool if the body was read to its end, closed
        otherwise. Idempotent; never waits for the network."""
        ...

    def abort(self) -> None:
        """Close the connection without waiting. For finalizers: callable from any thread, after
        the loop is gone, more than once; never raises."""
        ...


class Transport(Protocol):
    """How bytes travel: one implementation for each event loop."""

    @property
    def clock(self) -> Callable[[], float]:
        """The running loop's clock, in seconds."""
        ...

    async def send(self, request: Request) -> Response:
        """Send `request`, return once the response's headers are here. Follows no redirect,
        keeps no cookie, and sends again nothing by itself.

        Raises:
            ConnectFailed: Nothing left this machine: not resolved, refused, unreachable.
            ConnectTimeout: Nothing left this machine: `connect_timeout` passed.
            SendTimeout: `request.deadline` passed first.
            TLSFailed: Nothing left this machine: certificate or handshake.
            Disconnected: The connection ended before any response byte.
            ProtocolViolated: What came back is not an acceptable HTTP response head.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        ...

    def abandon(self) -> None:
        """Drop every connection without the loop (it is closed, or belongs to the process that
        this one was forked from): in a forked child, without shutting down shared sockets."""
        ...


class TransportError(Exception):
    """The root of a transport's errors. `str(error)` names host:port and the cause."""


class ConnectFailed(TransportError):
    """Nothing left this machine: not resolved, refused, unreachable.

    Attributes:
        permanent: Trying again cannot help (the name does not exist).
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class ConnectTimeout(TransportError):
    """Nothing left this machine: connecting took too long."""


class SendTimeout(TransportError):
    """The deadline of `send` passed."""


class TLSFailed(TransportError):
    """Nothing left this machine: the certificate or the handshake is bad."""


class Disconnected(TransportError):
    """The request may have arrived; the connection ended before any response byte.

    Attributes:
        reused: The connection had served an earlier request, so it may merely have been stale.
    """

    def __init__(self, message: str, *, reused: bool = False) -> None:
        super().__init__(message)
        self.reused = reused


class ProtocolViolated(TransportError):
    """What came back is not an acceptable HTTP response head."""


class BodyBroken(TransportError):
    """The body ended before its end, or its framing or encoding is invalid.

    Attributes:
        undecodable: All bytes came, and their content encoding is invalid.
    """

    def __init__(self, message: str, *, undecodable: bool = False) -> None:
        super().__init__(message)
        self.undecodable = undecodable


class BodyTimeout(TransportError):
    """The deadline of `receive` passed."""
