"""When a transport says that the server's kernel has a request: never too early, or never."""

from __future__ import annotations

import socket
from functools import partial

import anyio

from ...transports._base import Transport
from ._expect import expect
from ._server import Factory, Peer, body_of, echo, post, served, trusting

__all__ = [
    "a_request_is_delivered_once_and_not_after_its_answer",
    "what_the_kernel_of_the_peer_does_not_take_is_not_delivered",
    "what_the_peer_does_not_read_is_not_delivered",
]

_LONG_S = 1.0
"""Many times what a transport may wait before it asks its kernel."""


async def what_the_kernel_of_the_peer_does_not_take_is_not_delivered(factory: Factory) -> None:
    """Though our own kernel has all of it."""
    told: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:  # and nobody ever accepts
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least that there is
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        transport = factory()
        try:
            with anyio.move_on_after(_LONG_S):
                request = post(url, bytes(12 * 1024), on_delivered=partial(told.append, 1))
                await transport.send(request)
        finally:
            await transport.aclose()
    expect(not told, "told, and the request is here still")


async def what_the_peer_does_not_read_is_not_delivered(factory: Factory) -> None:
    """Of a body that is too big for any two kernels; over TLS as well."""
    for tls in (False, True):
        lazy = _Lazy()
        async with (
            served(factory, lazy.play, tls=tls, ssl_context=trusting()) as (transport, server),
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(lazy.send, transport, server.url)
            await anyio.sleep(_LONG_S / 2)
            expect(not lazy.told, "told though the server has read but its beginning")
            lazy.reads.set()
        expect(lazy.told in ([], [True]), "told before all of it was read, or more than once")


class _Lazy:
    """A server that stops reading until `reads`, and its client, which notes what it is told."""

    def __init__(self) -> None:
        self.reads = anyio.Event()
        self.told: list[bool] = []

    async def play(self, peer: Peer) -> None:
        await peer.begin()
        await self.reads.wait()
        await peer.request()
        await peer.answer()

    async def send(self, transport: Transport, url: str) -> None:
        def tell() -> None:
            self.told.append(self.reads.is_set())

        await body_of(await transport.send(post(url, bytes(2**25), on_delivered=tell)))


async def a_request_is_delivered_once_and_not_after_its_answer(factory: Factory) -> None:
    """Of a server that is slow to answer, at most once; of one that answers at once, hardly."""

    async def slowly(peer: Peer) -> None:
        while True:
            await peer.request()
            await anyio.sleep(_LONG_S / 2)
            await peer.answer()

    for script, times in ((slowly, 2), (echo, 20)):
        async with served(factory, script) as (transport, server):
            for _ in range(times):
                told: list[int] = []
                request = post(server.url, on_delivered=partial(told.append, 1))
                response = await transport.send(request)
                before = len(told)
                await body_of(response)
                if script is slowly:
                    await anyio.sleep(_LONG_S / 2)
                expect(before <= 1, f"told {before} times")
                expect(len(told) == before, "told after the answer")
