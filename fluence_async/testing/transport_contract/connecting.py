"""What a transport says when it cannot connect: nothing left this machine."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import anyio

from ...transports._base import ConnectFailed, ConnectTimeout, TLSFailed
from ._expect import expect, raises
from ._server import Factory, Peer, body_of, echo, post, served, trusting

__all__ = [
    "a_handshake_that_is_cut_off_is_a_failure_to_connect",
    "a_name_that_does_not_resolve_is_a_failure_to_connect",
    "a_refused_port_is_a_failure_to_connect",
    "an_untrusted_certificate_fails_tls",
    "connecting_may_time_out_in_tcp",
    "connecting_may_time_out_in_tls",
    "plain_http_on_a_tls_port_fails_tls",
    "tls_with_a_trusted_certificate_works",
    "waiting_for_a_slot_is_not_connecting",
]


async def a_refused_port_is_a_failure_to_connect(factory: Factory) -> None:
    """Nothing left, and the message names host and port."""
    sent: list[int] = []
    transport = factory()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        where = f"127.0.0.1:{unused.getsockname()[1]}"
        with raises(ConnectFailed) as error:
            await transport.send(post(f"http://{where}/v1", on_sent=lambda: sent.append(1)))
    expect(where in str(error.value), f"{error.value} names {where}")
    expect("refused" in str(error.value), f"{error.value} names the cause")
    expect(not error.value.permanent, "the server may come back")
    expect(not sent, "nothing left")
    await transport.aclose()


async def a_name_that_does_not_resolve_is_a_failure_to_connect(factory: Factory) -> None:
    """Nothing left, and the message names the host."""
    sent: list[int] = []
    transport = factory()
    with raises(ConnectFailed) as error:
        url = "http://nonexistent.invalid:8080/v1"
        await transport.send(post(url, on_sent=lambda: sent.append(1)))
    expect("nonexistent.invalid:8080" in str(error.value), f"{error.value} names the host")
    expect(not sent, "nothing left")
    await transport.aclose()


async def connecting_may_time_out_in_tcp(factory: Factory) -> None:
    """A host that does not answer: here, a listener whose backlog is full."""
    sent: list[int] = []
    transport = factory()
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        where = f"127.0.0.1:{full.getsockname()[1]}"
        began = transport.clock()
        with raises(ConnectTimeout) as error:
            url = f"http://{where}/v1"
            await transport.send(post(url, connect_timeout=0.05, on_sent=lambda: sent.append(1)))
        took = transport.clock() - began
    expect(0.049 <= took < 5, f"after {took} s")
    expect(where in str(error.value), f"{error.value} names {where}")
    expect(not sent, "nothing left")
    await transport.aclose()


async def connecting_may_time_out_in_tls(factory: Factory) -> None:
    """A port that accepts and never says a word: the deadline covers the handshake."""
    sent: list[int] = []

    async def say_nothing(peer: Peer) -> None:
        await peer.gone()

    async with served(factory, say_nothing) as (transport, server):
        url = server.url.replace("http:", "https:")
        began = transport.clock()
        with raises(ConnectTimeout):
            await transport.send(post(url, connect_timeout=0.05, on_sent=lambda: sent.append(1)))
        took = transport.clock() - began
        expect(0.049 <= took < 5, f"after {took} s")
        await server.empty()
    expect(not sent, "nothing left")


async def waiting_for_a_slot_is_not_connecting(factory: Factory) -> None:
    """With one connection, the second call waits for longer than it may connect."""

    async def take_time(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            await anyio.sleep(0.2)
            await peer.answer(body)

    async with served(factory, take_time, max_connections=1) as (transport, server):

        async def call() -> None:
            await body_of(await transport.send(post(server.url, connect_timeout=0.1)))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(call)
        expect(server.most == 1, f"{server.most} connections at once")


async def an_untrusted_certificate_fails_tls(factory: Factory) -> None:
    """The message says why, and nothing left."""
    sent: list[int] = []
    async with served(factory, echo, tls=True) as (transport, server):
        with raises(TLSFailed) as error:
            await transport.send(post(server.url, on_sent=lambda: sent.append(1)))
        expect(server.authority in str(error.value), f"{error.value} names the server")
        expect("self-signed" in str(error.value).replace("self signed", "self-signed"), "and why")
    expect(not sent, "nothing left")


async def tls_with_a_trusted_certificate_works(factory: Factory) -> None:
    """Encrypted, reused, and closed cleanly."""
    async with served(factory, echo, tls=True, ssl_context=trusting()) as (transport, server):
        for n in range(3):
            body = b"%d" % n
            expect(await body_of(await transport.send(post(server.url, body))) == body, "echoed")
        expect(server.accepted == 1, "over one connection")


async def plain_http_on_a_tls_port_fails_tls(factory: Factory) -> None:
    """Who answers a handshake in plain text will do so again."""

    async def speak_plainly(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await peer.gone()

    async with served(factory, speak_plainly) as (transport, server):
        with raises(TLSFailed):
            await transport.send(post(server.url.replace("http:", "https:")))


async def a_handshake_that_is_cut_off_is_a_failure_to_connect(factory: Factory) -> None:
    """A server that is just going down says nothing about its certificate."""

    async def hang_up(peer: Peer) -> None:
        del peer

    async with served(factory, hang_up) as (transport, server):
        with raises(ConnectFailed):
            await transport.send(post(server.url.replace("http:", "https:")))
