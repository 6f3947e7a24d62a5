"""A script per connection in, a raw TCP server that plays it out: bytes, and nothing of HTTP.

Law: it counts what a client leaves behind. `accepted` connections, those still `open`, and every
request that was read, so that a check can say "one connection for twenty requests" and "nothing
is left". It runs in the client's own loop, so that virtual time rules both.
"""

from __future__ import annotations

import math
import socket
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeAlias

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketListener
from anyio.streams.tls import TLSStream

from ...transports._base import Request, Response, Transport

__all__ = [
    "Factory",
    "Peer",
    "Script",
    "ScriptedServer",
    "body_of",
    "echo",
    "post",
    "saying",
    "served",
    "trusting",
]

GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class Factory(Protocol):
    """What makes the transport under test, inside the running loop."""

    def __call__(
        self, *, max_connections: int | None = None, ssl_context: ssl.SSLContext | None = None
    ) -> Transport:
        """A fresh transport."""
        ...


class Peer:
    """One accepted connection, from the server's side."""

    def __init__(self, stream: ByteStream, server: ScriptedServer) -> None:
        self.server = server
        self._stream = stream
        self._unread = bytearray()

    async def request(self) -> tuple[str, bytes]:
        """The next request: its head, and its body as long as the head says."""
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            self._unread += await self._stream.receive()
        text = self._unread[:end].decode()
        length = 0
        for line in text.splitlines():
            name, _, value = line.partition(":")
            length = int(value) if name.lower() == "content-length" else length
        end += 4
        while len(self._unread) < end + length:
            self._unread += await self._stream.receive()
        body = bytes(self._unread[end : end + length])
        del self._unread[: end + length]
        self.server.requests.append((text, body))
        return text, body

    async def begin(self) -> None:
        """Take the first bytes of a request; after them none, until more is asked for. Without
        that, anyio on asyncio takes all that comes."""
        self._unread += await self._stream.receive()

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        await self._stream.send(data)

    async def answer(self, body: bytes = b"", *headers: str, status: str = "200 OK") -> None:
        """Send a whole response, framed by its length."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        await self.say("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def reset(self) -> None:
        """Close with a RST."""
        raw = self._stream.extra(SocketAttribute.raw_socket)  # noqa: S610 — no Django here
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._stream.aclose()

    async def gone(self) -> int:
        """Wait until the client has closed the connection; how many bytes it sent until then."""
        size = len(self._unread)
        try:
            while True:
                size += len(await self._stream.receive())
        except GONE:
            return size


Script: TypeAlias = Callable[[Peer], Awaitable[None]]
"""What a server does with each connection. When it returns, or the client is gone, the connection
is closed."""


class ScriptedServer:
    """What a raw server saw.

    Attributes:
        authority: Its `host:port`.
        url: The URL to post to.
        accepted: How many connections there were.
        open: How many of them are still open.
        most: How many were open at once.
        requests: Head and body of each request that was read to its end.
    """

    def __init__(self, port: int, scheme: str) -> None:
        self.authority = f"127.0.0.1:{port}"
        self.url = f"{scheme}://{self.authority}/v1/chat/completions"
        self.accepted = 0
        self.open = 0
        self.most = 0
        self.requests: list[tuple[str, bytes]] = []
        self._changed = anyio.Event()

    async def empty(self) -> None:
        """Wait until no connection is open."""
        while self.open:
            await self._changed.wait()

    async def play(self, script: Script, stream: ByteStream, tls: ssl.SSLContext | None) -> None:
        """Play `script` on a connection."""
        self.accepted += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            async with stream:
                if tls is not None:
                    stream = await TLSStream.wrap(
                        stream, server_side=True, ssl_context=tls, standard_compatible=False
                    )
                await script(Peer(stream, self))
        except (*GONE, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            self._changed.set()
            self._changed = anyio.Event()


@asynccontextmanager
async def served(
    factory: Factory,
    script: Script,
    *,
    tls: bool = False,
    max_connections: int | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[Transport, ScriptedServer]]:
    """A server that plays `script`, and a transport; no connection may be left once it is closed,
    and the whole may last no longer than 20 seconds."""
    # anyio's own way to a listener asks a thread for the address, which virtual time outruns.
    listening = socket.create_server(("127.0.0.1", 0))
    listener = await SocketListener.from_socket(listening)
    server = ScriptedServer(listening.getsockname()[1], "https" if tls else "http")
    context = _server_context() if tls else None

    async def play(stream: ByteStream) -> None:
        await server.play(script, stream, context)

    with anyio.fail_after(20):
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, play)
            transport = factory(max_connections=max_connections, ssl_context=ssl_context)
            try:
                yield transport, server
            finally:
                await transport.aclose()
            await server.empty()
            tasks.cancel_scope.cancel()


async def echo(peer: Peer) -> None:
    """Answer every request with its own body."""
    while True:
        _, body = await peer.request()
        await peer.answer(body)


def saying(data: bytes) -> Script:
    """A script that reads a request, says `data` and waits for the client to go."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(data)
        await peer.gone()

    return script


