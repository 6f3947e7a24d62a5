"""How a transport hands over the body of a response, and how it says that the body broke."""

from __future__ import annotations

import math

import anyio

from ...transports._base import BodyBroken, BodyTimeout, Response
from ._expect import expect, raises
from ._server import Factory, Peer, body_of, post, saying, served

__all__ = [
    "a_body_ends_cleanly_in_each_framing",
    "a_broken_body_gives_what_had_arrived_and_then_fails",
    "a_reset_breaks_a_body_in_each_framing",
    "a_slow_reader_slows_the_server_down",
    "a_stalled_body_times_out_at_the_deadline",
    "an_earlier_deadline_counts_from_the_next_read",
    "bytes_come_as_they_arrive",
    "bytes_that_are_here_beat_a_deadline_that_has_passed",
    "malformed_chunks_break_the_body_at_once",
    "moving_the_deadline_keeps_a_slow_body_alive",
    "reading_on_after_the_end_gives_nothing",
]

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def sized(length: int) -> bytes:
    """A head that promises `length` bytes."""
    return OK + b"Content-Length: %d\r\n\r\n" % length


async def a_body_ends_cleanly_in_each_framing(factory: Factory) -> None:
    """By its length, in chunks (with an extension and a trailer), by the connection's end."""
    chunks = b"3\r\nabc\r\n4;why=not\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n"

    async def script(peer: Peer) -> None:
        for whole in (sized(7) + b"abcdefg", CHUNKED + chunks, OK + b"\r\nabcdefg"):
            await peer.request()
            await peer.say(whole)

    async with served(factory, script) as (transport, server):
        for _ in range(3):
            got = await body_of(await transport.send(post(server.url)))
            expect(got == b"abcdefg", f"the body is {got!r}")
        expect(server.accepted == 1, "the first two leave the connection usable")


async def bytes_come_as_they_arrive(factory: Factory) -> None:
    """No read waits for more than there is."""
    read = anyio.Event()

    async def script(peer: Peer) -> None:
        nonlocal read
        await peer.request()
        await peer.say(CHUNKED)
        for n in range(5):
            await peer.say(b"1\r\n%d\r\n" % n)
            await read.wait()
            read = anyio.Event()
        await peer.say(b"0\r\n\r\n")

    async with served(factory, script) as (transport, server):
        response = await transport.send(post(server.url))
        for n in range(5):
            expect(await response.receive(math.inf) == b"%d" % n, f"piece {n} came by itself")
            read.set()
        expect(await response.receive(math.inf) == b"", "the end")
        await response.aclose()


async def reading_on_after_the_end_gives_nothing(factory: Factory) -> None:
    """After a clean end, nothing, and again; after closing, an error."""

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.answer(b"abc")
        await peer.gone()

    async with served(factory, script) as (transport, server):
        response = await transport.send(post(server.url))
        expect(await response.receive(math.inf) == b"abc", "the body")
        for _ in range(10):
            expect(await response.receive(math.inf) == b"", "nothing")
        response = await transport.send(post(server.url))
        await response.aclose()
        with raises(BodyBroken):
            await response.receive(math.inf)


async def _breaks(response: Response, arrived: bytes) -> BodyBroken:
    """All of `arrived`, and then, at once, that it is broken, as often as one asks."""
    got = b""
    with raises(BodyBroken) as error, anyio.fail_after(1):
        while data := await response.receive(math.inf):
            got += data
    expect(got == arrived, f"{got!r} arrived, not {arrived!r}")
    with raises(BodyBroken):
        await response.receive(math.inf)
    await response.aclose()
    return error.value


async def a_broken_body_gives_what_had_arrived_and_then_fails(factory: Factory) -> None:
    """The connection ends too early, before or after a reader comes for the last bytes."""
    broken = (
        (sized(100) + b"arrived", b"arrived"),
        (CHUNKED + b"7\r\narrived\r\n", b"arrived"),
        (CHUNKED + b"ff\r\narrived", b"arrived"),
        (CHUNKED + b"7\r\narrived\r\n0\r\n", b"arrived"),
        (sized(1), b""),
    )
    for data, arrived in broken:
        for late in (False, True):

            async def script(peer: Peer, data: bytes = data) -> None:
                await peer.request()
                await peer.say(data)

            async with served(factory, script) as (transport, server):
                response = await transport.send(post(server.url))
                if late:
                    await server.empty()
                    await anyio.sleep(0.01)
                error = await _breaks(response, arrived)
                expect(not error.undecodable, "the network's fault, not the encoding's")
                expect(server.authority in str(error), f"{error} names the server")


