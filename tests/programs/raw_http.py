"""HTTP by hand: what is sent is written out, and what comes back is seen byte by byte."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketStream

from fluence_async.testing import FluenceServer

HELLO: dict[str, Any] = {
    "model": "fluence-chat",
    "messages": [{"role": "user", "content": "Hello, how are you?"}],
    "temperature": 0.7,
}


@dataclass
class Answered:
    """An answer: its head, and its body without the chunks' framing."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each event, decoded unless it is `[DONE]`."""
        blocks = self.body.decode().split("\n\n")
        assert blocks.pop() == ""
        data = [block.removeprefix("data: ") for block in blocks]
        return [line if line == "[DONE]" else json.loads(line) for line in data]


async def connect(server: FluenceServer) -> SocketStream:
    return await anyio.connect_tcp("127.0.0.1", urlsplit(server.base_url).port or 0)


def request(
    server: FluenceServer,
    body: Any = HELLO,
    *,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    version: str = "1.1",
    headers: dict[str, str | None] | None = None,
) -> bytes:
    """The bytes of a request; a header that is None is left out."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {
        "host": urlsplit(server.base_url).netloc,
        "authorization": f"Bearer {server.api_key}",
        "content-type": "application/json",
        "content-length": str(len(data)),
        "connection": "close",
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode("utf-8", "surrogateescape") + data


async def read_all(stream: SocketStream) -> bytes:
    """All bytes up to the end of the connection, however it ends."""
    received = b""
    with anyio.fail_after(4000):  # perhaps in virtual time
        while True:
            try:
                received += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return received


async def exchange(server: FluenceServer, sent: bytes) -> bytes:
    """Send these bytes on a new connection and receive all that comes."""
    async with await connect(server) as stream:
        await stream.send(sent)
        return await read_all(stream)


async def ask(server: FluenceServer, body: Any = HELLO, **changes: Any) -> Answered:
    """One request on a connection of its own, and its answer."""
    return parse(await exchange(server, request(server, body, **changes)))


def parse(received: bytes) -> Answered:
    """The first response in `received`, which must be whole."""
    head, _, rest = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        rest = _unchunked(rest)
    return Answered(int(status.split()[1]), headers, rest)


def _unchunked(data: bytes) -> bytes:
    whole = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        whole += data[:length]
        assert data[length : length + 2] == b"\r\n"
        data = data[length + 2 :]
        if length == 0:
            assert data == b""
            return whole
