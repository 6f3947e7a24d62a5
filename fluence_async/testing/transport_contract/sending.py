"""What a transport puts on the wire, and what it says when no answer comes."""

from __future__ import annotations

import anyio

from ...transports._base import Disconnected, Response, SendTimeout, Transport
from ._expect import expect, raises
from ._server import Factory, Peer, body_of, echo, post, served

__all__ = [
    "a_control_character_in_a_header_is_refused_and_not_shown",
    "a_late_answer_times_out_at_the_deadline",
    "a_reset_before_the_answer_is_a_disconnect",
    "an_end_before_the_answer_is_a_disconnect",
    "an_end_within_the_head_is_a_disconnect",
    "big_and_empty_bodies_go_out_whole",
    "cookies_are_not_kept",
    "on_sent_is_called_once_for_each_request",
    "redirects_are_not_followed",
    "the_request_goes_out_as_it_was_given",
]

AUTHORIZATION = "Bearer sk-0123456789"


async def the_request_goes_out_as_it_was_given(factory: Factory) -> None:
    """The method, the path, the given headers, Host and Content-Length: nothing else."""
    headers = {
        "Authorization": AUTHORIZATION,
        "X-Thing": "a thing",
        "Content-Type": "application/json",
    }
    async with served(factory, echo) as (transport, server):
        response = await transport.send(post(server.url, b'{"a": 1}', headers=headers))
        expect(await body_of(response) == b'{"a": 1}', "the body comes back")
        head = server.requests[0][0].splitlines()
        expect(head[0] == "POST /v1/chat/completions HTTP/1.1", f"request line {head[0]!r}")
        expected = {
            f"host: {server.authority}",
            "content-length: 8",
            f"authorization: {AUTHORIZATION}",
            "x-thing: a thing",
            "content-type: application/json",
        }
        got = {f"{n.lower()}: {v}" for n, _, v in (line.partition(": ") for line in head[1:])}
        expect(got == expected, f"headers {got ^ expected}")
        await body_of(await transport.send(post(server.url)))
        names = {line.partition(":")[0].lower() for line in server.requests[1][0].splitlines()[1:]}
        expect(names == {"host", "content-length"}, f"no header of its own: {names}")


async def big_and_empty_bodies_go_out_whole(factory: Factory) -> None:
    """Five megabytes (pictures in base64), and nothing."""
    async with served(factory, echo) as (transport, server):
        for body in (b"0123456789abcdef" * (5 * 2**16), b""):
            expect(await body_of(await transport.send(post(server.url, body))) == body, "echoed")
        expect(server.accepted == 1, "over one connection")


async def a_control_character_in_a_header_is_refused_and_not_shown(factory: Factory) -> None:
    """A line break would be a second header; the value may be the key."""
    sent: list[int] = []
    async with served(factory, echo) as (transport, server):
        for bad in ("\r\nX-Evil: 1", "\n", "\x00", "\x7f"):
            request = post(
                server.url,
                headers={"Authorization": AUTHORIZATION + bad},
                on_sent=lambda: sent.append(1),
            )
            with raises(ValueError) as error:
                await transport.send(request)
            expect("sk-01" not in repr(error.value), f"the key is in {error.value!r}")
    expect(not sent, "nothing left")
    expect(not server.requests, "nothing arrived")


async def on_sent_is_called_once_for_each_request(factory: Factory) -> None:
    """On a fresh connection and on a reused one, and before the server has read it."""
    seen: list[int] = []
    async with served(factory, echo) as (transport, server):
        for count in (1, 2, 3):
            request = post(server.url, on_sent=lambda: seen.append(len(server.requests)))
            await body_of(await transport.send(request))
            expect(seen == list(range(count)), f"on_sent at {seen}")


async def _disconnect(transport: Transport, url: str) -> Disconnected:
    sent: list[int] = []
    with raises(Disconnected) as error:
        await transport.send(post(url, on_sent=lambda: sent.append(1)))
    expect(sent == [1], f"on_sent was called {len(sent)} times")
    return error.value


async def an_end_before_the_answer_is_a_disconnect(factory: Factory) -> None:
    """The request may have arrived; the connection was new."""

    async def end(peer: Peer) -> None:
        await peer.request()

    async with served(factory, end) as (transport, server):
        error = await _disconnect(transport, server.url)
        expect(server.authority in str(error), f"{error} names the server")
        expect(not error.reused, "the connection was new")


async def a_reset_before_the_answer_is_a_disconnect(factory: Factory) -> None:
    """The same, rudely."""

    async def reset(peer: Peer) -> None:
        await peer.request()
        await peer.reset()

    async with served(factory, reset) as (transport, server):
        expect(not (await _disconnect(transport, server.url)).reused, "the connection was new")


async def an_end_within_the_head_is_a_disconnect(factory: Factory) -> None:
    """There is no answer in half a head."""

    async def stutter(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Le")

    async with served(factory, stutter) as (transport, server):
        expect(not (await _disconnect(transport, server.url)).reused, "the connection was new")


async def a_late_answer_times_out_at_the_deadline(factory: Factory) -> None:
    """While connecting, while the head is awaited, while it trickles; also together with a
    cancellation; with one slot, which is free again."""

    async def stutter(peer: Peer) -> None:
        await peer.request()
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n":
            await peer.say(bytes([byte]))
            await anyio.sleep(0.02)

    sent: list[int] = []
    async with served(factory, stutter, max_connections=1) as (transport, server):
        for scheme in ("https:", "http:", "http:"):
            deadline = transport.clock() + 0.1
            with raises(SendTimeout) as error:
                url = server.url.replace("http:", scheme)
                await transport.send(
                    post(
                        url,
                        deadline=deadline,
                        connect_timeout=60,
                        on_sent=lambda: sent.append(1),
                    )
                )
            late = transport.clock() - deadline
            expect(-0.001 <= late < 5, f"{late} s after the deadline")
            expect(server.authority in str(error.value), f"{error.value} names the server")
            await server.empty()
        deadline = transport.clock() + 0.1
        with anyio.CancelScope(deadline=deadline) as scope:
            with raises(SendTimeout):
                await transport.send(post(server.url, deadline=deadline))
            await anyio.sleep(1)
        expect(scope.cancelled_caught, "the cancellation is not swallowed")
    expect(len(sent) == 2, f"on_sent was called {len(sent)} times")


async def redirects_are_not_followed(factory: Factory) -> None:
    """The key would go along."""

    async def redirect(peer: Peer) -> None:
        await peer.request()
        location = f"Location: http://{peer.server.authority}/elsewhere"
        await peer.answer(b"over there", location, status="307 Temporary Redirect")
        await peer.gone()

    async with served(factory, redirect) as (transport, server):
        response: Response = await transport.send(post(server.url))
        expect(response.status == 307, f"status {response.status}")
        expect(response.headers["location"].endswith("/elsewhere"), "its headers are there")
        expect(await body_of(response) == b"over there", "its body is there")
        expect(len(server.requests) == 1, "one request")


async def cookies_are_not_kept(factory: Factory) -> None:
    """A transport has no memory of an answer."""

    async def bake(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(b"", "Set-Cookie: a=b; Path=/")

    async with served(factory, bake) as (transport, server):
        named = server.url.replace("127.0.0.1", "localhost")  # a number would get no cookie anyway
        for _ in range(2):
            await body_of(await transport.send(post(named)))
        expect("cookie" not in server.requests[1][0].lower(), "no cookie is sent back")
