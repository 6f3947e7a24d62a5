"""How a transport decodes the body of a response, and how much of it at a time."""

from __future__ import annotations

import gzip
import math
import zlib

from ...transports._base import BodyBroken
from ._expect import expect, raises
from ._server import Factory, Peer, body_of, post, served

__all__ = [
    "a_body_that_swells_comes_whole",
    "a_gzip_bomb_comes_in_bounded_pieces",
    "content_encodings_are_decoded",
    "undecodable_bodies_are_told_from_broken_ones",
]

PLAIN = b'{"text": "hello"}' * 1000


def _raw_deflate(data: bytes) -> bytes:
    press = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return press.compress(data) + press.flush()


async def content_encodings_are_decoded(factory: Factory) -> None:
    """Of gzip (also in two members), deflate in both its readings, and identity."""
    encoded = (
        ("gzip", gzip.compress(PLAIN)),
        ("GZIP", gzip.compress(PLAIN)),
        ("x-gzip", gzip.compress(PLAIN[:100]) + gzip.compress(PLAIN[100:])),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", _raw_deflate(PLAIN)),
        ("identity", PLAIN),
    )

    async def script(peer: Peer) -> None:
        for name, data in encoded:
            await peer.request()
            await peer.answer(data, f"Content-Encoding: {name}")

    async with served(factory, script) as (transport, server):
        for name, _ in encoded:
            got = await body_of(await transport.send(post(server.url)))
            expect(got == PLAIN, f"{name}: {len(got)} bytes of {len(PLAIN)}")
        expect(server.accepted == 1, "over one connection")


async def undecodable_bodies_are_told_from_broken_ones(factory: Factory) -> None:
    """All bytes came and make no sense; or they did not all come."""
    pressed = gzip.compress(PLAIN)
    corrupt = pressed[:20] + b"\xff\xff\xff\xff" + pressed[24:]
    cases = (
        ("gzip", b"no gzip at all", 0, True),
        ("gzip", corrupt, 0, True),
        ("gzip", pressed[:-8], 0, True),
        ("gzip", pressed + b"rubbish", 0, True),
        ("br", b"\x0b\x02\x80hello\x03", 0, True),
        ("gzip", pressed[:-8], 8, False),
    )
    for encoding, data, missing, undecodable in cases:

        async def script(
            peer: Peer, encoding: str = encoding, data: bytes = data, missing: int = missing
        ) -> None:
            await peer.request()
            head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n"
            await peer.say(f"{head}Content-Length: {len(data) + missing}\r\n\r\n".encode() + data)

        async with served(factory, script) as (transport, server):
            response = await transport.send(post(server.url))
            expect(response.status == 200, "the head is good")
            with raises(BodyBroken) as error:
                await body_of(response)
            await response.aclose()
            expect(error.value.undecodable is undecodable, f"{encoding}: {error.value}")
            expect(not undecodable or encoding in str(error.value), f"{error.value} names it")


async def a_body_that_swells_comes_whole(factory: Factory) -> None:
    """Also when a piece is full just as the compressed bytes are used up."""
    bodies = [
        (size, encoding, press(bytes(size)))
        for size in (2**18 - 1, 2**18, 2**18 + 200, 2**19 + 227, 2**22)
        for encoding, press in (
            ("gzip", gzip.compress),
            ("deflate", zlib.compress),
            ("deflate", _raw_deflate),  # which ends without a sum, and so without a remainder
        )
    ]

    async def script(peer: Peer) -> None:
        for _, encoding, data in bodies:
            await peer.request()
            await peer.answer(data, f"Content-Encoding: {encoding}")

    async with served(factory, script) as (transport, server):
        for size, encoding, _ in bodies:
            got = await body_of(await transport.send(post(server.url)))
            expect(len(got) == size, f"{encoding}: {len(got)} bytes of {size}")


async def a_gzip_bomb_comes_in_bounded_pieces(factory: Factory) -> None:
    """100 MB in 100 KB: at most 1 MiB at a time, and only as much as is asked for."""
    press = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    bomb = b"".join(press.compress(bytes(2**20)) for _ in range(100)) + press.flush()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(bomb, "Content-Encoding: gzip")
        await peer.gone()

    async with served(factory, script) as (transport, server):
        response = await transport.send(post(server.url))
        for _ in range(40):
            piece = await response.receive(math.inf)
            expect(0 < len(piece) <= 2**20, f"a piece of {len(piece)} bytes")
        await response.aclose()
