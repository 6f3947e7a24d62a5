"""The connection that an answer goes out on: bytes in, HTTP/1.1 out, and nothing checked.

Law: what a reply writes is what the client receives, byte for byte, also when it is wrong on
purpose. So answers are framed here and not by aiohttp's response classes, which would not let
a script cut a chunk in two or lie about a length. aiohttp parses the requests, owns the
connection, and is told at the end whether it may be used again (`Wire.done`).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Literal, NoReturn

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from .received import Received
from .turn import Turn

__all__ = ["Hangup", "Wire"]

_RESET_GRACE_S = 0.01
_SENDS_PER_YIELD = 32


class Hangup(ConnectionError):
    """The connection is gone, or is to go: nobody is to be told."""


class Wire:
    """One answer's way to the client.

    Attributes:
        headers: What every answer carries: request id, date, rate limits.
        received: The request as it came, which is told the answer's status.
        turn: The request that is answered, once it has passed its checks.
        pace: Seconds between two tokens of a streamed answer.
        framing: How the body under way is framed; None outside a body.
        trickle: `(size, gap)`: send in pieces of `size` bytes, `gap` seconds apart.
        spoil: What becomes of each piece of a body before it is framed; None for no change.
    """

    received: Received
    turn: Turn

    def __init__(self, request: web.BaseRequest, pace: float = 0.0) -> None:
        self.headers: dict[str, str] = {
            "x-request-id": f"req_{secrets.token_hex(12)}",
            "date": formatdate(usegmt=True),
        }
        self.pace = pace
        self.framing: Literal["chunked", "length", "close"] | None = None
        self.trickle: tuple[int, float] | None = None
        self.spoil: Callable[[bytes], bytes] | None = None
        self.began: bool = False
        self._request = request
        self._keep_alive = bool(request.keep_alive)
        self._sends = 0

    async def head(
        self,
        status: int,
        headers: Mapping[str, str],
        *,
        length: int | None = None,
        version: str = "1.1",
    ) -> None:
        """Begin a response; without a `length` its body is chunked, or ends with the connection
        if either side speaks HTTP/1.0."""
        if length is not None:
            self.framing, framing = "length", {"content-length": str(length)}
        elif version == "1.1" and self._request.version >= (1, 1):
            self.framing, framing = "chunked", {"transfer-encoding": "chunked"}
        else:
            self.framing, framing = "close", {}
            self._keep_alive = False
        await self.send(self._head(status, {**framing, **headers}, version))

    async def respond(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """A whole response of known length, in one piece."""
        bare = status in {204, 304}
        body = self.spoil(body) if self.spoil else body
        framing = {} if bare else {"content-length": str(len(body))}
        head = self._head(status, {**framing, **headers}, "1.1")
        await self.send(head if bare or self._request.method == "HEAD" else head + body)

    def _head(self, status: int, headers: Mapping[str, str], version: str) -> bytes:
        self.received.status = status
        closing = {} if self._keep_alive else {"connection": "close"}
        lines = {**self.headers, **closing, **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        head = f"HTTP/{version} {status} {_reason(status)}\r\n{text}\r\n"
        return head.encode("utf-8", "surrogateescape")

    async def body(self, data: bytes) -> None:
        """Send a piece of the body, framed."""
        data = self.spoil(data) if self.spoil else data
        if self.framing == "chunked" and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        await self.send(data)

    async def end(self) -> None:
        """End the body."""
        if self.framing == "chunked":
            await self.send(b"0\r\n\r\n")
        self.framing = None

    async def send(self, data: bytes) -> None:
        """Send bytes as they are.

        Raises:
            Hangup: The client is gone.
        """
        if self.trickle is None:
            await self._write(data)
            return
        size, gap = self.trickle
        for start in range(0, len(data), size):
            await self._write(data[start : start + size])
            await asyncio.sleep(gap)

    async def _write(self, data: bytes) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise Hangup("the client is gone")
        transport.write(data)
        self.began = True
        self._sends += 1
        await self._request.writer.drain()
        if self._sends % _SENDS_PER_YIELD == 0:
            await asyncio.sleep(0)

    def close(self) -> NoReturn:
        """End the connection in order, after what was sent before."""
        self._keep_alive = False
        raise Hangup("closed")

    async def reset(self) -> NoReturn:
        """End the connection with a RST. What was sent before it has a moment to be read, because
        a reset may destroy what is still on its way."""
        if self.began:
            await asyncio.sleep(_RESET_GRACE_S)
        transport = self._request.transport
        if transport is not None:
            connection: Any = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        raise Hangup("reset")

    def done(self, *, keep_alive: bool = True) -> web.StreamResponse:
        """What aiohttp is told: the response is sent, and whether another may follow."""
        return _Sent(keep_alive=keep_alive and self._keep_alive)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class _Sent(web.StreamResponse):
    """A response of which nothing remains to be sent, so aiohttp's steps to send it do nothing."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._reusable = keep_alive

    @property
    def keep_alive(self) -> bool:
        return self._reusable

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        return None

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002
        return None
