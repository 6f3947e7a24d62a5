"""What a transport leaves behind when it is cancelled: nothing, at any await."""

from __future__ import annotations

import math
import socket
from contextlib import suppress

import anyio
from anyio.lowlevel import checkpoint

from ...transports._base import BodyBroken, Response
from ._expect import expect
from ._server import Factory, Peer, Script, body_of, post, saying, served, trusting
from .bodies import CHUNKED, OK, sized

__all__ = [
    "a_call_cancelled_after_any_number_of_steps_leaves_nothing",
    "a_cancelled_call_for_a_slot_leaves_the_slot",
    "a_cancelled_read_leaves_a_response_that_can_be_closed",
    "a_cancelled_read_loses_nothing",
    "a_cancelled_send_leaves_nothing_at_any_stage",
    "a_cancelled_send_of_a_big_body_leaves_nothing",
    "a_read_cancelled_after_any_number_of_steps_loses_nothing",
    "a_read_that_is_cancelled_and_closed_at_once_leaves_nothing",
]


async def _cancelled_send(factory: Factory, script: Script, scheme: str) -> None:
    """Twice in a row with one slot, which must be free again."""
    async with served(factory, script, max_connections=1) as (transport, server):
        url = server.url.replace("http:", scheme)
        for _ in range(2):
            with anyio.move_on_after(0.1) as scope:
                await transport.send(post(url))
            expect(scope.cancelled_caught, "the cancellation came through")
            await server.empty()


async def a_call_cancelled_after_any_number_of_steps_leaves_nothing(factory: Factory) -> None:
    """With one slot, which the next call needs."""

    async def pieces(peer: Peer) -> None:
        while True:
            await peer.request()
            for piece in (sized(6)[:20], sized(6)[20:], b"abc", b"def"):
                await checkpoint()
                await peer.say(piece)

    async with served(factory, pieces, max_connections=1) as (transport, server):

        async def call(scope: anyio.CancelScope) -> None:
            with scope:
                response = await transport.send(post(server.url))
                try:
                    while await response.receive(math.inf):
                        pass
                finally:
                    response.abort()

        for steps in range(60):
            scope = anyio.CancelScope()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, scope)
                for _ in range(steps):
                    await checkpoint()
                scope.cancel()
            with anyio.fail_after(5):
                got = await body_of(await transport.send(post(server.url)))
            expect(got == b"abcdef", f"after {steps} steps: {got!r}")
            expect(server.open <= 1, f"after {steps} steps: {server.open} connections")


async def a_cancelled_send_leaves_nothing_at_any_stage(factory: Factory) -> None:
    """In the TLS handshake, while the headers are awaited, while they trickle."""

    async def silent(peer: Peer) -> None:
        await peer.gone()

    async def trickle(peer: Peer) -> None:
        await peer.request()
        for byte in b"HTTP/1.1 200 OK\r\n" * 1000:
            await peer.say(bytes([byte]))
            await anyio.sleep(0.02)

    await _cancelled_send(factory, silent, "https:")
    await _cancelled_send(factory, silent, "http:")
    await _cancelled_send(factory, trickle, "http:")


async def a_cancelled_send_of_a_big_body_leaves_nothing(factory: Factory) -> None:
    """64 MiB are on their way to a server that does not read them, and what has not left yet never
    leaves."""
    # Nobody accepts, so that only the kernel's buffers take anything: a loop would read ahead.
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        transport = factory(max_connections=1)
        try:
            for _ in range(2):
                with anyio.move_on_after(0.1) as scope:
                    await transport.send(post(f"http://127.0.0.1:{deaf.getsockname()[1]}/", _BIG))
                expect(scope.cancelled_caught, "the cancellation came through")
                await checkpoint()  # asyncio closes a socket in its next step
                size = _all_that_left(deaf)
                expect(size < len(_BIG), f"{size} bytes came")
        finally:
            await transport.aclose()


_BIG = bytes(2**26)


def _all_that_left(listening: socket.socket) -> int:
    size = 0
    connection, _ = listening.accept()
    with connection, suppress(ConnectionError):
        connection.settimeout(5)
        while piece := connection.recv(2**20):
            size += len(piece)
    return size