async def malformed_chunks_break_the_body_at_once(factory: Factory) -> None:
    """A size that is none, a chunk that is longer than it says: on a connection that stays open,
    whether a reader waits or comes later. And a size that overflows, though a parser without a
    limit may take it until the connection ends."""
    for late in (False, True):
        for bad in (b"zz\r\n", b"-1\r\n", b"1\r\ntoo long\r\n", b"\r\n"):
            await _malformed(factory, bad, late=late, ends=False)
        await _malformed(factory, b"f" * 40 + b"\r\n", late=late, ends=True)


async def _malformed(factory: Factory, bad: bytes, *, late: bool, ends: bool) -> None:
    go, said = anyio.Event(), anyio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED + b"4\r\ngood\r\n")
        await go.wait()
        await peer.say(b"4\r\nmore\r\n" + bad)
        said.set()
        if not ends:
            await peer.gone()

    async with served(factory, script) as (transport, server):
        response = await transport.send(post(server.url))
        expect(await response.receive(math.inf) == b"good", "the first chunk")
        go.set()
        if late:
            await said.wait()
            await anyio.sleep(0.01)
        arrived = b"moret" if bad.startswith(b"1\r\n") else b"more"
        await _breaks(response, arrived)
        await server.empty()


async def a_reset_breaks_a_body_in_each_framing(factory: Factory) -> None:
    """Also the one that ends with its connection: that was no clean end."""
    for head in (sized(100), CHUNKED + b"40\r\n", OK + b"\r\n"):
        for late in (False, True):
            go = anyio.Event()

            async def script(peer: Peer, head: bytes = head, go: anyio.Event = go) -> None:
                await peer.request()
                await peer.say(head + b"arrived")
                await go.wait()
                await peer.reset()

            async with served(factory, script) as (transport, server):
                response = await transport.send(post(server.url))
                expect(await response.receive(math.inf) == b"arrived", "what was sent")
                go.set()
                if late:
                    await server.empty()
                    await anyio.sleep(0.01)
                await _breaks(response, b"")


async def a_stalled_body_times_out_at_the_deadline(factory: Factory) -> None:
    """Neither early nor late; the connection can only be closed then."""
    async with served(factory, saying(sized(100) + b"then nothing")) as (transport, server):
        response = await transport.send(post(server.url))
        expect(await response.receive(math.inf) == b"then nothing", "what was sent")
        deadline = transport.clock() + 0.05
        with raises(BodyTimeout) as error:
            await response.receive(deadline)
        late = transport.clock() - deadline
        expect(-0.001 <= late < 5, f"{late} s after the deadline")
        expect(server.authority in str(error.value), f"{error.value} names the server")
        await response.aclose()
        await server.empty()


async def moving_the_deadline_keeps_a_slow_body_alive(factory: Factory) -> None:
    """Each read has its own; the first one's does not fire in a later one."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(sized(20))
        for _ in range(20):
            await anyio.sleep(0.02)
            await peer.say(b".")

    async with served(factory, script) as (transport, server):
        response = await transport.send(post(server.url))
        got = b""
        while data := await response.receive(transport.clock() + 0.3):
            got += data
        expect(got == b"." * 20, f"{len(got)} bytes of 20")
        await response.aclose()


async def an_earlier_deadline_counts_from_the_next_read(factory: Factory) -> None:
    """A read may have less time than the one before."""
    async with served(factory, saying(sized(9) + b"12345678")) as (transport, server):
        response = await transport.send(post(server.url))
        expect(await response.receive(transport.clock() + 15) == b"12345678", "in time")
        began = transport.clock()
        with raises(BodyTimeout):
            await response.receive(began + 0.05)
        expect(transport.clock() - began < 5, "the earlier deadline counted")
        await response.aclose()


async def bytes_that_are_here_beat_a_deadline_that_has_passed(factory: Factory) -> None:
    """Who comes late still gets what is there."""
    async with served(factory, saying(sized(9) + b"12345678")) as (transport, server):
        response = await transport.send(post(server.url))
        expect(await response.receive(transport.clock() - 1) == b"12345678", "it was there")
        with raises(BodyTimeout):
            await response.receive(transport.clock() - 1)
        await response.aclose()


async def a_slow_reader_slows_the_server_down(factory: Factory) -> None:
    """What nobody reads stays with the server: memory is bounded."""
    written = 0

    async def script(peer: Peer) -> None:
        nonlocal written
        await peer.request()
        await peer.say(sized(2**30))
        while True:
            await peer.say(bytes(2**18))
            written += 2**18

    async with served(factory, script) as (transport, server):
        response = await transport.send(post(server.url))
        before = -1
        while written != before:
            before = written
            await anyio.sleep(0.05)
        expect(written < 2**25, f"{written} bytes went to a reader that reads nothing")
        expect(await response.receive(math.inf), "and they can be read")
        await response.aclose()