def post(
    url: str,
    body: bytes = b"{}",
    *,
    headers: dict[str, str] | None = None,
    connect_timeout: float | None = None,
    deadline: float = math.inf,
    on_sent: Callable[[], None] = lambda: None,
    on_delivered: Callable[[], None] | None = None,
) -> Request:
    """A request."""
    return Request(
        url=url,
        headers=headers or {},
        body=body,
        connect_timeout=connect_timeout,
        deadline=deadline,
        on_sent=on_sent,
        on_delivered=on_delivered,
    )


async def body_of(response: Response, deadline: float = float("inf")) -> bytes:
    """The whole body; the response is closed after it."""
    parts = []
    while part := await response.receive(deadline):
        parts.append(part)
    await response.aclose()
    return b"".join(parts)


def trusting() -> ssl.SSLContext:
    """A context that trusts the server's certificate, and no other."""
    return ssl.create_default_context(cadata=_CERTIFICATE)


def _server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "both.pem")
        file.write_text(_KEY + _CERTIFICATE)
        context.load_cert_chain(file)
    return context


# For 127.0.0.1, of nobody, until 2120. The key is no secret: all the world has it.
_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBijCCAS+gAwIBAgIBATAKBggqhkjOPQQDAjAdMRswGQYDVQQDDBJmbHVlbmNl
X2FzeW5jIHRlc3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMB0x
GzAZBgNVBAMMEmZsdWVuY2VfYXN5bmMgdGVzdDBZMBMGByqGSM49AgEGCCqGSM49
AwEHA0IABCckhmO5UokMRvcpudBjRG8NJiXO9cYJUsKsZoBz7n2SD3MqbXOUiZNs
Fyp4YdY8hik6YpAvdQf+tlDpTmiDBmmjXjBcMBoGA1UdEQQTMBGHBH8AAAGCCWxv
Y2FsaG9zdDAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwIChDAdBgNVHQ4E
FgQUYX0bV0DVWLSRo/98rj6odLOKddMwCgYIKoZIzj0EAwIDSQAwRgIhALM/inKN
AVtb8s3abHeSGTINAVkfeFZdiajD3xSwiiIxAiEAhEZs+bpLl6KLdpovESAoJXJR
pihUB+IrazfB6Xq8T4Q=
-----END CERTIFICATE-----
"""
_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg9fu87DSUg8o4lhk0
yK/G0lGk5QgWhck3YI7Sh0kicUehRANCAAQnJIZjuVKJDEb3KbnQY0RvDSYlzvXG
CVLCrGaAc+59kg9zKm1zlImTbBcqeGHWPIYpOmKQL3UH/rZQ6U5ogwZp
-----END PRIVATE KEY-----
"""
