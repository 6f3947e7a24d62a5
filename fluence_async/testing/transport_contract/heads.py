"""What a transport makes of the head of a response."""

from __future__ import annotations

from ...transports._base import ProtocolViolated
from ._expect import expect, raises
from ._server import Factory, Peer, body_of, post, saying, served

__all__ = [
    "a_head_framed_twice_is_refused",
    "a_header_bomb_is_refused",
    "a_switch_of_protocols_is_refused",
    "early_hints_are_passed_over",
    "garbage_is_refused_and_not_quoted",
    "header_names_are_lower_case_and_repeated_values_are_joined",
    "header_values_are_latin_1",
    "no_content_has_no_body",
    "the_old_version_of_http_is_understood",
]


async def header_names_are_lower_case_and_repeated_values_are_joined(factory: Factory) -> None:
    """Whatever the server's spelling and order."""
    head = (
        b"HTTP/1.1 429 Slow Down\r\nRETRY-After: 1\r\nContent-LENGTH: 2\r\nretry-after: 60\r\n\r\n"
    )
    async with served(factory, saying(head + b"no")) as (transport, server):
        response = await transport.send(post(server.url))
        expect(response.status == 429, f"status {response.status}")
        expected = {"retry-after": "1, 60", "content-length": "2"}
        expect(dict(response.headers) == expected, f"headers {dict(response.headers)}")
        expect(await body_of(response) == b"no", "the body is there")


async def header_values_are_latin_1(factory: Factory) -> None:
    """Any byte can be printed and pickled later."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Name: caf\xe9\r\n\r\n"
    async with served(factory, saying(head)) as (transport, server):
        response = await transport.send(post(server.url))
        expect(response.headers["x-name"] == "café", f"{response.headers['x-name']!r}")
        await response.aclose()


async def early_hints_are_passed_over(factory: Factory) -> None:
    """103, and 100, which nobody asked for."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    async with served(factory, saying(hints + head + b"ok")) as (transport, server):
        response = await transport.send(post(server.url))
        expect(response.status == 200, f"status {response.status}")
        expect(await body_of(response) == b"ok", "the body is there")


async def the_old_version_of_http_is_understood(factory: Factory) -> None:
    """HTTP/1.0: the body ends with the connection."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nto ")
        await peer.say(b"the end")

    async with served(factory, script) as (transport, server):
        for _ in range(2):
            response = await transport.send(post(server.url))
            expect(await body_of(response) == b"to the end", "the body is whole")
        expect(server.accepted == 2, "such a connection is not reused")


async def no_content_has_no_body(factory: Factory) -> None:
    """204 ends with its head."""
    async with served(factory, saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as (transport, server):
        response = await transport.send(post(server.url))
        expect(response.status == 204, f"status {response.status}")
        expect(await body_of(response) == b"", "nothing comes")


async def _refused(factory: Factory, data: bytes) -> str:
    async with served(factory, saying(data)) as (transport, server):
        with raises(ProtocolViolated) as error:
            await transport.send(post(server.url))
        expect(server.authority in str(error.value), f"{error.value} names the server")
        await server.empty()  # nothing can be said of the rest: the connection is closed
    return str(error.value)


async def garbage_is_refused_and_not_quoted(factory: Factory) -> None:
    """What is no HTTP may hold what we sent."""
    for garbage in (
        b"SSH-2.0-OpenSSH_9.2 Bearer sk-0123\r\n\r\n",
        b"HTTP/1.1 abc sk-0123\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nsk-0123 without a colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: sk-0123\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    ):
        text = await _refused(factory, garbage)
        expect("sk-0123" not in text, f"{text!r} quotes the server")


async def a_head_framed_twice_is_refused(factory: Factory) -> None:
    """Content-Length and Transfer-Encoding together hide a second response."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    await _refused(factory, head + b"0\r\n\r\n")
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"
    await _refused(factory, head + b"0\r\n\r\n")


async def a_switch_of_protocols_is_refused(factory: Factory) -> None:
    """101 was not asked for."""
    head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n"
    await _refused(factory, head)


async def a_header_bomb_is_refused(factory: Factory) -> None:
    """A header of 2 MB, 20,000 headers, a head without an end."""
    start = b"HTTP/1.1 200 OK\r\n"
    await _refused(factory, start + b"X: " + b"a" * 2_000_000 + b"\r\n\r\n")
    await _refused(factory, start + b"".join(b"X-%d: a\r\n" % n for n in range(20_000)) + b"\r\n")

    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.say(start)
        while True:
            await peer.say(b"X-Endless: a\r\n" * 100)

    async with served(factory, endless) as (transport, server):
        with raises(ProtocolViolated):
            await transport.send(post(server.url))
        await server.empty()