async def a_cancelled_call_for_a_slot_leaves_the_slot(factory: Factory) -> None:
    """Fifty that wait are cancelled, one by one and together; the next one proceeds."""
    busy, go = anyio.Event(), anyio.Event()

    async def wait(peer: Peer) -> None:
        while True:
            await peer.request()
            if len(peer.server.requests) == 2:
                busy.set()
            await go.wait()
            await peer.answer(b"ok")

    async with served(factory, wait, max_connections=2) as (transport, server):

        async def call(scope: anyio.CancelScope | None = None) -> None:
            with scope or anyio.CancelScope():
                await body_of(await transport.send(post(server.url)))

        scopes = [anyio.CancelScope() for _ in range(50)]
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(call)
            await busy.wait()
            for scope in scopes:
                tasks.start_soon(call, scope)
            for _ in range(10):
                await checkpoint()
            for scope in scopes[:25]:
                scope.cancel()
                await checkpoint()
            for scope in scopes[25:]:
                scope.cancel()
            tasks.start_soon(call)
            for _ in range(10):
                await checkpoint()
            go.set()
        await call()
        expect(server.most == 2, f"{server.most} connections at once")
        expect(len(server.requests) == 4, f"{len(server.requests)} requests")


async def a_cancelled_read_leaves_a_response_that_can_be_closed(factory: Factory) -> None:
    """By aclose and by abort."""
    async with served(factory, saying(sized(100)), max_connections=1) as (transport, server):
        for close in ("aclose", "abort"):
            response = await transport.send(post(server.url))
            with anyio.move_on_after(0.02) as scope:
                await response.receive(math.inf)
            expect(scope.cancelled_caught, "the cancellation came through")
            if close == "aclose":
                await response.aclose()
            else:
                response.abort()
            await server.empty()


async def a_cancelled_read_loses_nothing(factory: Factory) -> None:
    """The next one goes on where it would have, between any two bytes of each framing, also over
    TLS; and the connection serves the next request."""
    more = anyio.Event()

    async def bytewise(peer: Peer) -> None:
        nonlocal more
        for whole in (sized(7) + b"abcdefg", _IN_CHUNKS, OK + b"\r\nabcdefg"):
            await peer.request()
            end = whole.index(b"\r\n\r\n") + 4
            await peer.say(whole[:end])
            for byte in whole[end:]:
                await more.wait()
                more = anyio.Event()
                await peer.say(bytes([byte]))
            await checkpoint()

    for tls in (False, True):
        context = trusting() if tls else None
        async with served(factory, bytewise, tls=tls, ssl_context=context) as (transport, server):
            for framing in range(3):
                response = await transport.send(post(server.url))
                got, data = b"", b"-"
                while data:
                    with anyio.move_on_after(0.01):
                        data = await response.receive(math.inf)
                        got += data
                        continue
                    more.set()
                expect(got == b"abcdefg", f"framing {framing}: {got!r}")
                await response.aclose()
            expect(server.accepted == 1, f"{server.accepted} connections")


_IN_CHUNKS = CHUNKED + b"3\r\nabc\r\n4;why=not\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n"


async def a_read_cancelled_after_any_number_of_steps_loses_nothing(factory: Factory) -> None:
    """Also as the bytes arrive."""

    async def pieces(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(CHUNKED + b"4")
            for piece in (b"\r\nab", b"cd\r\n1\r\ne\r\n2", b"\r\nfg\r", b"\n0\r\n\r\n"):
                for _ in range(4):
                    await checkpoint()
                await peer.say(piece)

    async with served(factory, pieces, max_connections=1) as (transport, server):
        for steps in range(60):
            response = await transport.send(post(server.url))
            got = b""

            async def read(scope: anyio.CancelScope, response: Response = response) -> None:
                nonlocal got
                with scope:
                    while data := await response.receive(math.inf):
                        got += data

            scope = anyio.CancelScope()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, scope)
                for _ in range(steps):
                    await checkpoint()
                scope.cancel()
            with anyio.fail_after(5):
                await read(anyio.CancelScope())
            expect(got == b"abcdefg", f"after {steps} steps: {got!r}")
            await response.aclose()
        expect(server.accepted == 1, f"{server.accepted} connections")


async def a_read_that_is_cancelled_and_closed_at_once_leaves_nothing(factory: Factory) -> None:
    """Whichever comes first; nobody comes back to that response, and its slot is free again."""
    async with served(factory, saying(sized(100)), max_connections=1) as (transport, server):

        async def read(response: Response, scope: anyio.CancelScope) -> None:
            with scope, suppress(BodyBroken):
                await response.receive(math.inf)

        for cancelled_first in (False, True):
            for close in ("aclose", "abort"):
                with anyio.fail_after(5):
                    response = await transport.send(post(server.url))
                scope = anyio.CancelScope()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read, response, scope)
                    for _ in range(5):
                        await checkpoint()
                    if cancelled_first:
                        scope.cancel()
                    if close == "aclose":
                        await response.aclose()
                    else:
                        response.abort()
                    scope.cancel()
                await server.empty()
