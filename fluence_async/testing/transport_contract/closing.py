"""What a transport leaves behind when its connections are given back, closed, or lost."""

from __future__ import annotations

import math
import threading
from contextlib import suppress

import anyio
from anyio.lowlevel import checkpoint

from ...transports._base import BodyBroken, Disconnected, Response, TransportError
from ._expect import expect, raises
from ._server import Factory, Peer, body_of, echo, post, saying, served
from .bodies import sized

__all__ = [
    "a_kept_connection_that_dies_under_a_request_is_told",
    "a_kept_connection_that_was_closed_is_not_used",
    "a_response_that_is_closed_as_its_bytes_come_leaves_nothing",
    "a_response_that_is_left_early_closes_its_connection",
    "a_response_that_is_read_to_its_end_gives_its_connection_back",
    "abort_closes_any_number_of_times",
    "abort_may_be_called_from_another_thread",
    "closing_a_response_ends_a_read_in_another_task",
    "closing_a_transport_closes_everything",
    "closing_a_transport_does_not_wait_for_a_stuck_server",
]


async def a_response_that_is_read_to_its_end_gives_its_connection_back(factory: Factory) -> None:
    """Twenty requests, one connection, whether or not somebody closes."""
    async with served(factory, echo) as (transport, server):
        for n in range(20):
            response = await transport.send(post(server.url, b"%d" % n))
            while await response.receive(math.inf):
                pass
            for _ in range(n % 3):
                await response.aclose()
        expect(server.accepted == 1, f"{server.accepted} connections for 20 requests")


async def a_response_that_is_left_early_closes_its_connection(factory: Factory) -> None:
    """Nobody can know how much is still to come."""
    async with served(factory, saying(sized(2**20) + b"some")) as (transport, server):
        for n in range(1, 4):
            response = await transport.send(post(server.url))
            if n > 1:
                expect(await response.receive(math.inf) == b"some", "what was sent")
            await response.aclose()
            await response.aclose()
            await server.empty()
            expect(server.accepted == n, f"{server.accepted} connections for {n} requests")


async def a_kept_connection_that_was_closed_is_not_used(factory: Factory) -> None:
    """The server's goodbye, or its reset, was read before the next request."""

    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"ok")
        if peer.server.accepted == 2:
            await answered.wait()
            await peer.reset()

    answered = anyio.Event()
    async with served(factory, once) as (transport, server):
        for _ in range(4):
            expect(await body_of(await transport.send(post(server.url))) == b"ok", "answered")
            if server.accepted == 2:
                answered.set()
            await server.empty()
            await anyio.sleep(0.01)
        expect(server.accepted == 4, f"{server.accepted} connections")


async def a_kept_connection_that_dies_under_a_request_is_told(factory: Factory) -> None:
    """`reused`: it may merely have been stale, and one free retry is in order."""
    for rude in (False, True):

        async def twice(peer: Peer, rude: bool = rude) -> None:
            await peer.request()
            await peer.answer(b"ok")
            await peer.request()
            if rude:
                await peer.reset()

        async with served(factory, twice) as (transport, server):
            await body_of(await transport.send(post(server.url)))
            with raises(Disconnected) as error:
                await transport.send(post(server.url))
            expect(error.value.reused, "it had served a request")
            expect(len(server.requests) == 2, "nothing is sent again by itself")
            expect(await body_of(await transport.send(post(server.url))) == b"ok", "and goes on")


async def closing_a_response_ends_a_read_in_another_task(factory: Factory) -> None:
    """A stream may be closed from any task."""
    async with served(factory, saying(sized(100))) as (transport, server):
        for close in ("aclose", "abort"):
            response = await transport.send(post(server.url))

            async def read(response: object = response) -> None:
                with raises(BodyBroken):
                    await response.receive(math.inf)  # type: ignore[attr-defined]

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await anyio.sleep(0.01)
                if close == "aclose":
                    await response.aclose()
                else:
                    response.abort()
            await server.empty()


async def a_response_that_is_closed_as_its_bytes_come_leaves_nothing(factory: Factory) -> None:
    """In another task, after any number of steps; its slot is free, read on or not."""
    go = anyio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(sized(100))
        await go.wait()
        await peer.say(b"some")
        await peer.gone()

    async with served(factory, script, max_connections=1) as (transport, server):

        async def read(response: Response) -> None:
            with suppress(BodyBroken):
                await response.receive(math.inf)

        for steps in range(24):
            go = anyio.Event()
            with anyio.fail_after(5):
                response = await transport.send(post(server.url))
            async with anyio.create_task_group() as tasks:
                if steps % 2:  # they are there before they are asked for
                    go.set()
                    await anyio.sleep(0.01)
                tasks.start_soon(read, response)
                await checkpoint()
                go.set()
                for _ in range(steps // 2):
                    await checkpoint()
                await response.aclose()
            await server.empty()


async def abort_closes_any_number_of_times(factory: Factory) -> None:
    """It is what a finalizer calls; a connection that was given back before stays alive."""
    script = saying(sized(100) + b"some")
    async with served(factory, script, max_connections=1) as (transport, server):
        responses = []
        for _ in range(2):  # the second needs the slot of the first
            responses.append(await transport.send(post(server.url)))
            expect(await responses[-1].receive(math.inf) == b"some", "what was sent")
            responses[-1].abort()
            responses[-1].abort()
            await server.empty()
        for response in responses:
            response.abort()
            await response.aclose()
            with raises(BodyBroken):
                await response.receive(math.inf)
    async with served(factory, echo) as (transport, server):
        responses = [await transport.send(post(server.url))]
        for _ in range(3):
            await body_of(responses[-1])
            responses[-1].abort()
            await checkpoint()
            responses.append(await transport.send(post(server.url)))
        expect(server.accepted == 1, "the connection was given back before")
    for response in responses:
        response.abort()


async def abort_may_be_called_from_another_thread(factory: Factory) -> None:
    """While the loop has nothing else to wake up for."""
    async with served(factory, saying(sized(100))) as (transport, server):
        response = await transport.send(post(server.url))
        thread = threading.Timer(0.05, response.abort)
        thread.start()
        with anyio.fail_after(1):
            await server.empty()
        thread.join()


async def closing_a_transport_closes_everything(factory: Factory) -> None:
    """What is idle, what is being read, what is awaited; and it can be closed again."""
    go = anyio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"ok")
        await peer.request()
        await peer.say(sized(100) + b"some")
        go.set()
        await peer.gone()

    async with served(factory, script) as (transport, server):
        await body_of(await transport.send(post(server.url)))
        response = await transport.send(post(server.url))
        expect(await response.receive(math.inf) == b"some", "what was sent")

        async def read() -> None:
            with raises(BodyBroken):
                await response.receive(math.inf)

        async def send() -> None:
            with raises(TransportError):
                for _ in range(2):
                    await body_of(await transport.send(post(server.url)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(send)
            await anyio.sleep(0.02)
            await transport.aclose()
        await server.empty()
        await transport.aclose()
        await response.aclose()
        with raises(RuntimeError):
            await transport.send(post(server.url))


async def closing_a_transport_does_not_wait_for_a_stuck_server(factory: Factory) -> None:
    """32 MB are on their way to a server that reads nothing."""
    release = anyio.Event()

    async def deaf(peer: Peer) -> None:
        await release.wait()
        await peer.gone()

    async with served(factory, deaf) as (transport, server):

        async def send() -> None:
            with raises(TransportError):
                await transport.send(post(server.url, bytes(2**25)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await anyio.sleep(0.05)
            with anyio.fail_after(5):
                await transport.aclose()
        release.set()
        await server.empty()
